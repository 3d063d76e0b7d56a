"""Approximate search for large catalogues: FAISS cells, candidates scored exactly.

Items are kept in cells around spherical k-means centres; a query looks into the cells nearest to
it. Whatever it finds is scored again with all of the user's queries, so the scores are exact and
only the choice of candidates is approximate. Rows that come short are answered exactly.
"""

from typing import Self

import numpy as np

from dimerec.retrieval import RetrievalIndex, checked
from dimerec.retrieval.exact import ExactIndex
from dimerec.retrieval.filters import MANY, Allowed, grouped

PROBES = 32
BLOCK = 2**22  # floats of candidate vectors held at once: 16 MiB


class ApproximateIndex(RetrievalIndex):
    """FAISS inverted file over inner products; the same vectors always build the same index."""

    def __init__(self, vectors: np.ndarray) -> None:
        import faiss

        self.vectors = vectors
        self._exact = ExactIndex(vectors)
        size, width = vectors.shape
        self._items = size - 1
        self._cells = max(1, min(round(4 * self._items**0.5), self._items // 39))
        self._faiss = faiss
        self._quantizer = faiss.IndexFlatIP(width)  # FAISS keeps no reference of its own
        self._index = faiss.IndexIVFFlat(
            self._quantizer, width, self._cells, faiss.METRIC_INNER_PRODUCT
        )
        if self._items:
            self._index.train(vectors[1:])
            self._index.add_with_ids(vectors[1:], np.arange(1, size, dtype=np.int64))

    @classmethod
    def build(cls, vectors: np.ndarray) -> Self:
        """Cluster and add the items; about a minute for a million of width 64 on two cores."""
        return cls(checked(vectors))

    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        numbers = np.zeros((users, n), np.int64)
        scores = np.full((users, n), -np.inf, np.float32)
        fetch = np.array([self._fetched(n + len(e)) for e in exclude], np.int64)
        for rows, allowed in grouped(allow):
            if allowed is not None and len(allowed) <= MANY:
                continue  # scored one by one below
            for many in np.unique(fetch[rows]):
                same = rows[fetch[rows] == many]
                step = max(1, BLOCK // (interests * int(many) * width))
                for start in range(0, len(same), step):
                    block = same[start : start + step]
                    numbers[block], scores[block] = self._candidates(
                        queries[block], n, int(many), [exclude[r] for r in block], allowed
                    )
        most = [
            self._items - len(e) if a is None else len(a) - int(a.holds(e).sum())
            for a, e in zip(allow, exclude, strict=True)
        ]
        short = np.flatnonzero((numbers > 0).sum(axis=1) < np.clip(most, 0, n))
        if len(short):
            numbers[short], scores[short] = self._exact.search(
                queries[short], n, [exclude[r] for r in short], [allow[r] for r in short]
            )
        return numbers, scores

    def _fetched(self, wanted: int) -> int:
        """How many a query fetches: `wanted` rounded up by less than a quarter, so that users with
        about as many exclusions are searched together, and each as if it were alone."""
        step = max(16, 1 << max(0, wanted.bit_length() - 3))
        return min(-(-wanted // step) * step, self._items)

    def _candidates(
        self,
        queries: np.ndarray,
        n: int,
        fetch: int,
        exclude: list[np.ndarray],
        allowed: Allowed | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        # Enough cells for four times what is fetched, were all cells of one size.
        items = self._items if allowed is None else len(allowed)
        probes = max(PROBES, -(-4 * fetch * self._cells // items))
        parameters = self._faiss.SearchParametersIVF()
        parameters.nprobe = min(probes, self._cells)
        if allowed is not None:
            bits = allowed.bits
            # FAISS keeps the address alone: the selector must outlive the search.
            selector = self._faiss.IDSelectorBitmap(len(bits), self._faiss.swig_ptr(bits))
            parameters.sel = selector
        _, ids = self._index.search(queries.reshape(-1, width), fetch, params=parameters)
        ids = np.sort(ids.reshape(users, interests * fetch), axis=1)  # FAISS fills up with -1
        usable = ids > 0
        usable[:, 1:] &= ids[:, 1:] != ids[:, :-1]
        size = self._items + 1
        rows = np.arange(users)[:, None]
        if any(len(e) for e in exclude):
            hidden = np.concatenate([r * size + e for r, e in enumerate(exclude)])
            usable &= ~np.isin(rows * size + ids, hidden)
        ids = np.where(usable, ids, 0)
        products = np.matmul(self.vectors[ids], queries.transpose(0, 2, 1))  # [b, C, K]
        scores = np.where(usable, products.max(axis=2), -np.inf).astype(np.float32)
        order = np.lexsort((ids, -scores), axis=-1)[:, :n]
        ids, scores = ids[rows, order], scores[rows, order]
        spare = ((0, 0), (0, n - ids.shape[1]))
        return np.pad(ids, spare), np.pad(scores, spare, constant_values=-np.inf)
