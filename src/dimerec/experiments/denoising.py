"""What denoising does to retrieval: hit rate by number of steps, and along one long chain."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec.bundle import Bundle
from dimerec.data.dataset import Dataset
from dimerec.evaluation.evaluator import Evaluation, evaluate
from dimerec.evaluation.ranking import inputs

BATCH = 256


@dataclass(frozen=True)
class Chain:
    """Hit rate at n along the reverse chain of T steps, retrieved with either of its vectors.

    Attributes:
        times: t of each step, from T down to 1.
        noisy: with x_t, the noisy state that the step starts from.
        clean: with x_0-hat, what the step takes the clean vector to be.
    """

    times: list[int]
    noisy: list[float]
    clean: list[float]


def by_steps(
    bundle: Bundle, dataset: Dataset, steps: list[int], *, positions: str, seed: int
) -> dict[int, Evaluation]:
    """DimeRec's `bundle` scored on the test users with each number of reverse steps."""
    return {
        s: evaluate(
            bundle.with_options({"steps": s}),
            dataset,
            positions=positions,
            seed=seed,
            device="cpu",
            lists=0,
        )
        for s in steps
    }


def along_chain(
    bundle: Bundle, dataset: Dataset, *, positions: str, seed: int, n: int, limit: int
) -> Chain:
    """One chain of all T steps over at most `limit` test queries, evenly spread.

    A query's samples are averaged at every step, as the model does with its last. An item ties
    with no other, so ranks are counted without tolerance.
    """
    total = bundle.config.model_config().schedule.steps
    model: Any = bundle.with_options({"steps": total}).model()
    queries = dataset.queries("test", positions, limit)
    items = model.item_vectors()
    hits = torch.zeros(2, total)
    times: list[int] = []
    with torch.no_grad():
        for start in range(0, len(queries), BATCH):
            part = slice(start, min(start + BATCH, len(queries)))
            history, noise = inputs(model, queries, part, bundle.config.length, seed, "cpu")
            targets = torch.from_numpy(queries.targets(part))
            trace: list[tuple[int, Tensor, Tensor]] = []
            model.encode(history, noise, trace)
            times = [t for t, _, _ in trace]
            for at, (_, noisy, clean) in enumerate(trace):
                hits[0, at] += _hits(noisy, items, targets, n)
                hits[1, at] += _hits(clean, items, targets, n)
    noisy, clean = (hits / len(queries)).tolist()
    return Chain(times, noisy, clean)


def _hits(samples: Tensor, items: Tensor, targets: Tensor, n: int) -> int:
    """How many of `targets` `[b]` are among the n items nearest to the mean of `[b, S, d]`."""
    scores = F.normalize(samples.mean(1), dim=-1) @ items.T
    scores[:, 0] = -torch.inf
    above = (scores > scores.gather(1, targets.unsqueeze(1))).sum(1)
    return int((above < n).sum())
