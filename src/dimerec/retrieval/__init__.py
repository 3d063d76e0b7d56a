"""Retrieval: the best items of each user, one contract for every index.

An item's score is `max_k <q_k, v_i>` over the user's K query vectors. Exact search is right up to
about 100,000 items; above, the approximate index answers several times faster.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from dimerec.errors import DataError
from dimerec.retrieval.filters import Allowed

EXACT_LIMIT = 100_000


class RetrievalIndex(ABC):
    """Immutable after `build`, so threads may share one.

    `search` is final; an index implements `_search`, which is given checked queries only.
    """

    vectors: np.ndarray

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
            number, without padding, repeats or excluded items. Where fewer than n exist the rest
            is 0 and -inf; a user with any non-finite query gets nothing but those.

        Raises:
            DataError: n < 1 or shapes that do not fit the index.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        size, width = self.vectors.shape
        if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != width:
            raise DataError(f"queries must be [B, K >= 1, {width}], got {list(queries.shape)}")
        if n < 1:
            raise DataError(f"n must be at least 1, got {n}")
        excluded = within(exclude, len(queries), size)
        allowed = [None] * len(queries) if allow is None else list(allow)
        if len(allowed) != len(queries):
            raise DataError(
                f"allow must hold one set a query row: {len(queries)}, got {len(allowed)}"
            )
        if any(a is not None and a.size > size for a in allowed):
            raise DataError(f"a set to allow is of more items than the {size - 1} of the index")
        numbers = np.zeros((len(queries), n), np.int64)
        scores = np.full((len(queries), n), -np.inf, np.float32)
        rows = np.flatnonzero(np.isfinite(queries).all(axis=(1, 2)))
        most = min(n, size - 1)
        if len(rows) and most:
            found = self._search(
                queries[rows], most, [excluded[r] for r in rows], [allowed[r] for r in rows]
            )
            numbers[rows, :most], scores[rows, :most] = found
        return numbers, scores


def within(exclude: Sequence[np.ndarray] | None, rows: int, size: int) -> list[np.ndarray]:
    """`exclude` as one int64 array a row: distinct numbers in 1..size-1, whatever else dropped."""
    if exclude is None:
        return [np.zeros(0, np.int64)] * rows
    if len(exclude) != rows:
        raise DataError(f"exclude must hold one array a query row: {rows}, got {len(exclude)}")
    out = [np.unique(np.asarray(e, np.int64)) for e in exclude]
    return [e[(e > 0) & (e < size)] for e in out]


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


def index(vectors: np.ndarray) -> RetrievalIndex:
    """The fitting index of float32 `[V, d]`: exact up to `EXACT_LIMIT` items."""
    if len(vectors) - 1 <= EXACT_LIMIT:
        from dimerec.retrieval.exact import ExactIndex

        return ExactIndex.build(vectors)
    from dimerec.retrieval.approximate import ApproximateIndex

    return ApproximateIndex.build(vectors)
