"""Engine: one bundle, ready to answer. Ids in, ids out; no web framework, no training code.

An engine is a snapshot that is never changed: the model or its compiled form, the index, the ids
and the popular items to fall back on. A reload makes another engine and leaves this one to the
work in flight.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dimerec import retrieval
from dimerec.bundle import Bundle
from dimerec.errors import ServingError
from dimerec.model import SequentialModel
from dimerec.recommender import Query, Recommendation, Recommender
from dimerec.retrieval import RetrievalIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.serving import export
from dimerec.serving.compiled import Encode
from dimerec.vocabulary import Id

logger = logging.getLogger(__name__)
VERSION = 16  # hexadecimal digits of the bundle's digest
OpenIndex = Callable[[np.ndarray], RetrievalIndex]
WARM = (1, 2, 8, 1)  # batches of a warm-up


class UnknownItem(ServingError):
    """No such item in the catalogue."""


class Engine:
    """A verified bundle that answers; make one with `Engine.open`. Threads may share it.

    Attributes:
        bundle: what it was opened from.
        version: names the bundle in every answer: the start of its digest.
        compiled: whether `encode` runs compiled; `reason` says why not.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: SequentialModel,
        vectors: np.ndarray | None,
        index: RetrievalIndex | None,
        encode: Encode | None,
        reason: str,
        threads: int,
    ) -> None:
        self.bundle = bundle
        self.version = bundle.manifest.digest[:VERSION]
        self.compiled = encode is not None
        self.reason = reason
        self._vectors = vectors
        self._index = index
        self._threads = threads
        self._local = threading.local()
        self._recommender = Recommender(
            model,
            bundle.vocabulary,
            bundle.counts,
            bundle.config.length,
            index,
            bundle.items,
            encode,
        )

    @classmethod
    def open(
        cls,
        path: str | Path | Bundle,
        *,
        index: Literal["auto", "exact"] | RetrievalIndex | OpenIndex = "auto",
        compiled: bool = True,
        threads: int = 1,
    ) -> "Engine":
        """Verify a bundle and make it ready to answer.

        Where there is no compiled `encode` that may be used, the model runs as it is: slower, with
        the same answers. The reason is logged. Compiled code is native code of whoever may write
        to the bundle's folder: open a stranger's bundle with `compiled=False`, or remove its
        folder `cache` first.

        Args:
            path: of a bundle, or one that is open.
            index: "auto" takes the one that `dimerec index` made, or that fits the number of items;
                "exact" scores them all; or an index of the model's item vectors, or what makes one
                of them, float32 `[V, d]`.
            compiled: use what `dimerec export` made.
            threads: of each call's matrix products and searches, at least 1.

        Raises:
            BundleError: not a bundle, or a broken one.
            ServingError: threads < 1.
        """
        if threads < 1:
            raise ServingError(f"threads must be at least 1, got {threads}")
        bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        model = bundle.model()
        encode, reason = None, ""
        if not model.has_vectors:
            reason = f"{bundle.config.model} counts; it has no encode"
        elif not compiled:
            reason = "not asked for"
        else:
            try:
                encode = export.load(bundle, model)
            except ServingError as e:
                reason = str(e)
                logger.warning("encode runs as it is, not compiled: %s", reason)
        vectors = found = None
        if model.has_vectors:
            with torch.inference_mode():
                vectors = model.item_vectors().float().numpy()
            if isinstance(index, RetrievalIndex):
                found = index
            elif index == "exact":
                found = ExactIndex.build(vectors)
            elif callable(index):
                found = index(vectors)
            else:
                found = retrieval.index(vectors, bundle.index_path)
        return cls(bundle, model, vectors, found, encode, reason, threads)

    def recommend(self, queries: Sequence[Query]) -> list[Recommendation]:
        """The answer to each query, as `Recommender.answer`.

        An answer is a function of the bundle and the query alone, its noise of the query's seed
        and history, whatever else is in the batch, up to the rounding of matrix products.

        Raises:
            ServingError: a query that cannot be answered; names it and the way out.
        """
        self._settle()
        return self._recommender.answer(queries)

    def similar(self, item: Id, n: int = 20) -> Recommendation:
        """The n items that the vector of `item`, taken as a query, finds; not `item` itself.

        Raises:
            UnknownItem: no such item.
            ServingError: n < 1, or a model that has no item vectors.
        """
        self._settle()
        vocabulary, index = self.bundle.vocabulary, self._index
        if index is None or self._vectors is None:
            raise ServingError(f"{self.bundle.config.model} has no item vectors to compare")
        if isinstance(n, bool) or n < 1:
            raise ServingError(f"n must be a whole number of at least 1, got {n!r}")
        number = int(vocabulary.numbers([vocabulary.parse(str(item))])[0])
        if not number:
            raise UnknownItem(f"no item {item!r} in the catalogue")
        query = self._vectors[number].reshape(1, 1, -1)
        numbers, scores = index.search(query, n, [np.array([number])])
        there = numbers[0] > 0
        return Recommendation(
            items=vocabulary.ids(numbers[0][there].tolist()),
            scores=scores[0][there].tolist(),
            source="model",
        )

    def warm_up(self) -> None:
        """Answer a few batches, so that the first request finds memory and code in place."""
        histories = [query.history for query in self.bundle.golden.queries] or [[]]
        for batch in WARM:
            self.recommend([Query(histories[row % len(histories)]) for row in range(batch)])

    def check_golden(self) -> None:
        """Ask the bundle's golden queries, of this model and this index, as they are served.

        Raises:
            BundleError: the answers are not those that the bundle was written with.
        """
        self._settle()
        self.bundle.check(self._recommender)

    def _settle(self) -> None:
        """This engine's number of threads, once for each calling thread."""
        if getattr(self._local, "settled", False):
            return
        torch.set_num_threads(self._threads)
        if self._index is not None and not isinstance(self._index, ExactIndex):
            import faiss

            faiss.omp_set_num_threads(self._threads)
        self._local.settled = True
