"""Calls of the history store, off the event loop, each with a deadline; a store that hangs is
asked no more than its threads can bear, and not at all for a moment after it failed often."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dimerec.errors import StoreUnavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")
FAILURES, PAUSE = 5, 1.0  # so many failures in a row, and nobody asks for so many seconds


class StoreCalls:
    """A small pool of threads; used by the event loop alone."""

    def __init__(
        self, name: str, threads: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            name: of the operation, for messages.
            threads: calls at once; four times as many may wait.
            seconds: after which a call counts as failed.
        """
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"dimerec-store-{name}")
        self._most = threads * 5
        self._seconds = seconds
        self._clock = clock
        self._pending = 0
        self._failures = 0
        self._until = 0.0

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()`, made in the pool.

        Raises:
            StoreUnavailable: it failed, took too long, or was not made because too many others
                hang or have just failed. A call that took too long may still take effect.
            Overloaded: what the store itself says when too much waits.
        """
        if self._clock() < self._until:
            raise StoreUnavailable(f"the history store failed {self._failures} times in a row")
        if self._pending >= self._most:
            self._failed()
            raise StoreUnavailable(f"{self._pending} calls of the history store wait already")
        loop = asyncio.get_running_loop()
        self._pending += 1
        future = self._pool.submit(call)
        future.add_done_callback(lambda done: self._ended(loop, done))
        try:
            async with asyncio.timeout(self._seconds):
                result = await asyncio.wrap_future(future)
        except TimeoutError:
            self._failed()
            raise StoreUnavailable(
                f"the history store took more than {self._seconds:g} s to {self._name}"
            ) from None
        except StoreUnavailable:
            self._failed()
            raise
        self._failures = 0
        return result

    def close(self) -> None:
        """Take no more calls; those begun go on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._until = self._clock() + PAUSE

    def _ended(self, loop: asyncio.AbstractEventLoop, done: Future) -> None:
        try:
            loop.call_soon_threadsafe(self._one_less)
        except RuntimeError:  # the loop closed in between
            pass

    def _one_less(self) -> None:
        self._pending -= 1
