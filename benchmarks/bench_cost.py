"""What does DimeRec cost (Section 4.5): parameters, and time against d, L, K, T and V?

The paper says O(V d) parameters, most of them item vectors; O(n d^2) and O(n^2 d) for the forward
network; and time that is linear in the number of reverse steps. Here one setting at a time moves
from the middle one (d = 64, L = 50, K = 4, T = 20 steps, V = 10,000), and three things are timed on
one thread: making the interests of a history (GEM), making its query by the whole chain of T steps
(GEM and DAM), and one training step of 64 histories with ten negatives a target. "Exponent" is the
slope between the two largest values in logarithms: 1 is linear, 0 is free.

Not compiled: `bench_link.py` has the link as it is served. Prints the table, writes
`results/cost.json`, and exits with 1 where parameters other than the item vectors depend on V, or
the whole chain grows faster than in proportion to T.

    python benchmarks/bench_cost.py [--seconds 0.5]
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.model import Catalogue
from dimerec.models import dimerec

MIDDLE = {"d": 64, "L": 50, "K": 4, "T": 20, "V": 10_000}
MOVED = {
    "d": [16, 32, 64, 128, 256],
    "L": [10, 25, 50, 100, 200],
    "K": [1, 2, 4, 8, 16],
    "T": [1, 5, 20, 50, 100],
    "V": [1_000, 10_000, 100_000, 1_000_000],
}
HISTORIES, NEGATIVES = 64, 10
SLACK = 1.15  # of an exponent


def model_of(size: dict[str, int]) -> dimerec.Model:
    """DimeRec's default with the settings of `size`, its chain T steps long."""
    options = config.load(
        "dimerec",
        [
            f"options.width={size['d']}",
            f"options.guidance.interests={size['K']}",
            f"options.schedule.steps={size['T']}",
            f"options.steps={size['T']}",
            "options.samples=1",
            "options.stochastic=true",
            "options.softmax.logq=false",
        ],
    ).model_config()
    catalogue = Catalogue(size=size["V"] + 1, length=size["L"], counts=torch.ones(size["V"] + 1))
    with randomness.torch_scope(0, "cost"):
        return dimerec.Model(options, catalogue)


def batch_of(size: dict[str, int]) -> SequenceBatch:
    """Histories without padding, every position a target."""
    rng = randomness.torch_stream(0, "batch")
    shape = (HISTORIES, size["L"])
    history, targets = (torch.randint(1, size["V"] + 1, s, generator=rng) for s in (shape, shape))
    negatives = torch.randint(1, size["V"] + 1, (*shape, NEGATIVES), generator=rng)
    return SequenceBatch(history, targets, negatives, torch.zeros(negatives.shape))


def timed(call: Callable[[], object], seconds: float) -> float:
    """Microseconds of the thread that a call takes: the median of those of some seconds."""
    call()
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 3:
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return 1e6 * statistics.median(taken)


def measure(size: dict[str, int], seconds: float) -> dict[str, float]:
    model, batch = model_of(size), batch_of(size)
    one = batch.history[:1]
    noise = torch.randn(
        1, model.noise_draws, model.width, generator=randomness.torch_stream(0, "n")
    )

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model.loss(batch, randomness.torch_stream(0, "loss")).total.backward()

    training = timed(step, seconds)
    model.eval().requires_grad_(False)
    every = sum(p.numel() for p in model.parameters())
    return {
        "parameters": every,
        "other_parameters": every - model.items.weight.numel(),
        "gem_us": round(timed(lambda: model.guide(one), seconds), 1),
        "chain_us": round(timed(lambda: model.encode(one, noise), seconds), 1),
        "training_us": round(training, 0),
    }


def exponent(values: list[int], costs: list[float]) -> float:
    """Slope between the two largest values, in logarithms."""
    return math.log(costs[-1] / costs[-2]) / math.log(values[-1] / values[-2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, exponents = [], {}
    print("| | parameters | without items | GEM us | chain us | training step us |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for letter, values in MOVED.items():
        own = []
        for value in values:
            found = measure({**MIDDLE, letter: value}, given.seconds)
            own.append(found)
            rows.append({"moved": letter, "value": value, **found})
            cells = " | ".join(f"{v:,.0f}" for v in found.values())
            print(f"| {letter} = {value:,} | {cells} |", flush=True)
        exponents[letter] = {
            name: round(exponent(values, [f[name] for f in own]), 2) for name in own[0]
        }
        cells = " | ".join(f"{v:.2f}" for v in exponents[letter].values())
        print(f"| exponent of {letter} | {cells} |", flush=True)
    result = {
        "threads": 1,
        "middle": MIDDLE,
        "load": round(os.getloadavg()[0], 1),
        "machine": {
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "exponents": exponents,
        "rows": rows,
    }
    out = Path(__file__).parent / "results" / "cost.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    fixed = len({row["other_parameters"] for row in rows if row["moved"] == "V"}) == 1
    linear = exponents["T"]["chain_us"] <= SLACK
    print(f"\nother parameters free of V: {fixed}; chain at most linear in T: {linear}")
    sys.exit(0 if fixed and linear else 1)


if __name__ == "__main__":
    main()
