"""Queries: the (user, position) pairs an evaluation scores, read lazily from the events."""

import numpy as np

from dimerec.randomness import GOLDEN, mix
from dimerec.vocabulary import PADDING


def gather(items: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """The last `width` of the events `[start, end)` of each row: int64 `[b, width]`, left-padded.

    `items` is the flat event array `[N]`; `start`, `end` int64 `[b]` point into it.
    """
    at = end[:, None] + np.arange(-width, 0)  # [b, width]
    inside = at >= start[:, None]
    return np.where(inside, items[np.where(inside, at, 0)], PADDING).astype(np.int64)


class Queries:
    """Q queries: the target at `positions[q]` of user row `rows[q]`, given the events before it.

    Ordered by row, then position. `rows` and `positions` are int64 `[Q]`.
    """

    def __init__(
        self,
        *,
        items: np.ndarray,
        offsets: np.ndarray,
        rows: np.ndarray,
        positions: np.ndarray,
    ) -> None:
        self.rows = rows
        self.positions = positions
        self._items = items
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self.rows)

    def histories(self, block: slice, length: int) -> np.ndarray:
        """Item numbers before each target, int64 `[b, length]`: the last ones, left-padded by 0."""
        start = self._offsets[self.rows[block]]
        return gather(self._items, start, start + self.positions[block], length)

    def targets(self, block: slice) -> np.ndarray:
        """Item numbers to be ranked, int64 `[b]`."""
        return self._items[self._offsets[self.rows[block]] + self.positions[block]].astype(np.int64)

    def users(self, block: slice) -> np.ndarray:
        """User rows, int64 `[b]`."""
        return self.rows[block]

    def seen(self, block: slice) -> np.ndarray:
        """All items before each target, int64 `[b, longest]`, left-padded by 0."""
        return self.histories(block, int(self.positions[block].max(initial=0)))


def hashed(x: np.ndarray) -> np.ndarray:
    """SplitMix64, elementwise on uint64: one step of the generator from state `x`."""
    return mix(x + GOLDEN)
