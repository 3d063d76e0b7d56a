"""How far a result may be chance: intervals over resampled users.

Queries of one user resemble each other, so whole users are drawn with replacement, and a paired
difference draws the same users for both sides. The spread over training seeds is not in it.
"""

import numpy as np

from dimerec.config import Struct
from dimerec.errors import DataError
from dimerec.evaluation.evaluator import Evaluation
from dimerec.evaluation.metrics import METRICS
from dimerec.randomness import stream

DRAWS = 2000
LEVEL = 0.95


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
    return _resampled(_values(result, metric), result.users)


def difference(result: Evaluation, other: Evaluation, metric: str) -> Interval:
    """Of `result` less `other`, query by query.

    Raises:
        DataError: the two were not scored on the same queries.
    """
    if not np.array_equal(result.users, other.users):
        raise DataError("two evaluations of different queries have no paired difference")
    return _resampled(_values(result, metric) - _values(other, metric), result.users)


def _values(result: Evaluation, metric: str) -> np.ndarray:
    name, _, n = metric.partition("@")
    return METRICS[name](result.ranks, int(n))


def _resampled(values: np.ndarray, users: np.ndarray) -> Interval:
    """Of the mean of `values` `[Q]`, where query q is of `users[q]`."""
    _, row = np.unique(users, return_inverse=True)
    size, total = np.bincount(row), np.bincount(row, values)
    share = np.full(len(size), 1 / len(size))
    times = stream(0, "bootstrap").multinomial(len(size), share, size=DRAWS)  # [DRAWS, users]
    means = (times @ total) / (times @ size)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))
