"""Whether one result is better than another: paired tests over users, over seeds, over both.

Two things make a difference vary, so there are two levels:

- *users*: the trained models are given, other users might come. Queries of one user resemble each
  other, so the unit is the user, never the position.
- *seeds*: the users are given, training might have started otherwise.

`over_users_and_seeds` takes both in, and is the test to believe where each side has several seeds.
Throughout `a` and `b` are a per-query metric of the two sides, float `[S, Q]`: a row is one
training seed, a column one query, and query q is of user `users[q]`. The difference is that of the
means over queries, as a results table states it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dimerec.config import Struct
from dimerec.errors import ConfigError, DataError
from dimerec.evaluation.intervals import LEVEL


class Outcome(Struct, frozen=True):
    """Of one two-sided test of no difference.

    Attributes:
        name: what was done.
        statistic: of the test (t, or the smaller signed rank sum); infinite where nothing varies.
        df: degrees of freedom; None for Wilcoxon's test.
        p: of a difference so large or larger were there none.
        low, high: 95 % confidence interval of the difference; None for Wilcoxon's test.
    """

    name: str
    statistic: float
    df: float | None
    p: float
    low: float | None = None
    high: float | None = None


def over_users(a: np.ndarray, b: np.ndarray, users: np.ndarray) -> Outcome:
    """Paired t-test over users; several seeds of a side are averaged first.

    The standard error of the difference of means over queries is that of a ratio of user totals
    (cluster-robust, with U / (U - 1)), so users count by their queries. One query a user makes it
    the ordinary paired t-test.

    Raises:
        DataError: fewer than two users, or shapes that do not fit.
    """
    totals, size = _by_user((_mean(a) - _mean(b))[None], users)
    gap = totals.sum() / size.sum()
    variance = _users_variance(totals[0], size)
    return _t("paired t over users", float(gap), variance, float(len(size) - 1))


def wilcoxon(a: np.ndarray, b: np.ndarray, users: np.ndarray) -> Outcome:
    """Wilcoxon's signed-rank test over the users' mean differences; those of 0 are left out.

    It asks another question than the t-test: whether more (and larger) differences lie on one
    side, each user counting once.

    Raises:
        DataError, ConfigError: as in `over_users`; SciPy is not installed.
    """
    gaps = user_means(_mean(a) - _mean(b), users)
    if not gaps.any():
        return Outcome(name="Wilcoxon over users", statistic=0.0, df=None, p=1.0)
    found: Any = _scipy().wilcoxon(gaps, zero_method="wilcox", correction=False, method="auto")
    statistic, p = float(found.statistic), float(found.pvalue)
    return Outcome(name="Wilcoxon over users", statistic=statistic, df=None, p=p)


def over_seeds(a: np.ndarray, b: np.ndarray) -> Outcome:
    """Paired t-test over training seeds: row s of `a` and row s of `b` are of the same seed.

    It speaks of these users only. With two or three seeds it has next to no power.

    Raises:
        DataError: fewer than two seeds, or another number on either side.
    """
    if len(a) != len(b) or len(a) < 2:
        raise DataError(
            f"{len(a)} and {len(b)} seeds: a test over seeds pairs them, and needs two or more"
        )
    gaps = np.asarray(a, float).mean(axis=1) - np.asarray(b, float).mean(axis=1)
    variance = float(gaps.var(ddof=1) / len(gaps))
    return _t("paired t over seeds", float(gaps.mean()), variance, float(len(gaps) - 1))


def over_users_and_seeds(a: np.ndarray, b: np.ndarray, users: np.ndarray) -> Outcome:
    """The combined test: users and training seeds are crossed random effects.

    The variance of the difference is that of users, of either side's seeds, and of their
    interaction, each from its own mean squares (method of moments, components under 0 are 0);
    degrees of freedom by Satterthwaite. The sides' seeds are taken as independent even where they
    have the same numbers: a shared seed shares no weights, and pairing two or three of them raises
    false alarms.

    Raises:
        DataError: fewer than two seeds on a side or fewer than two users.
    """
    if min(len(a), len(b)) < 2:
        raise DataError(
            f"{len(a)} and {len(b)} training seeds: a test over users and seeds needs two or more "
            "of each side"
        )
    totals, size = _by_user((_mean(a) - _mean(b))[None], users)
    U = len(size)
    by_users = _users_variance(totals[0], size)
    parts = [(by_users, U - 1)]
    beyond = interaction = 0.0
    for side in (a, b):
        S = len(side)
        by_seeds, cells = _seed_variances(np.asarray(side, float), users)
        interaction += cells
        beyond += max(0.0, by_seeds - cells)
        parts += [(by_seeds, S - 1), (cells, (S - 1) * (U - 1))]
    variance = max(by_users, interaction) + beyond
    doubt = sum(v * v / df for v, df in parts)
    df = variance**2 / doubt if doubt > 0 else U - 1
    return _t("users and seeds", float(totals.sum() / size.sum()), variance, float(df))


def user_means(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Mean of per-query `values` `[Q]` of each user, float64 `[U]`, by user row."""
    totals, size = _by_user(values[None], users)
    return totals[0] / size


