"""How long does the whole link take, a history of ids in and recommended ids out?

DimeRec as the paper has it (T = 20 reverse steps, d = 64, K = 4, 256 hidden units), one request at
a time on one thread, 100 items a request, seen items hidden. These links are timed in turns:

    compiled  the encoder of `dimerec export`
    eager     the same model, not compiled
    literal   Algorithm 2 word for word: the guidance is made anew in each step, and the denoiser
              is one layer on the concatenation [x_t, t, g]
    one step  compiled, with one reverse step, as the recipe `dimerec` has it

All share the index, the filters and the ids, and the first three the noise, so that their queries
are the same, which is checked. The first request of a turn is not counted. Before and after each
turn a fixed piece of work of about a millisecond, which touches no more than the nearest cache, is
timed ten times: the machine is said to be quiet in turns around which none of the twenty took over
1.1 of its median, and p99 is printed of all requests and of those.

The catalogue is made up: unit vectors that vary in `--dimension` directions, and a little in all.
The more directions, the more cells an approximate index must search for one recall; with 12, and
9,166 items, as many (37 and 41 of 235 for 0.97 and 0.98) as it takes over that many items that
DimeRec learned from YooChoose (27 and 40, by `dimerec index --exact-up-to 0`).
The weights are drawn, then set so that what is generated is a noisy mean of the history's items, as
in a trained model; the encoder's time does not depend on their values. Recall is that of the index
against exact search; it is tuned by other histories than those it is judged by.

Smaller catalogues are the first items of the largest one. Prints a table, writes
`results/link.json`, and exits with 1 where the compiled link at the largest catalogue and the
shortest history is less than 4 times as fast as the literal one, or recall is under 0.97. Where
other programs run, waiting for a processor hides the work: the processor's time is printed, too.

    python benchmarks/bench_link.py [--items 10000 100000 1000000] [--lengths 10 70]
        [--seconds 12] [--dimension 12]
"""

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec import config, retrieval
from dimerec.model import Catalogue
from dimerec.models import dimerec
from dimerec.recommender import Query, Recommender
from dimerec.retrieval import RetrievalIndex
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.retrieval.tuning import tune
from dimerec.serving.compiled import Encode, attach, exported, native
from dimerec.vocabulary import Vocabulary

N, ROUND = 100, 40  # items a request; requests of one link before it is the next one's turn
FIXED, QUIET = 10, 1.1  # pieces of fixed work between turns; times their median
SPREAD = 0.3  # of items in all directions, where it is 1 in the few
DIMENSION = 12  # directions in which items vary
TASTE = 200  # a history is some of the items nearest to one
RECALL_QUERIES = 200
SMALL = np.eye(24, dtype=np.float32)
FASTER, RECALL, TUNED = 4.0, 0.97, 0.975


def catalogue(size: int, width: int, dimension: int = DIMENSION) -> Tensor:
    """Unit vectors `[size, d]`, row 0 zero."""
    rng = torch.Generator().manual_seed(0)
    directions = torch.randn(dimension, width, generator=rng) / dimension**0.5
    vectors = torch.randn(size, dimension, generator=rng) @ directions
    vectors = F.normalize(vectors + SPREAD * torch.randn(size, width, generator=rng), dim=1)
    vectors[0] = 0
    return vectors


def paper_model(vectors: Tensor, length: int, steps: int | None = None) -> dimerec.Model:
    """The paper's model on these items, generating a noisy mean of the history in that many steps
    (without: in its own 20)."""
    options = config.load("dimerec-paper").model_config()
    if steps is not None:
        options = msgspec.structs.replace(options, steps=steps)
    size, width = vectors.shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        counts = torch.ones(size)
        model = dimerec.Model(options, Catalogue(size=size, length=length, counts=counts))
    model.eval().requires_grad_(False)
    dam, interests = model.dam, options.guidance.interests
    model.items.weight.copy_(vectors)
    # gelu(x) - gelu(-x) = x: two times d hidden units pass on the mean of the interests.
    mean = torch.eye(width).repeat(1, interests) / interests
    for sign, start in ((1, 0), (-1, width)):
        units = slice(start, start + width)
        dam.on_g.weight[units] = sign * mean
        dam.out.weight[:, units] = sign * torch.eye(width)
        dam.on_t.weight[units] = dam.on_x.weight[units] = 0
        dam.on_t.bias[units] = 0
    dam.out.bias.zero_()
    return model


