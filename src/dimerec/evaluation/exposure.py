"""Whom recommendations favour: shares of the catalogue, novelty, and hits by popularity."""

import numpy as np

from dimerec.config import Struct
from dimerec.errors import DataError
from dimerec.evaluation.metrics import hr
from dimerec.vocabulary import PADDING

BANDS = ("head", "middle", "tail")


class Band(Struct, frozen=True):
    """Hits on targets of one range of popularity.

    Attributes:
        name: "head", "middle" or "tail".
        items: how many of the catalogue.
        queries: whose target is one of them.
        shown: share of the recommended items that are of it.
        hr: cut-off -> hit rate; empty where there is no query.
    """

    name: str
    items: int
    queries: int
    shown: float
    hr: dict[int, float]


def bands(counts: np.ndarray) -> np.ndarray:
    """0 (head), 1 (middle) or 2 (tail) for each item, int64 `[V]`; -1 for padding.

    Items in the order of their training events (ties by number): the most popular ones up to the
    one that completes a third of all events are the head, those up to the second third the middle.
    Items without an event are tail.

    Raises:
        DataError: there is no training event.
    """
    counts = np.asarray(counts, float)[1:]
    if not counts.sum() > 0:
        raise DataError("no training event: popularity has no bands")
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    third = np.minimum(np.floor(before * 3 / counts.sum()).astype(np.int64), 2)
    out = np.full(len(counts) + 1, -1, np.int64)
    out[order + 1] = np.where(counts[order] > 0, third, 2)
    return out


def by_band(
    ranks: np.ndarray,
    targets: np.ndarray,
    lists: np.ndarray,
    counts: np.ndarray,
    cutoffs: tuple[int, ...] = (10, 20, 50),
) -> list[Band]:
    """Hit rates of `[Q]` ranks by the band of their `[Q]` targets.

    Args:
        lists: item numbers `[R, n]` that were recommended; padding (0) is none.
        counts: float `[V]` training events.
    """
    of = bands(counts)
    asked, shown = of[targets], of[lists[lists != PADDING]]
    return [
        Band(
            name=name,
            items=int((of == b).sum()),
            queries=int((asked == b).sum()),
            shown=float((shown == b).mean()) if len(shown) else 0.0,
            hr={n: float(hr(ranks[asked == b], n).mean()) for n in cutoffs if (asked == b).any()},
        )
        for b, name in enumerate(BANDS)
    ]


def gini(lists: np.ndarray, size: int) -> float:
    """Gini index of how often each item is recommended: 0 all alike, near 1 a few take it all.

    Args:
        lists: item numbers `[R, n]`; padding (0) is none.
        size: V, the catalogue and padding.
    """
    times = np.sort(np.bincount(np.asarray(lists).ravel(), minlength=size)[1:]).astype(float)
    n = len(times)
    if not times.sum() > 0:
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * times).sum() / (n * times.sum()))


def novelty(lists: np.ndarray, counts: np.ndarray) -> float:
    """Mean self-information of the recommended items in bits, `-log2 p`.

    p is an item's share of the training events, one added to each item's count so that items
    without any have a share, too.

    Args:
        lists: item numbers `[R, n]`, one at least; padding (0) is none.
        counts: float `[V]` training events.
    """
    more = np.asarray(counts, float) + 1.0
    more[PADDING] = 0.0
    return float(-np.log2(more[lists[lists != PADDING]] / more.sum()).mean())
