"""How much faster does DimeRec train when every position of a window is a target?

The same model, data and loss, once with all positions of a window in one pass and once with one
target a sequence, turn about in one process and on one thread. Prints training targets a second
(median of the turns) and their ratio, writes `results/training.json`, and exits with 1 when the
ratio is under 4.

    python benchmarks/bench_training.py [--source ml-1m] [--steps 20] [--turns 5]

The data is MovieLens 1M where the folder named by DIMEREC_DATA has it; any other source by name.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from dimerec import config, plugins, randomness
from dimerec.data import sources
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.data.prepare import prepare
from dimerec.errors import DataError

LENGTH, ATLEAST = 70, 4.0
MODES = {"all": 32, "last": 256}  # windows a step, examples a step


class Trainer:
    """A model in one of the two modes, and how to take some steps with it."""

    def __init__(self, dataset: Dataset, mode: str, negatives: str) -> None:
        changes = [f"length={LENGTH}", f"training.batch_size={MODES[mode]}"]
        if mode == "last":  # positions counted from the end serve the last one alone
            changes.append("options.guidance.positions=end")
        if negatives == "private":
            changes += ["negatives.kind=uniform", "negatives.number=10", "negatives.private=true"]
        self.recipe = config.load("dimerec", changes)
        module = plugins.load("dimerec.models", "dimerec")
        with randomness.torch_scope(0, "init"):
            self.model = module.Model(self.recipe.model_config(), dataset.catalogue(LENGTH))
        self.batches = Batches(dataset, self.recipe, self.model.targets)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=0.003, fused=True)
        self.step = 0

    def run(self, steps: int) -> float:
        """Targets a second over `steps` optimiser steps, batches included."""
        targets, start = 0, time.perf_counter()
        for _ in range(steps):
            batch = self.batches.batch(self.step)
            loss = self.model.loss(batch, randomness.torch_stream(0, "loss", self.step)).total
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            targets += int((batch.targets > 0).sum())
            self.step += 1
        return targets / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", default="ml-1m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    try:
        log = sources.read(given.source).log
    except DataError as e:
        print(f"skipped, without this data there is nothing to measure: {e}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare(log, Path(folder) / "data")
        for negatives in ("shared", "private"):
            trainers = {mode: Trainer(dataset, mode, negatives) for mode in MODES}
            for trainer in trainers.values():
                trainer.run(3)
            rates: dict[str, list[float]] = {mode: [] for mode in MODES}
            for _ in range(given.turns):
                for mode, trainer in trainers.items():
                    rates[mode].append(trainer.run(given.steps))
            median = {mode: statistics.median(values) for mode, values in rates.items()}
            ratio = median["all"] / median["last"]
            found[negatives] = {**median, "ratio": ratio}
            print(
                f"{negatives:>8} negatives: all positions {median['all']:>8,.0f} targets/s, "
                f"one a sequence {median['last']:>8,.0f}, ratio {ratio:.1f}"
            )
    result = {
        "source": given.source,
        "length": LENGTH,
        "batch": MODES,
        "targets_per_second": found,
        "threads": 1,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    out = Path(__file__).parent / "results" / "training.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if found["shared"]["ratio"] >= ATLEAST else 1


if __name__ == "__main__":
    sys.exit(main())