class Literal:
    """Algorithm 2 word for word, on the model's weights."""

    def __init__(self, model: dimerec.Model) -> None:
        dam = model.dam
        self.model = model
        self.weight = torch.cat([dam.on_x.weight, dam.on_t.weight, dam.on_g.weight], 1)
        self.steps = model.config.steps

    def __call__(self, history: Tensor, noise: Tensor) -> Tensor:
        model, dam = self.model, self.model.dam
        x = model.space.project(noise[:, 0])
        for t in range(self.steps, 0, -1):
            guidance = model.guide(history)  # [B, K, d]
            step = dam.step.project(dam.step.angles[t]).expand_as(x)
            inner = F.linear(
                torch.cat([x, step, guidance.flatten(1)], 1), self.weight, dam.on_t.bias
            )
            x0 = model.space.project(dam.out(F.gelu(inner)))
            if t == 1:
                return model.space.project(x0).unsqueeze(1)
            on_x, on_x0, variance = model.schedule.posterior(t, t - 1)
            fresh = noise[:, self.steps - t + 1]
            x = model.space.project(on_x * x + on_x0 * x0 + variance**0.5 * fresh)
        raise AssertionError("there is at least one step")


class Timed:
    """A call, and the seconds it took last."""

    def __init__(self, call: Callable) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self, *given, **named):
        began = time.perf_counter()
        out = self.call(*given, **named)
        self.seconds = time.perf_counter() - began
        return out


def histories(exact: ExactIndex, length: int, count: int) -> np.ndarray:
    """Item numbers `[count, length]`, near one another in each row, so that their mean is, too."""
    rng = np.random.default_rng(length)
    anchors = rng.integers(1, exact.size, count)
    near, _ = exact.search(exact.vectors[anchors][:, None], TASTE)
    return rng.permuted(near, axis=1)[:, :length]


def queries_of(model: dimerec.Model, history: np.ndarray) -> np.ndarray:
    """Query vectors `[Q, K, d]` of histories `[Q, L]`."""
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(len(history), model.noise_draws, model.width, generator=rng)
    with torch.inference_mode():
        return model.encode(torch.from_numpy(history), noise).numpy()


def recall(index: RetrievalIndex, exact: ExactIndex, queries: np.ndarray) -> float:
    """Share of the N exactly best items that the index finds, one query at a time."""
    best, _ = exact.search(queries, N)
    found = [index.search(query[None], N)[0][0] for query in queries]
    return float(np.mean([len(np.intersect1d(b, f)) / N for b, f in zip(best, found, strict=True)]))


