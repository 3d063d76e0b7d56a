"""How much longer than the bare matrix product does ranking against the full catalogue take?

Ranks 50,000 queries over 10,000 items (d = 64, K = 1), from histories to ranks, beside the product
of the same queries and items alone, in turn, on the same threads; of each the fastest turn counts.
The product is measured three ways, and the fastest is the yardstick. On fewer queries it also
times the naive way, sorting all scores, which must give the same ranks (ties aside). Prints a
table, writes `results/evaluate.json`, and exits with 1 when the ratio is above 3 or ranks differ.

    python benchmarks/bench_evaluate.py [--queries 50000] [--items 10000] [--threads 1] [--turns 3]
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.data.queries import Queries
from dimerec.evaluation.ranking import BLOCK, ranks
from dimerec.model import LossParts, SequentialModel

WIDTH, LENGTH, NAIVE = 64, 20, 2000
LIMIT = 3.0
AGREE = 0.99  # two items tied by chance move a rank by a whole place, in one query of 500


class Lookup(SequentialModel):
    """A model as quick as a model can be: K rows of a table, looked up by the last item."""

    width = WIDTH

    def __init__(self, size: int, interests: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        table = torch.randn(size, interests, WIDTH, generator=rng)
        items = torch.randn(size, WIDTH, generator=rng)
        self.table = torch.nn.functional.normalize(table, dim=2)
        self.items = torch.nn.functional.normalize(items, dim=1)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        raise NotImplementedError

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.table[history[:, -1]]

    def item_vectors(self) -> Tensor:
        return self.items


def sequences(number: int, size: int) -> Queries:
    """`number` users with `LENGTH` random events and a target each."""
    n = LENGTH + 1
    return Queries(
        items=np.random.default_rng(0).integers(1, size, number * n).astype(np.int32),
        offsets=np.arange(number + 1) * n,
        rows=np.arange(number),
        positions=np.full(number, LENGTH),
    )


def product(queries: Tensor, items: Tensor, rows: int, columns: int) -> Callable[[], None]:
    """The matrix product alone, in blocks of `rows` x `columns`, into one buffer."""
    buffer = torch.empty(rows * columns)

    def run() -> None:
        for q in queries.split(rows):
            for v in items.split(columns):
                out = buffer[: len(q) * len(v)].view(len(q), len(v))
                torch.mm(q, v.T, out=out)

    return run


def sorted_ranks(queries: Tensor, items: Tensor, targets: Tensor) -> np.ndarray:
    """Ranks by sorting all scores, 256 queries at a time."""
    found = []
    for q, t in zip(queries.split(256), targets.split(256), strict=True):
        scores = q @ items.T
        scores[:, 0] = -torch.inf
        order = scores.argsort(dim=1, descending=True)
        found.append((order == t.unsqueeze(1)).float().argmax(dim=1) + 1)
    return torch.cat(found).numpy()


def timed(run: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def measure(number: int, size: int, turns: int) -> dict[str, dict[str, float]]:
    """The fastest of `turns` turns of everything, taken in turn."""
    asked, model, many = sequences(number, size), Lookup(size, 1), Lookup(size, 4)
    whole = slice(0, number)
    q = model.table[asked.histories(whole, 1)[:, 0]].squeeze(1)
    few, targets = sequences(NAIVE, size), torch.from_numpy(asked.targets(whole))
    items = model.items[1:]
    step = BLOCK["cpu"] // 512
    tasks: dict[str, Callable[[], object]] = {
        "product, 512 queries x blocks": product(q, items, 512, step),
        "product, 256 queries x all items": product(q, items, 256, len(items)),
        "product, 4096 queries x all items": product(q, items, 4096, len(items)),
        "ranks": lambda: ranks(model, asked, length=LENGTH),
        "ranks, seen items hidden": lambda: ranks(model, asked, length=LENGTH, hide_seen=True),
        "ranks, four interests": lambda: ranks(many, asked, length=LENGTH),
        f"ranks of {NAIVE} queries": lambda: ranks(model, few, length=LENGTH),
        f"sorting for {NAIVE} queries": lambda: sorted_ranks(
            q[:NAIVE], model.items, targets[:NAIVE]
        ),
    }
    best: dict[str, dict[str, float]] = {}
    for _ in range(turns):
        for name, task in tasks.items():
            now = timed(task)
            best[name] = {k: min(v, best.get(name, now)[k]) for k, v in now.items()}
    return best


def agreement(size: int) -> float:
    """Share of queries whose counted rank is that of sorting, give or take half a place."""
    asked, model = sequences(NAIVE, size), Lookup(size, 1)
    whole = slice(0, NAIVE)
    q = model.table[asked.histories(whole, 1)[:, 0]].squeeze(1)
    expected = sorted_ranks(q, model.items, torch.from_numpy(asked.targets(whole)))
    # one query in sixteen has another item within the tie tolerance by chance: half a place
    return float((np.abs(ranks(model, asked, length=LENGTH) - expected) <= 0.5).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = given.items + 1
    found, agree = measure(given.queries, size, given.turns), agreement(size)
    products = [v for name, v in found.items() if name.startswith("product")]
    bare = {k: min(v[k] for v in products) for k in ("seconds", "cpu_seconds")}
    print(f"{given.queries} queries, {given.items} items, {given.threads} threads")
    print(f"{'':36}{'seconds':>9}{'CPU s':>9}{'x bare product':>16}")
    for name, v in found.items():
        ratio = "" if str(NAIVE) in name else f"{v['seconds'] / bare['seconds']:.2f}"
        print(f"{name:36}{v['seconds']:>9.3f}{v['cpu_seconds']:>9.3f}{ratio:>16}")
    ratio = found["ranks"]["seconds"] / bare["seconds"]
    cpu_ratio = found["ranks"]["cpu_seconds"] / bare["cpu_seconds"]
    print(f"ranks / bare product: {ratio:.2f} (CPU time {cpu_ratio:.2f}), at most {LIMIT}")
    faster = found[f"sorting for {NAIVE} queries"], found[f"ranks of {NAIVE} queries"]
    speedup = faster[0]["cpu_seconds"] / faster[1]["cpu_seconds"]
    print(f"counting instead of sorting: {speedup:.0f} times less CPU; same ranks: {agree:.2%}")
    given.out.mkdir(parents=True, exist_ok=True)
    result = {
        "queries": given.queries,
        "items": given.items,
        "width": WIDTH,
        "turns": given.turns,
        "threads": given.threads,
        "cpus": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "system": platform.platform(),
        "versions": {
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "measured": found,
        "bare": bare,
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
        "limit": LIMIT,
        "sorting_over_counting": speedup,
        "agreement_with_sorting": agree,
    }
    (given.out / "evaluate.json").write_text(json.dumps(result, indent=2) + "\n")
    return int(ratio > LIMIT or agree < AGREE)


if __name__ == "__main__":
    sys.exit(main())
