"""How fast do models train at equal loss, beside plain PyTorch written as their papers' code is?

SASRec beside its own block from `nn.MultiheadAttention`, with the same loss at all positions;
DreamRec, all positions in one pass, beside one target a sequence; DiffuRec beside a loop that
computes all that its official code does (`plain_models.py`).

Speed: both sides take turns in one process on one thread. Prints training targets a CPU second
(median of the turns) and their ratio, once with the same optimiser on both sides (Adam, fused, as
the training loop has it), once with Adam as a plain loop has it beside that.

Loss: both sides then take the same number of steps on the same batches, with the same targets,
from starts of one distribution (SASRec: from the same weights, where without dropout the first
losses must be the same number), and the losses of the last quarter are compared. In the sequences
an item is followed by one of the next eight on a ring, so that there is something to learn.

Writes `results/models.json`, and exits with 1 when a ratio with the same optimiser is under what is
promised, 1, 3 and 1.5, or when SASRec's losses are further apart than 5 %.

    python benchmarks/bench_models.py [--items 12000] [--turns 3] [--seconds 3]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from plain_models import WIDTH, PlainDiffuRec, PlainDreamRec, PlainSASRec
from torch import Tensor, nn

from dimerec import config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.model import Catalogue

NEGATIVES, NEXT = 10, 8
PROMISED = {"sasrec": 1.0, "dreamrec": 3.0, "diffurec": 1.5}
APART = 0.05  # how far the losses of two equal models may be apart
LENGTH = {"sasrec": 50, "dreamrec": 10, "diffurec": 50}
ROWS = {"sasrec": 64, "dreamrec": 256, "diffurec": 64}
STEPS = {"sasrec": 160, "dreamrec": 400, "diffurec": 60}
OPTIONS = {
    "sasrec": [
        "options.softmax.unit=false",
        "options.softmax.temperature=1.0",
        "options.softmax.logq=false",
    ],
    "dreamrec": ["options.schedule.kind=linear"],
    "diffurec": [],
}
REFERENCE = {"sasrec": PlainSASRec, "dreamrec": PlainDreamRec, "diffurec": PlainDiffuRec}


def batch(name: str, items: int, every: bool, seed: int) -> SequenceBatch:
    """Sequences with targets at every position or at the last alone."""
    rng, length, rows = torch.Generator().manual_seed(seed), LENGTH[name], ROWS[name]
    first = torch.randint(0, items, (rows, 1), generator=rng)
    ahead = torch.randint(1, NEXT + 1, (rows, length), generator=rng).cumsum(1)
    windows = torch.cat([first, first + ahead], dim=1) % items + 1
    history, targets = windows[:, :-1], windows[:, 1:].clone()
    if not every:
        targets[:, :-1] = 0
    negatives = torch.zeros(0, dtype=torch.int64)
    if name == "sasrec":
        negatives = torch.randint(1, items + 1, (rows, length, NEGATIVES), generator=rng)
    return SequenceBatch(history, targets, negatives, torch.zeros(negatives.shape))


class Side:
    """One side of a pair: a model, its loss of a batch at a step, and its optimiser."""

    def __init__(
        self, model: nn.Module, loss: Callable[[SequenceBatch, int], Tensor], fused: bool | None
    ) -> None:
        self.model: Any = model.train()
        self.loss, self.step = loss, 0
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)

    def take(self, fed: SequenceBatch) -> Tensor:
        """One optimiser step; the loss before it."""
        loss = self.loss(fed, self.step)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.step += 1
        return loss.detach()

    def rate(self, fed: Sequence[SequenceBatch], seconds: float) -> float:
        """Targets a CPU second over at least two steps, and as many as `seconds` hold."""
        start, done, targets = time.process_time(), 0, int((fed[0].targets > 0).sum())
        while done < 2 or time.process_time() - start < seconds:
            self.take(fed[done % len(fed)])
            done += 1
        return done * targets / (time.process_time() - start)


def here(name: str, items: int, changes: Sequence[str] = ()) -> Side:
    """The package's model, with the training loop's optimiser."""
    recipe = config.load(name, [f"length={LENGTH[name]}", *OPTIONS[name], *changes])
    counts = torch.ones(items + 1)
    catalogue = Catalogue(size=items + 1, length=LENGTH[name], counts=counts)
    with randomness.torch_scope(0, "init"):
        model = plugins.load("dimerec.models", name).Model(recipe.model_config(), catalogue)

    def loss(fed: SequenceBatch, step: int) -> Tensor:
        return model.loss(fed, randomness.torch_stream(0, "loss", step)).total

    return Side(model, loss, fused=True)


def reference(name: str, items: int, fused: bool | None, **how: Any) -> Side:
    """Plain PyTorch."""
    with randomness.torch_scope(0, "init"):
        model = REFERENCE[name](items, LENGTH[name], **how)
    return Side(model, lambda fed, _: model(fed), fused)


def speed(name: str, items: int, turns: int, seconds: float) -> dict[str, float]:
    """Targets a CPU second of each side."""
    every = name != "diffurec"  # which trains one target a pass on both sides
    ours = [batch(name, items, every, seed) for seed in range(8)]
    theirs = [batch(name, items, name == "sasrec", seed) for seed in range(8)]
    sides = {
        "here": (here(name, items), ours),
        "reference": (reference(name, items, True), theirs),
        "reference_plain_adam": (reference(name, items, None), theirs),
    }
    for side, fed in sides.values():
        side.rate(fed, 0)
    rates: dict[str, list[float]] = {which: [] for which in sides}
    for _ in range(turns):
        for which, (side, fed) in sides.items():
            rates[which].append(side.rate(fed, seconds))
    return {which: statistics.median(values) for which, values in rates.items()}


def losses(name: str, items: int) -> dict[str, float]:
    """Of both sides after the same steps on the same batches: the mean of the last quarter."""
    sides = {"here": here(name, items), "reference": reference(name, items, True)}
    if name == "sasrec":
        same_at_first(items)
        sides["reference"].model.take_weights(sides["here"].model)
    last = {which: [] for which in sides}
    torch.manual_seed(1)  # of the reference's dropout and noise
    for step in range(STEPS[name]):
        fed = batch(name, items, name == "sasrec", 1000 + step)
        for which, side in sides.items():
            loss = float(side.take(fed))
            if step >= STEPS[name] * 3 // 4:
                last[which].append(loss)
    mean = {which: statistics.mean(values) for which, values in last.items()}
    apart = mean["reference"] / mean["here"] - 1
    return {"steps": STEPS[name], **mean, "reference_is_higher_by": apart}


def same_at_first(items: int) -> None:
    """SASRec's two sides are one function: with the same weights and no dropout, the same loss."""
    ours = here("sasrec", items, ["options.transformer.dropout=0.0"])
    theirs = reference("sasrec", items, True, rate=0.0)
    theirs.model.take_weights(ours.model)
    fed = batch("sasrec", items, True, 0)
    fed.negatives[0, :, 0] = fed.targets[0]  # collisions, which are masked
    torch.testing.assert_close(ours.loss(fed, 0), theirs.loss(fed, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found, kept = {}, True
    load = os.getloadavg()[0]
    for name, promised in PROMISED.items():
        median = speed(name, given.items, given.turns, given.seconds)
        ratio = median["here"] / median["reference"]
        plain = median["here"] / median["reference_plain_adam"]
        loss = losses(name, given.items)
        apart = loss["reference_is_higher_by"]
        kept &= ratio >= promised and (name != "sasrec" or abs(apart) <= APART)
        found[name] = {
            **median,
            "ratio": ratio,
            "ratio_plain_adam": plain,
            "promised": promised,
            "length": LENGTH[name],
            "rows": ROWS[name],
            "loss": loss,
        }
        print(
            f"{name:>8}: {median['here']:>8,.0f} targets/s here, {median['reference']:>8,.0f} in "
            f"plain PyTorch, ratio {ratio:.2f} (promised {promised:g}), beside Adam as a plain "
            f"loop has it {plain:.2f}\n"
            f"{'':>8}  loss after {loss['steps']} steps: {loss['here']:.4f} here, "
            f"{loss['reference']:.4f} there, {apart:+.1%}"
        )
    result = {
        "items": given.items,
        "width": WIDTH,
        "targets_per_cpu_second": found,
        "threads": 1,
        "cores": os.cpu_count(),
        "load": round(load, 1),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    out = Path(__file__).parent / "results" / "models.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