def cohen(a: np.ndarray, b: np.ndarray, users: np.ndarray) -> float:
    """Cohen's d_z: the users' mean difference over its standard deviation; 0 where none differs."""
    gaps = user_means(_mean(a) - _mean(b), users)
    spread = gaps.std(ddof=1)
    if spread > 0:
        return float(gaps.mean() / spread)
    return 0.0 if gaps.mean() == 0 else float(np.copysign(np.inf, gaps.mean()))


def rank_biserial(a: np.ndarray, b: np.ndarray, users: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation over users, -1..1: Wilcoxon's effect size.

    The share of the ranks of |difference| where `a` is better, less that where `b` is.
    """
    gaps = user_means(_mean(a) - _mean(b), users)
    gaps = gaps[gaps != 0]
    if not len(gaps):
        return 0.0
    _, place, count = np.unique(np.abs(gaps), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # ties share the middle
    return float((np.sign(gaps) * ranks).sum() / ranks.sum())


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family adjusted by Holm's step-down method, in the order given.

    All adjusted values under 0.05 are rejected together with at most 5 % chance of any false one.

    Raises:
        DataError: a value is not within 0..1.
    """
    values = np.asarray(p, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"p-values {list(p)}: each must lie within 0..1")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    out = np.empty(len(values))
    out[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return out.tolist()


def _mean(side: np.ndarray) -> np.ndarray:
    side = np.asarray(side, float)
    if side.ndim != 2 or not side.size:
        raise DataError(f"values of shape {side.shape}: a row a seed and a column a query, please")
    return side.mean(axis=0)


def _by_user(values: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Totals of `values` `[S, Q]` by user `[S, U]`, and how many queries each user has `[U]`."""
    if values.shape[1:] != np.shape(users):
        raise DataError(f"values of {values.shape[1]} queries, users of {len(users)}")
    _, row = np.unique(users, return_inverse=True)
    size = np.bincount(row)
    if len(size) < 2:
        raise DataError(f"queries of {len(size)} user: a test needs two users or more")
    return np.stack([np.bincount(row, v) for v in values]), size


def _users_variance(totals: np.ndarray, size: np.ndarray) -> float:
    """Of a mean over queries, whole users being the sample; `totals`, `size` `[U]`."""
    U, N = len(size), size.sum()
    rest = totals - totals.sum() / N * size
    return float(U / (U - 1) * (rest**2).sum() / N**2)


def _seed_variances(side: np.ndarray, users: np.ndarray) -> tuple[float, float]:
    """Of the mean of `[S, Q]` over seeds: from the seeds' means, and from single cells alone."""
    totals, size = _by_user(side, users)
    S, U, N = len(side), len(size), size.sum()
    means = totals.sum(axis=1) / N
    rest = totals - means[:, None] * size
    rest -= rest.mean(axis=0)
    cells = U / (U - 1) / (S * (S - 1)) * (rest**2).sum() / N**2
    return float(means.var(ddof=1) / S), float(cells)


def _t(name: str, gap: float, variance: float, df: float) -> Outcome:
    """Of an estimated difference, its variance and its degrees of freedom."""
    error = float(np.sqrt(variance))
    if error <= 1e-12 * abs(gap) or error == 0:  # nothing varies but by rounding
        same = gap == 0
        statistic = 0.0 if same else float(np.copysign(np.inf, gap))
        return Outcome(
            name=name, statistic=statistic, df=df, p=1.0 if same else 0.0, low=gap, high=gap
        )
    t = _scipy().t
    half = float(t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * t.sf(abs(gap) / error, df))
    return Outcome(name=name, statistic=gap / error, df=df, p=p, low=gap - half, high=gap + half)


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError as e:
        raise ConfigError(
            "tests need SciPy, which is not installed: pip install 'dimerec[experiments]'"
        ) from e
    return stats
