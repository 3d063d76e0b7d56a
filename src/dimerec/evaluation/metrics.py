"""Ranking metrics: pure functions of the ranks of the targets, or of the recommended lists.

One target a query, rank 1 is best. Ranks may be fractional, since tied items share the middle of
their places; a fractional rank is a hit when it is at most n, and counts with its own value.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dimerec.errors import ConfigError
from dimerec.vocabulary import PADDING

CUTOFFS = (10, 20, 50)
CELLS = 2**24  # of a boolean array [lists, n, categories], at most


def hr(ranks: np.ndarray, n: int) -> np.ndarray:
    """Hit rate at n of each query: 1 where the rank is at most n, else 0; float64 `[Q]`."""
    return (np.asarray(ranks) <= n).astype(np.float64)


def ndcg(ranks: np.ndarray, n: int) -> np.ndarray:
    """NDCG at n of each query with its single target: 1 / log2(1 + rank) for a hit, else 0."""
    ranks = np.asarray(ranks, np.float64)
    return np.where(ranks <= n, 1.0 / np.log2(1.0 + ranks), 0.0)


def mrr(ranks: np.ndarray, n: int) -> np.ndarray:
    """Reciprocal rank at n of each query: 1 / rank for a hit, else 0; float64 `[Q]`."""
    ranks = np.asarray(ranks, np.float64)
    return np.where(ranks <= n, 1.0 / ranks, 0.0)


METRICS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"hr": hr, "ndcg": ndcg, "mrr": mrr}


def per_query(ranks: np.ndarray, metric: str) -> np.ndarray:
    """A metric such as "hr@20" of each of `[Q]` ranks, float64 `[Q]`.

    Raises:
        ConfigError: there is no such metric.
    """
    name, _, n = metric.partition("@")
    if name not in METRICS or not n.isdecimal() or not int(n):
        raise ConfigError(f"no metric {metric!r}: one of {', '.join(METRICS)}, then @ and a number")
    return METRICS[name](ranks, int(n))


def summary(ranks: np.ndarray) -> dict[str, float]:
    """Mean of every metric at 10, 20 and 50 over `[Q]` ranks, Q >= 1: "hr@10" and so on."""
    return {
        f"{name}@{n}": float(metric(ranks, n).mean())
        for name, metric in METRICS.items()
        for n in CUTOFFS
    }


def coverage(lists: np.ndarray, size: int) -> float:
    """Share of the catalogue that stands in at least one list.

    Args:
        lists: item numbers `[Q, n]`; padding (0) fills lists that are shorter.
        size: V, the catalogue and padding.
    """
    there = np.zeros(size, bool)
    there[np.asarray(lists).ravel()] = True
    there[PADDING] = False
    return float(there.sum() / (size - 1))


def categories(lists: np.ndarray, item_categories: Sequence[Sequence[str]]) -> float:
    """Mean number of distinct categories among the items of a list.

    Args:
        lists: item numbers `[Q, n]`, Q >= 1; padding (0) has no category.
        item_categories: the categories of the items 1..V-1, in number order.
    """
    lists = np.asarray(lists)
    codes: dict[str, int] = {}
    flat = [codes.setdefault(c, len(codes)) for some in item_categories for c in some]
    held = np.array([0, *(len(some) for some in item_categories)])  # by number: 0 has none
    member = np.zeros((len(held), len(codes)), bool)  # [V, C]
    member[np.repeat(np.arange(len(held)), held), flat] = True
    found = 0
    step = max(1, CELLS // max(1, lists.shape[1] * len(codes)))
    for start in range(0, len(lists), step):
        found += int(member[lists[start : start + step]].any(axis=1).sum())
    return found / len(lists)
