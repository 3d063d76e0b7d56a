"""An index in a Qdrant server, for catalogues past one machine.

The server holds the vectors and chooses the items; scores are those it gives. Contract-tested with
the client's local mode, which keeps all in this process: never run here against a real server.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dimerec.errors import DataError
from dimerec.retrieval import RetrievalIndex, checked, storage
from dimerec.retrieval.filters import Allowed

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

POINTS = 1000  # sent at once
SAMPLE = 32  # items whose vectors are compared when a collection is opened
COLLECTION, MEMORY = "dimerec", ":memory:"
TIMEOUT = 2  # seconds


class RemoteIndex(RetrievalIndex):
    """A Qdrant collection of item vectors under inner product; an item's number is its id.

    Allow-lists travel with every query, so keep them to some thousands of items.
    """

    def __init__(self, client: "QdrantClient", size: int, collection: str = COLLECTION) -> None:
        """An existing collection.

        Args:
            client: of the server.
            size: V of the catalogue, padding included.

        Raises:
            DataError: the server does not answer, or the collection is not there or not of one
                vector under inner product.
        """
        from qdrant_client.models import VectorParams

        super().__init__()
        self._client, self._collection, self.size = client, collection, size
        with self._talking():
            vectors = client.get_collection(collection).config.params.vectors
        if not isinstance(vectors, VectorParams) or vectors.distance != "Dot":
            raise DataError(
                f"the Qdrant collection {collection!r} is not of vectors under distance Dot; let "
                "RemoteIndex.build make it"
            )
        self.width = vectors.size

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        *,
        url: str = MEMORY,
        collection: str = COLLECTION,
        api_key: str | None = None,
    ) -> Self:
        """Make the collection and upload all items but padding.

        Args:
            vectors: float32 `[V, d]`.
            url: of the server; ":memory:" keeps all in this process, for tests.
            collection: its name, which must be free.

        Raises:
            DataError: vectors that cannot be indexed, a name that is taken, or a server that does
                not answer.
        """
        vectors = checked(vectors)
        client = connect(url, api_key)
        from qdrant_client import models

        shape = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
        with _talking(collection):
            if client.collection_exists(collection):
                raise DataError(
                    f"the Qdrant collection {collection!r} exists already; choose another name, "
                    "or delete it"
                )
            client.create_collection(collection, vectors_config=shape)
        built = cls(client, len(vectors), collection)
        built._add(np.arange(1, len(vectors)), vectors[1:])
        return built

    @classmethod
    def of(cls, vectors: np.ndarray, *, url: str, api_key: str | None = None) -> Self:
        """The collection `name` of these very vectors, which `build` made before.

        Args:
            vectors: float32 `[V, d]`.

        Raises:
            DataError: the server does not answer, or the collection is not there, short of items,
                of another width, or (a sample is compared) of other vectors.
        """
        collection = name(vectors)
        client = connect(url, api_key)
        with _talking(collection):
            there = client.collection_exists(collection)
        if not there:
            raise DataError(f"the Qdrant server at {url} has no collection {collection!r}")
        found = cls(client, len(vectors), collection)
        numbers = np.unique(np.linspace(1, max(1, len(vectors) - 1), SAMPLE).astype(np.int64))
        with _talking(collection):
            items = client.count(collection, exact=True).count
            records = client.retrieve(
                collection, numbers.tolist(), with_payload=False, with_vectors=True
            )
            held: dict[Any, Any] = {record.id: record.vector for record in records}
            sample: Any = [held.get(n) for n in numbers.tolist()]
            same = (found.width, items) == (vectors.shape[1], len(vectors) - 1) and (
                not items or np.allclose(sample, vectors[numbers], 1e-3)
            )
        if not same:
            raise DataError(
                f"the Qdrant collection {collection!r} at {url} holds {items} vectors of "
                f"{found.width}, which are not the {len(vectors) - 1} of {vectors.shape[1]} that "
                f"it should hold; delete it (curl -X DELETE {url}/collections/{collection})"
            )
        return found

    def _add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        from qdrant_client import models

        for start in range(0, len(numbers), POINTS):
            part = slice(start, start + POINTS)
            batch = models.Batch(ids=numbers[part].tolist(), vectors=vectors[part].tolist())
            with self._talking():
                self._client.upsert(self._collection, points=batch, wait=True)
        self.size = max(self.size, int(numbers.max(initial=0)) + 1)

    def _remove(self, numbers: np.ndarray) -> None:
        from qdrant_client import models

        for start in range(0, len(numbers), POINTS):
            points = models.PointIdsList(points=numbers[start : start + POINTS].tolist())
            with self._talking():
                self._client.delete(self._collection, points_selector=points, wait=True)

    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        filters = [_filter(e, a) for e, a in zip(exclude, allow, strict=True)]
        requests = self._requests(queries.reshape(-1, width), filters, interests, n)
        with self._talking():
            answers = self._client.query_batch_points(self._collection, requests=requests)
        numbers = np.zeros((users, n), np.int64)
        scores = np.full((users, n), -np.inf, np.float32)
        for user in range(users):
            lists = [a.points for a in answers[user * interests : (user + 1) * interests]]
            points = list(chain.from_iterable(lists))
            ids = np.array([p.id for p in points], np.int64)
            best = np.array([p.score for p in points], np.float32)
            order = np.lexsort((ids, -best))
            # An item's first place is under its best query, for that one ranks it highest.
            first = np.sort(np.unique(ids[order], return_index=True)[1])[:n]
            numbers[user, : len(first)] = ids[order][first]
            scores[user, : len(first)] = best[order][first]
        return numbers, scores

    @staticmethod
    def _requests(rows: np.ndarray, filters: Sequence[Any], interests: int, n: int) -> list[Any]:
        from qdrant_client import models

        return [
            models.QueryRequest(query=row, filter=filters[at // interests], limit=n)
            for at, row in enumerate(rows.tolist())
        ]

    def _talking(self) -> Any:
        return _talking(self._collection)


def name(vectors: np.ndarray) -> str:
    """The name of the collection of these item vectors, float32 `[V, d]`: of no others."""
    return f"{COLLECTION}-{storage.digest(vectors)[:16]}"


def connect(url: str, api_key: str | None = None) -> "QdrantClient":
    """A client of the server at `url`; nothing is sent yet.

    Raises:
        DataError: the client is not installed.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as e:
        raise DataError("Qdrant needs its client: pip install 'dimerec[qdrant]'") from e
    if url == MEMORY:
        return QdrantClient(MEMORY)
    return QdrantClient(url=url, api_key=api_key, timeout=TIMEOUT, check_compatibility=False)


@contextmanager
def _talking(collection: str) -> Iterator[None]:
    """What goes wrong on the way to the server, as one of our errors."""
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, QdrantException, OSError, ValueError, TypeError, AssertionError) as e:
        detail = " ".join(str(e).split())[:200]
        raise DataError(
            f"the Qdrant collection {collection!r} does not answer as it should: {detail}"
        ) from e


def _filter(exclude: np.ndarray, allowed: Allowed | None) -> Any:
    from qdrant_client import models

    if not len(exclude) and allowed is None:
        return None
    has = models.HasIdCondition
    return models.Filter(
        must_not=[has(has_id=exclude.tolist())] if len(exclude) else None,
        must=[has(has_id=allowed.numbers.tolist())] if allowed is not None else None,
    )
