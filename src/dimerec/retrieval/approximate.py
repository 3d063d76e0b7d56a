"""Approximate search for large catalogues: FAISS cells, candidates scored exactly.

Items are kept in cells around spherical k-means centres; a query looks into the cells nearest to
it. Whatever it finds is scored again with all of the user's queries, so the scores are exact and
only the choice of candidates is approximate. Rows that come short are answered exactly.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from dimerec.errors import DataError
from dimerec.retrieval import storage
from dimerec.retrieval.exact import ExactIndex, blocks
from dimerec.retrieval.filters import MANY, Allowed, grouped
from dimerec.retrieval.local import LocalIndex

PROBES = 32
# Of k-means: items a cell, and rounds. FAISS's 256 and 10 take twice as long and find no more.
SAMPLE, ROUNDS = 128, 6
BLOCK = 2**22  # floats of candidate vectors held at once: 16 MiB
LISTS = "lists.faiss"


class ApproximateIndex(LocalIndex):
    """FAISS inverted file over inner products; the same vectors always build the same index.

    Attributes:
        codes: "sq8" keeps 8 bits a coordinate in the cells, "flat" all 32. The candidates' scores
            are exact either way.
        cells: how many there are.
        probes: cells a query looks into, at least; `tuned` sets it.
    """

    kind: ClassVar[str] = "approximate"

    def __init__(
        self,
        vectors: np.ndarray,
        gone: np.ndarray | None = None,
        *,
        codes: Literal["sq8", "flat"] = "sq8",
        probes: int = PROBES,
        lists: Any = None,
    ) -> None:
        """`lists`: the FAISS index of these vectors, where there is one already."""
        super().__init__(vectors, gone)
        import faiss

        self._faiss = faiss
        self.codes, self.probes = codes, probes
        self._exact = ExactIndex(self.vectors, self.gone)
        self._lists = lists
        if lists is None:
            self._cluster()
        self.cells: int = self._lists.nlist

    def _cluster(self) -> None:
        """Cells and lists anew; about a minute for a million items of width 64 on two cores."""
        faiss, width = self._faiss, self.width
        cells = max(1, min(round(4 * self.items**0.5), self.items // 39))
        self._quantizer = faiss.IndexFlatIP(width)  # FAISS keeps no reference of its own
        product = faiss.METRIC_INNER_PRODUCT
        if self.codes == "flat":
            self._lists = faiss.IndexIVFFlat(self._quantizer, width, cells, product)
        else:
            kind = faiss.ScalarQuantizer.QT_8bit
            self._lists = faiss.IndexIVFScalarQuantizer(
                self._quantizer, width, cells, kind, product
            )
        self._lists.cp.max_points_per_centroid, self._lists.cp.niter = SAMPLE, ROUNDS
        if self.items:
            numbers = np.setdiff1d(np.arange(1, self.size), self.gone)
            rows = self.vectors[1:] if not len(self.gone) else self.vectors[numbers]
            self._lists.train(rows)
            self._lists.add_with_ids(rows, numbers)

    def _add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        there = np.setdiff1d(numbers[numbers < self.size], self.gone)
        super()._add(numbers, vectors)
        self._exact = ExactIndex(self.vectors, self.gone)
        if not self._lists.is_trained:
            self._cluster()
            self.cells = self._lists.nlist
            return
        if len(there):
            self._lists.remove_ids(there)
        self._lists.add_with_ids(vectors, numbers)

    def _remove(self, numbers: np.ndarray) -> None:
        super()._remove(numbers)
        self._exact = ExactIndex(self.vectors, self.gone)
        self._lists.remove_ids(numbers)

    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        if users == 1 and allow[0] is None and not len(self.gone):  # what one request asks
            many = self._fetched(n + len(exclude[0]))
            found, best = self._candidates(queries, n, many, exclude, None, self.items)
            if found.shape[1] == n and found.all():
                return found, best
        numbers = np.zeros((users, n), np.int64)
        scores = np.full((users, n), -np.inf, np.float32)
        if len(self.gone):
            exclude = [e[~np.isin(e, self.gone)] for e in exclude]
        fetch = np.array([self._fetched(n + len(e)) for e in exclude], np.int64)
        due = [0] * users  # items that a row gets
        for rows, allowed in grouped(allow):
            items = self._count(allowed)
            for row in rows.tolist():
                e = exclude[row]
                there = items - (len(e) if allowed is None else int(allowed.holds(e).sum()))
                due[row] = min(max(there, 0), n)
            if items <= (MANY if allowed is not None else 0):
                continue  # these are scored one by one, below
            for many in set(fetch[rows].tolist()):
                same = rows[fetch[rows] == many]
                for block in blocks(same, BLOCK // (interests * many * width)):
                    found, best = self._candidates(
                        queries[block], n, many, [exclude[r] for r in block], allowed, items
                    )
                    numbers[block, : found.shape[1]], scores[block, : found.shape[1]] = found, best
        short = np.flatnonzero(np.count_nonzero(numbers, axis=1) < due)
        if len(short):
            numbers[short], scores[short] = self._exact.search(
                queries[short], n, [exclude[r] for r in short], [allow[r] for r in short]
            )
        return numbers, scores

    def _fetched(self, wanted: int) -> int:
        """How many a query fetches: `wanted` rounded up by less than a quarter, so that users with
        about as many exclusions are searched together, and each as if it were alone."""
        step = max(16, 1 << max(0, wanted.bit_length() - 3))
        return max(1, min(-(-wanted // step) * step, self.items))

    def _candidates(
        self,
        queries: np.ndarray,
        n: int,
        fetch: int,
        exclude: list[np.ndarray],
        allowed: Allowed | None,
        items: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        # Among fewer items the nearest lie farther away: measured, the cells to be searched for
        # one recall grow as the root. And enough for four times what is fetched, were all of one
        # size.
        probes = self.probes * (self.items / items) ** 0.5
        nprobe = min(self.cells, max(round(probes), -(-4 * fetch * self.cells // items)))
        if allowed is None:
            parameters = _cells(nprobe)
        else:
            parameters = self._faiss.SearchParametersIVF()
            parameters.nprobe = nprobe
            bits = allowed.bits  # FAISS keeps addresses alone: these must outlive the search
            selector = self._faiss.IDSelectorBitmap(len(bits), self._faiss.swig_ptr(bits))
            parameters.sel = selector
        _, ids = self._lists.search(queries.reshape(-1, width), fetch, params=parameters)
        ids = ids.reshape(users, interests * fetch)
        ids.sort(axis=1)
        usable = ids > 0  # FAISS fills up with -1
        if interests > 1:
            usable[:, 1:] &= ids[:, 1:] != ids[:, :-1]
        rows = np.arange(users)[:, None]
        hidden, keys = exclude[0], ids
        if users > 1:
            hidden = np.concatenate([r * self.size + e for r, e in enumerate(exclude)])
            keys = rows * self.size + ids
        if len(hidden):  # ascending
            at = hidden.searchsorted(keys)
            usable &= hidden.take(at, mode="clip") != keys
        ids *= usable
        near = self.vectors.take(ids, axis=0)  # [b, C, d]
        products = np.matmul(near, queries.transpose(0, 2, 1))  # [b, C, K]
        nearest = products.max(axis=2) if interests > 1 else products[:, :, 0]
        scores = np.where(usable, nearest, np.float32(-np.inf))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n]  # equal ones by number
        return ids[rows, order], scores[rows, order]

    def _settings(self) -> dict[str, int | str]:
        return {"codes": self.codes, "probes": self.probes}

    def _files(self) -> dict[str, storage.Writer]:
        write = self._faiss.write_index
        return {**super()._files(), LISTS: lambda file: write(self._lists, str(file))}

    @classmethod
    def _load(cls, path: Path, settings: Mapping[str, int | str], mmap: bool) -> Self:
        import faiss

        codes, probes = settings["codes"], settings["probes"]
        if codes not in ("sq8", "flat") or not isinstance(probes, int) or probes < 1:
            raise DataError(f"settings {dict(settings)}")
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mmap else 0
        lists: Any = faiss.read_index(str(path / LISTS), flags)
        if mmap:
            on_disk: Any = faiss.downcast_InvertedLists(lists.invlists)
            on_disk.prefetch_nthread = 0  # threads for each search cost more than the search
        vectors, gone = cls._arrays(path, mmap)
        built = cls(vectors, gone, codes=codes, probes=probes, lists=lists)
        built._file = path if mmap else None
        return built


@lru_cache(64)
def _cells(count: int) -> Any:
    """What tells FAISS to search that many cells; not to be written to."""
    import faiss

    parameters = faiss.SearchParametersIVF()
    parameters.nprobe = count
    return parameters
