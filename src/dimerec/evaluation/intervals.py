"""How far a result may be chance: intervals over resampled users.

Queries of one user resemble each other, so whole users are drawn with replacement, and a paired
difference draws the same users for both sides. The spread over training seeds is not in it:
`statistics` has tests that take it in.
"""

import numpy as np

from dimerec.config import Struct
from dimerec.errors import DataError
from dimerec.evaluation.evaluator import Evaluation
from dimerec.evaluation.metrics import per_query
from dimerec.randomness import stream

DRAWS = 2000
LEVEL = 0.95
CELLS = 2**24  # of how often each user is drawn, held at once


class Interval(Struct, frozen=True):
    """An estimate and the interval in which `LEVEL` of the resampled estimates lie."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside: for a difference, whether its sign can be told."""
        return self.low > 0 or self.high < 0


def interval(result: Evaluation, metric: str) -> Interval:
    """Of a metric, for example "hr@20", over the queries of an evaluation."""
    return resampled(per_query(result.ranks, metric)[None], result.users)[0]


def difference(result: Evaluation, other: Evaluation, metric: str) -> Interval:
    """Of `result` less `other`, query by query.

    Raises:
        DataError: the two were not scored on the same queries.
    """
    if not np.array_equal(result.users, other.users):
        raise DataError("two evaluations of different queries have no paired difference")
    gaps = per_query(result.ranks, metric) - per_query(other.ranks, metric)
    return resampled(gaps[None], result.users)[0]


def resampled(values: np.ndarray, users: np.ndarray) -> list[Interval]:
    """Percentile intervals of the means of `values` `[M, Q]`, where query q is of `users[q]`.

    One of each row, all of the same draws.
    """
    _, row = np.unique(users, return_inverse=True)
    size = np.bincount(row)
    total = np.stack([np.bincount(row, v) for v in values], axis=1)  # [users, M]
    share = np.full(len(size), 1 / len(size))
    rng = stream(0, "bootstrap")
    means = np.empty((DRAWS, len(values)))
    step = max(1, CELLS // len(size))
    for start in range(0, DRAWS, step):
        part = slice(start, min(start + step, DRAWS))
        times = rng.multinomial(len(size), share, size=part.stop - start)  # [draws, users]
        means[part] = (times @ total) / (times @ size)[:, None]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return [
        Interval(float(v.mean()), float(a), float(b))
        for v, a, b in zip(values, low, high, strict=True)
    ]
