"""Slates: how much of what a user does next is in one list, where samplers could beat a marginal.

A next-item metric asks for one item. A slate is shown once and meets several later ones, so lists
that spread over what may come can win here even where they lose at the next item.
"""

import numpy as np

from dimerec.config import Struct
from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.vocabulary import PADDING

NEXT, LEAST = 10, 2


class Slates(Struct, frozen=True):
    """Coverage of the next items.

    Attributes:
        slates: how many were shown.
        ahead: mean number of different items that came next; 10 at most.
        coverage: slate's length -> mean share of those that it holds.
        any: slate's length -> share of slates that hold one of them at least.
    """

    slates: int
    ahead: float
    coverage: dict[int, float]
    any: dict[int, float]


def upcoming(dataset: Dataset, split: str, limit: int = 0) -> tuple[Queries, np.ndarray]:
    """Queries with several targets: the up to 10 events from each position of a split on.

    At least 2 must be left in the segment (there are none under leave-one-out). A `limit` above 0
    keeps so many queries at most, evenly spread.

    Returns:
        Queries, whose own target is the first of those events, and int64 `[Q, 10]` item numbers,
        0 where the segment has ended.

    Raises:
        DataError: no such split.
    """
    asked = dataset.queries(split, "every-position")
    n = np.diff(dataset.offsets)
    stop = (n if split == "test" else dataset.valid_end)[asked.rows]
    kept = np.flatnonzero(stop - asked.positions >= LEAST)
    if limit and len(kept) > limit:
        kept = kept[np.arange(limit) * len(kept) // limit]
    rows, positions = asked.rows[kept], asked.positions[kept]
    start = dataset.offsets[rows] + positions
    at = start[:, None] + np.arange(NEXT)  # [Q, 10]
    inside = at < (dataset.offsets[rows] + stop[kept])[:, None]
    items = np.where(inside, dataset.items[np.where(inside, at, 0)], PADDING).astype(np.int64)
    chosen = Queries(
        items=dataset.items,
        offsets=dataset.offsets,
        rows=rows,
        positions=positions,
    )
    return chosen, items


def coverage(lists: np.ndarray, ahead: np.ndarray, lengths: tuple[int, ...] = (20, 50)) -> Slates:
    """How much of `ahead` `[Q, m]` the first items of `lists` `[Q, n]` hold; padding is 0.

    An item that comes twice counts once. Q >= 1, and each row of `ahead` has an item.
    """
    ahead = np.sort(ahead, axis=1)
    different = ahead != PADDING
    different[:, 1:] &= ahead[:, 1:] != ahead[:, :-1]
    total = different.sum(axis=1)
    share, some = {}, {}
    for n in lengths:
        found = _held(ahead, lists[:, :n], different)
        share[n] = float((found / total).mean())
        some[n] = float((found > 0).mean())
    return Slates(slates=len(ahead), ahead=float(total.mean()), coverage=share, any=some)


def _held(ahead: np.ndarray, lists: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """How many of the `counted` entries of each row of `ahead` stand in its list: int64 `[Q]`."""
    held = np.zeros(ahead.shape, bool)
    for place in range(lists.shape[1]):  # a table [Q, m, n] would be large
        held |= ahead == lists[:, place : place + 1]
    return (held & counted).sum(axis=1)
