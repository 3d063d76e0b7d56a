"""Micro-batches for one worker thread: an idle worker takes a request at once, batches form only
while it is busy, and work whose deadline has passed is never computed."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dimerec.errors import DeadlineExceeded, Overloaded, ServingError

logger = logging.getLogger(__name__)
LATEST = 0.2  # weight of the last batch in the pace of the latest
T = TypeVar("T")
R = TypeVar("R")


class Done(Generic[R]):
    """A result, with the seconds it waited and was worked on, and the size of its batch."""

    __slots__ = ("batch", "queued", "result", "worked")

    def __init__(self, result: R, queued: float, worked: float, batch: int) -> None:
        self.result = result
        self.queued = queued
        self.worked = worked
        self.batch = batch


class _Job(Generic[T, R]):
    __slots__ = ("deadline", "future", "item", "since", "weight")

    def __init__(
        self, item: T, weight: int, since: float, deadline: float, future: "asyncio.Future[Done[R]]"
    ) -> None:
        self.item = item
        self.weight = weight
        self.since = since
        self.deadline = deadline
        self.future = future


class WorkerGone(ServingError):
    """The worker thread has ended; the process must be started again."""


class Batcher(Generic[T, R]):
    """A bounded queue, first in first out, before one worker thread."""

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        *,
        depth: int,
        size: int,
        patience: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            work: one result an item, in order; runs in the worker thread.
            depth: the weight that may wait.
            size: the weight that is worked on at once; an item that weighs more goes alone.
            patience: seconds of work that may wait, judged by the latest batches; one batch may
                wait in any case. Without it a full queue before a slow model is worked on in vain:
                each answer comes when its time is just up.
            clock: seconds, never going back.
        """
        self._work = work
        self._depth = depth
        self._size = size
        self._patience = patience
        self._pace = 0.0  # seconds of a batch, of the latest ones
        self._clock = clock
        self._waiting: deque[_Job[T, R]] = deque()
        self._weight = 0
        self._changed = threading.Condition(threading.Lock())
        self._closed = False
        self._since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="dimerec-model", daemon=True)

    def start(self) -> None:
        """Start the worker; called once, in the running event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the worker thread runs and takes work."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """The weight in the queue."""
        return self._weight

    @property
    def full(self) -> bool:
        """Whether an item that weighs 1 would be refused."""
        return self._weight >= self._room()

    def busy_for(self) -> float:
        """Seconds spent on the batch at hand; 0 when idle."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    async def submit(self, item: T, deadline: float, weight: int = 1) -> Done[R]:
        """The result of `item`, which is worked on only if that begins before `deadline`.

        Args:
            deadline: a time of the clock. The call ends by then, with or without a result.
            weight: how much of the queue's depth and of a batch it takes, at least 1.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the time is up.
            WorkerGone: the worker has ended.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        if deadline <= now:
            raise DeadlineExceeded("the request's time was up before it reached the model")
        job: _Job[T, R] = _Job(item, weight, now, deadline, loop.create_future())
        with self._changed:
            if not self.alive:
                raise WorkerGone("the model's worker has ended; start the service again")
            if self._weight and self._weight + weight > self._room():
                raise Overloaded(f"{self._weight} queries wait for the model already; try later")
            self._waiting.append(job)
            self._weight += weight
            self._changed.notify()
        timer = loop.call_later(deadline - now, _expire, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    def close(self) -> None:
        """Let the worker end after the batch at hand; what waits fails with WorkerGone."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def _room(self) -> int:
        """The weight that may wait."""
        batches = max(1.0, self._patience / self._pace) if self._pace else math.inf
        return int(min(self._depth, self._size * batches))

    def _run(self) -> None:
        batch: list[_Job[T, R]] = []
        try:
            while batch := self._take():
                began = self._since = self._clock()
                results: Sequence[R] | Exception
                try:
                    results = self._work([job.item for job in batch])
                except Exception as e:
                    logger.exception("the model failed")
                    results = e
                worked = self._clock() - began
                self._pace += LATEST * (worked - self._pace)
                self._since = None
                self._tell(_deliver, batch, results, began, worked)
        except BaseException:
            logger.exception("the model's worker ended")
        finally:
            with self._changed:
                self._closed = True
                left = [*batch, *self._waiting]
                self._waiting.clear()
                self._weight = 0
            self._tell(_fail, left, WorkerGone("the model's worker has ended"))

    def _take(self) -> list[_Job[T, R]]:
        """The next batch, waited for; empty when closed."""
        while True:
            batch: list[_Job[T, R]] = []
            late: list[_Job[T, R]] = []
            weight = 0
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return []
                now = self._clock()
                while self._waiting and weight < self._size:
                    job = self._waiting[0]
                    expired = job.deadline <= now or job.future.done()
                    if not expired and batch and weight + job.weight > self._size:
                        break
                    self._waiting.popleft()
                    self._weight -= job.weight
                    (late if expired else batch).append(job)
                    weight += 0 if expired else job.weight
            if late:
                self._tell(
                    _fail, late, DeadlineExceeded("the request waited until its time was up")
                )
            if batch:
                return batch

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop closed in between
            pass


def _expire(job: _Job) -> None:
    if not job.future.done():
        job.future.set_exception(DeadlineExceeded("the model took until the request's time was up"))


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


def _deliver(
    jobs: Sequence[_Job], results: Sequence | Exception, began: float, worked: float
) -> None:
    if isinstance(results, Exception):
        return _fail(jobs, results)
    size = sum(job.weight for job in jobs)
    for job, result in zip(jobs, results, strict=True):
        if not job.future.done():
            job.future.set_result(Done(result, began - job.since, worked, size))