def measure(
    links: dict[str, tuple[dimerec.Model, Encode]],
    index: RetrievalIndex,
    history: np.ndarray,
    size: int,
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Microseconds of each link over the same requests, in turns, and where they went."""
    vocabulary, counts = Vocabulary(range(size - 1)), torch.ones(size)
    search = Timed(index.search)
    index.search = search
    first = next(iter(links.values()))[0]
    timed = {name: Timed(encode) for name, (_, encode) in links.items()}
    ready = {
        name: Recommender(model, vocabulary, counts, history.shape[1], index, encode=timed[name])
        for name, (model, _) in links.items()
    }
    # An id is its number less 1, so that ids are looked up and not guessed.
    asked = [Query(ids, n=N, seed=row) for row, ids in enumerate((history - 1).tolist())]
    answers = {name: [r.answer([q])[0] for q in asked[:ROUND]] for name, r in ready.items()}
    gc.collect()
    gc.freeze()  # as the server does
    same_answers([answers[name] for name, (model, _) in links.items() if model is first])
    taken: dict[str, list[list[tuple[float, float, float, float]]]] = {name: [] for name in links}
    fixed = [[fixed_work() for _ in range(FIXED)]]
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for name, recommender in ready.items():
            times = []
            for row in range(turn, turn + 1 + ROUND):
                one = [asked[row % len(asked)]]
                began, worked = time.perf_counter(), time.thread_time()
                recommender.answer(one)
                total, cpu = time.perf_counter() - began, time.thread_time() - worked
                times.append((total, cpu, timed[name].seconds, search.seconds))
            taken[name].append(times[1:])
            fixed.append([fixed_work() for _ in range(FIXED)])
        turn += ROUND
    del index.search  # the class's own again
    pieces = np.array(fixed) * 1e6
    slowest = np.maximum(pieces[:-1].max(axis=1), pieces[1:].max(axis=1)) / np.median(pieces)
    quiet = (slowest < QUIET).reshape(-1, len(links))  # [turns, links]
    out = {
        name: figures(np.array(times) * 1e6, quiet[:, place])
        for place, (name, times) in enumerate(taken.items())
    }
    p50, p99 = np.quantile(pieces, (0.5, 0.99))
    return {**out, "fixed work": {"p50_us": round(p50, 1), "p99_us": round(p99, 1)}}


def fixed_work() -> float:
    """The seconds that 750 small products take, always the same."""
    began = time.perf_counter()
    x = SMALL
    for _ in range(750):
        x = SMALL @ x
    return time.perf_counter() - began


def same_answers(answers: list[list]) -> None:
    """All links of one model recommend the same, rounding aside."""
    first, *others = answers
    for other in others:
        for one, two in zip(first, other, strict=True):
            shared = len(set(one.items) & set(two.items))
            if shared < 0.98 * len(one.items):
                raise SystemExit(f"the links disagree: {shared} of {len(one.items)} items shared")


def figures(times: np.ndarray, quiet: np.ndarray) -> dict[str, float]:
    """`times` [turns, requests, 4] microseconds: total, of the processor, encoding, searching; in
    which turns the machine was quiet, bool [turns]."""
    calm = times[quiet, :, 0]
    total, cpu, encode, search = times.reshape(-1, 4).T
    p50, p99, p999 = np.quantile(total, (0.5, 0.99, 0.999))
    return {
        "requests": len(total),
        "p50_us": round(p50, 1),
        "p99_us": round(p99, 1),
        "p99.9_us": round(p999, 1),
        "quiet_requests": calm.size,
        "p99_quiet_us": round(float(np.quantile(calm, 0.99)), 1) if calm.size else float("nan"),
        "cpu_us": round(float(np.median(cpu)), 1),
        "encode_us": round(float(np.median(encode)), 1),
        "search_us": round(float(np.median(search)), 1),
        "rest_us": round(float(np.median(total - encode - search)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 70])
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--dimension", type=int, default=DIMENSION)
    given = parser.parse_args()
    torch.set_num_threads(1)
    import faiss

    width = config.load("dimerec-paper").model_config().width
    vectors = catalogue(max(given.items) + 1, width, given.dimension)
    models, compiled, short, one_step = {}, {}, {}, {}
    for length in given.lengths:
        began = time.perf_counter()
        models[length] = model = paper_model(vectors, length)
        compiled[length] = attach(model, length, native(model, exported(model, length)))
        short[length] = model = paper_model(vectors, length, steps=1)
        one_step[length] = attach(model, length, native(model, exported(model, length)))
        print(f"compiled for L = {length} in {time.perf_counter() - began:.0f} s", flush=True)
    rows = []
    for items in sorted(given.items):
        some = vectors[: items + 1].numpy()
        exact = ExactIndex.build(some)
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        began = time.perf_counter()
        index = retrieval.index(some)
        built = time.perf_counter() - began
        faiss.omp_set_num_threads(1)
        if isinstance(index, ApproximateIndex):
            length, model = next(iter(models.items()))
            others = histories(exact, length, 2 * RECALL_QUERIES)[RECALL_QUERIES:]
            tune(index, queries_of(model, others), TUNED)
        print(f"{type(index).__name__} of {items:,} items in {built:.0f} s", flush=True)
        for length, model in models.items():
            history = histories(exact, length, 500)
            found = recall(index, exact, queries_of(model, history[:RECALL_QUERIES]))
            links = {
                "compiled": (model, compiled[length]),
                "eager": (model, model.encode),
                "literal": (model, Literal(model)),
                "one step": (short[length], one_step[length]),
            }
            measured = measure(links, index, history, items + 1, given.seconds)
            faster = measured["literal"]["p50_us"] / measured["compiled"]["p50_us"]
            worked = measured["literal"]["cpu_us"] / measured["compiled"]["cpu_us"]
            row = {"items": items, "length": length, "index": type(index).__name__}
            row |= {"build_s": round(built, 1), f"recall@{N}": round(found, 4)}
            row["probes"] = index.probes if isinstance(index, ApproximateIndex) else None
            row |= {"faster": round(faster, 2), "less_cpu": round(worked, 2)}
            rows.append({**row, "links": measured})
            show(rows[-1])
    report(rows, given.dimension)


def show(row: dict) -> None:
    print(
        f"\n{row['items']:,} items, L = {row['length']}, {row['index']}: recall@{N} "
        f"{row[f'recall@{N}']:.3f}, {row['faster']:.1f} times faster than literal, "
        f"{row['less_cpu']:.1f} times less processor time"
    )
    print("| link | p50 us | p99 us | quiet p99 | p99.9 us | cpu us | encode | search | the rest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    shown = ["p50_us", "p99_us", "p99_quiet_us", "p99.9_us", "cpu_us", "encode_us", "search_us"]
    shown.append("rest_us")
    for link, found in row["links"].items():
        cells = [f"{found[name]:,.0f}" if name in found else "" for name in shown]
        print(f"| {link} | {' | '.join(cells)} |", flush=True)


def report(rows: list[dict], dimension: int) -> None:
    load = os.getloadavg()[0]
    result = {
        "threads": 1,
        "n": N,
        "dimension": dimension,
        "load": round(load, 1),
        "machine": {
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "rows": rows,
    }
    out = Path(__file__).parent / "results" / "link.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    hardest = max(rows, key=lambda row: (row["items"], -row["length"]))
    found = hardest[f"recall@{N}"]
    print(
        f"\n{hardest['items']:,} items, L = {hardest['length']}: {hardest['faster']:.1f} times "
        f"(wanted {FASTER:.0f}), recall {found:.3f} (wanted {RECALL}); load {load:.1f}"
    )
    sys.exit(0 if hardest["faster"] >= FASTER and found >= RECALL else 1)


if __name__ == "__main__":
    main()
