"""Retrieval: the best items of each user, one contract for every index.

An item's score is `max_k <q_k, v_i>` over the user's K query vectors. Exact search is quickest
up to about 20,000 items; above, an approximate index tuned to a recall answers faster. Up to
100,000 nobody has to build one.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from dimerec.errors import BundleError, DataError
from dimerec.retrieval.filters import Allowed
from dimerec.retrieval.turns import Turns

logger = logging.getLogger(__name__)
EXACT_LIMIT = 100_000  # items up to which no index is built unasked
EXACT_ENOUGH = 20_000  # items up to which one that is asked for would gain nothing


class RetrievalIndex(ABC):
    """Threads may share one: many search at once, and a change waits until it is alone.

    `search`, `add` and `remove` are final; an index implements the three with an underscore, which
    are given checked arguments only.

    Attributes:
        size: V, one more than the largest item number there ever was.
        width: d.
    """

    size: int
    width: int

    def __init__(self) -> None:
        self._turns = Turns()

    @classmethod
    @abstractmethod
    def build(cls, vectors: np.ndarray) -> Self:
        """An index of float32 `[V, d]`; row 0 is padding and is never returned.

        Raises:
            DataError: not a matrix with at least the padding row, or not finite.
        """

    @abstractmethod
    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search` of finite queries, at least one row, 1 <= n <= V - 1, numbers within range."""

    @abstractmethod
    def _add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """`add` of distinct numbers of at least 1, ascending, at least one."""

    @abstractmethod
    def _remove(self, numbers: np.ndarray) -> None:
        """`remove` of distinct numbers in 1..V-1, ascending."""

    def search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: Sequence[np.ndarray] | None = None,
        allow: Sequence[Allowed | None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The n best items of each of B users.

        Args:
            queries: float32 `[B, K, d]`, K >= 1.
            n: how many, at least 1; may exceed the catalogue.
            exclude: B arrays of item numbers that must not come; numbers of no item are ignored.
            allow: B sets of items of which alone the answer may consist, None for all items. Rows
                that share one set should share the object.

        Returns:
            numbers int64 `[B, n]` and scores float32 `[B, n]`, best first, equal scores by smaller
            number, without padding, repeats, excluded or removed items. Where fewer than n exist
            the rest is 0 and -inf; a user with any non-finite query gets nothing but those.

        Raises:
            DataError: n < 1 or shapes that do not fit the index.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != self.width:
            shape = list(queries.shape)
            raise DataError(f"queries must be [B, K >= 1, {self.width}], got {shape}")
        if n < 1:
            raise DataError(f"n must be at least 1, got {n}")
        allowed: list[Allowed | None] = [None] * len(queries) if allow is None else list(allow)
        if len(allowed) != len(queries):
            raise DataError(
                f"allow must hold one set a query row: {len(queries)}, got {len(allowed)}"
            )
        usable = np.isfinite(queries).all(axis=(1, 2))
        with self._turns.reading():
            size = self.size
            if any(a is not None and a.size > size for a in allowed):
                raise DataError(f"a set to allow is of more items than the {size - 1} of the index")
            excluded = within(exclude, len(queries), size)
            if n < size and usable.all():  # the usual case, without a copy
                return self._search(queries, n, excluded, allowed)
            numbers = np.zeros((len(queries), n), np.int64)
            scores = np.full((len(queries), n), -np.inf, np.float32)
            rows, most = np.flatnonzero(usable), min(n, size - 1)
            if len(rows) and most:
                found = self._search(
                    queries[rows], most, [excluded[r] for r in rows], [allowed[r] for r in rows]
                )
                numbers[rows, :most], scores[rows, :most] = found
        return numbers, scores

    def add(self, numbers: np.ndarray | Sequence[int], vectors: np.ndarray) -> None:
        """Add items, or give known ones other vectors, without building anew.

        Numbers beyond the catalogue enlarge it; those in between that were never added are as if
        removed. The cells of an approximate index stay where they are, so build anew when much of
        the catalogue is another.

        Args:
            numbers: int `[m]`, distinct, at least 1.
            vectors: float32 `[m, d]`.

        Raises:
            DataError: numbers or vectors are not so, or the index is mapped from a file.
        """
        where, rows = _distinct(numbers), np.asarray(vectors, np.float32)
        if rows.shape != (len(where), self.width):
            raise DataError(
                f"{len(where)} numbers need vectors of [{len(where)}, {self.width}], got "
                f"{list(rows.shape)}"
            )
        order = np.argsort(where)
        if len(where):
            with self._turns.writing():
                self._add(where[order], checked(rows[order]))

    def remove(self, numbers: np.ndarray | Sequence[int]) -> None:
        """Take items out, until they are added again; numbers of no item are ignored.

        Raises:
            DataError: not a list of whole numbers, or the index is mapped from a file.
        """
        where = np.unique(np.asarray(numbers, np.int64).ravel())
        with self._turns.writing():
            self._remove(where[(where > 0) & (where < self.size)])


def within(exclude: Sequence[np.ndarray] | None, rows: int, size: int) -> list[np.ndarray]:
    """`exclude` as one int64 array a row: distinct numbers in 1..size-1, whatever else dropped."""
    if exclude is None:
        return [np.zeros(0, np.int64)] * rows
    if len(exclude) != rows:
        raise DataError(f"exclude must hold one array a query row: {rows}, got {len(exclude)}")
    out = []
    for e in exclude:
        numbers = np.sort(np.asarray(e, np.int64), axis=None)
        keep = (numbers > 0) & (numbers < size)
        keep[1:] &= numbers[1:] != numbers[:-1]
        out.append(numbers[keep])
    return out


def _distinct(numbers: np.ndarray | Sequence[int]) -> np.ndarray:
    out = np.asarray(numbers)
    if out.ndim != 1 or (len(out) and not np.issubdtype(out.dtype, np.integer)):
        raise DataError(f"numbers must be whole numbers [m], got {out.dtype} {list(out.shape)}")
    if len(out) and out.min() < 1:
        raise DataError(f"item numbers are at least 1, got {out.min()}")
    if len(np.unique(out)) != len(out):
        raise DataError("the numbers to add must be distinct, but some come twice")
    return out.astype(np.int64)


def checked(vectors: np.ndarray) -> np.ndarray:
    """Item vectors as a contiguous float32 `[V, d]`; DataError when they cannot be indexed."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] < 1:
        raise DataError(f"item vectors must be [V >= 1, d >= 1], got {list(vectors.shape)}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(
            f"item vectors must be finite, but row {bad[0]} and {len(bad) - 1} more are not; "
            "retrain, or take an earlier checkpoint"
        )
    return vectors


def index(vectors: np.ndarray, cached: Path | None = None) -> RetrievalIndex:
    """The fitting index of float32 `[V, d]`: exact up to `EXACT_LIMIT` items.

    Args:
        cached: where an index was saved. It is taken, mapped into memory, if it is of these very
            vectors; a damaged one or one of others is passed over with a warning.

    Raises:
        DataError: vectors that cannot be indexed.
    """
    if cached is not None and os.path.lexists(cached):
        from dimerec.retrieval import storage

        try:
            if storage.read(cached).vectors == storage.digest(vectors):
                return storage.load(cached)
            logger.warning(
                "%s is of other item vectors and is passed over; %s", cached, storage.AGAIN
            )
        except BundleError as e:
            logger.warning("the index kept is passed over: %s", e)
    if len(vectors) - 1 <= EXACT_LIMIT:
        from dimerec.retrieval.exact import ExactIndex

        return ExactIndex.build(vectors)
    from dimerec.retrieval.approximate import ApproximateIndex

    return ApproximateIndex.build(vectors)
