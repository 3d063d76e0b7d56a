"""The remote index as the service asks it: within a short time, or not at all.

One thread works for the model, so a server that hangs must not hold it. A search that fails or is
late closes the way for a while; from then on nobody waits, and now and then one search tries in the
background whether the server is back.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

from dimerec.errors import DataError, ServingError
from dimerec.retrieval.filters import Allowed
from dimerec.retrieval.remote import COLLECTION, RemoteIndex
from dimerec.serving.engine import OpenIndex
from dimerec.serving.settings import Settings

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.getLogger(__name__)
PAUSE = 0.5  # seconds between tries of a server that does not answer
SHARE = 0.25  # of the deadline, that a search may take


class IndexUnavailable(ServingError):
    """The remote index does not answer, or not in time, or not as it should."""


class GuardedIndex(RemoteIndex):
    """A collection of a Qdrant server whose searches end within `seconds`.

    One search at a time is with the server; it is given up by its own time-outs at the latest.
    """

    def __init__(self, client: "QdrantClient", size: int, collection: str = COLLECTION) -> None:
        """See `RemoteIndex`; `open` says within which time."""
        super().__init__(client, size, collection)
        self.seconds = 1.0
        self.clock = time.monotonic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dimerec-index")
        self._lock = threading.Lock()
        self._down = False  # nobody waits for an answer
        self._until = 0.0  # when the next try may begin
        self._last: Future | None = None

    @classmethod
    def open(cls, vectors: np.ndarray, *, url: str, seconds: float) -> Self:
        """The collection of these very vectors, float32 `[V, d]`.

        Args:
            seconds: that a search may take.

        Raises:
            DataError: see `RemoteIndex.of`; says how to make it.
        """
        try:
            found = cls.of(vectors, url=url)
            if found.size > 1:  # the first search may take longer than later ones
                found._asked(vectors[None, 1:2], 1, [np.zeros(0, np.int64)], [None])
        except (DataError, ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise DataError(f"{e}; `dimerec index BUNDLE --remote {url}` makes it") from e
        found.seconds = seconds
        return found

    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `RemoteIndex`; IndexUnavailable where it cannot be done in time."""
        ask = partial(self._asked, queries, n, exclude, allow)
        with self._lock:
            if self._down:
                over = self._last is None or self._last.done()
                if over and self.clock() >= self._until:
                    self._last = self._pool.submit(self._try, ask)
                raise IndexUnavailable("the remote index did not answer a moment ago")
            future = self._last = self._pool.submit(ask)
        try:
            return future.result(self.seconds)
        except Exception as e:
            future.cancel()
            self._fail(e)
            raise IndexUnavailable("the remote index does not answer as it should") from e

    def _asked(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the server says, which must be items that were asked for."""
        numbers, scores = super()._search(queries, n, exclude, allow)
        for row, hidden, allowed in zip(numbers, exclude, allow, strict=True):
            some = row[row != 0]
            wrong = (some < 0) | (some >= self.size) | np.isin(some, hidden)
            if allowed is not None and not wrong.any():
                wrong |= ~allowed.holds(some)
            if wrong.any():
                raise DataError(f"it answers with {some[wrong][0]}, which was not asked for")
        if np.isnan(scores).any():
            raise DataError("it answers with scores that are no numbers")
        return numbers, scores

    def _try(self, ask: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        began = self.clock()
        try:
            ask()
            took = self.clock() - began
            if took > self.seconds:
                raise TimeoutError(f"it took {took:.2f} s")
        except Exception as e:
            self._fail(e)
            return
        with self._lock:
            self._down = False
        logger.warning("the remote index answers again")

    def _fail(self, error: Exception) -> None:
        with self._lock:
            before, self._down = self._down, True
            self._until = self.clock() + PAUSE
        if not before:
            late = f"no answer within {self.seconds:g} s, a quarter of limits.deadline"
            why = str(error) or late
            logger.warning("popular items are answered until the remote index is back: %s", why)


def opener(settings: Settings) -> OpenIndex | None:
    """What opens a bundle's remote index by these settings; None where they name none."""
    if not settings.index:
        return None
    seconds = SHARE * settings.limits.deadline
    return partial(GuardedIndex.open, url=settings.index.rstrip("/"), seconds=seconds)
