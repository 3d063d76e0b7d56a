"""One thread carries out what many hand in: all that waits becomes one commit."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from dimerec.errors import Overloaded, StoreUnavailable

Work = TypeVar("Work")


class GroupWriter(Generic[Work]):
    """A bounded queue and its only consumer.

    While one commit is on its way to the disk others queue up behind it, so a disk that takes a
    millisecond a commit takes as many events a millisecond as there are callers.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Work]], Sequence[Any]],
        finish: Callable[[], None],
        *,
        name: str,
        queue: int,
        group: int,
    ) -> None:
        """
        Args:
            commit: carries out works in order, all or none, and returns a result for each.
                Runs in the writer's thread. What it raises, the callers of all its works get.
            finish: called once in that thread, after the last commit.
            name: what messages call the place written to.
            queue: how many units may wait; one work larger than that is let in when none waits.
            group: how many units go into one commit (one work at least).
        """
        self._commit, self._finish, self._name = commit, finish, name
        self._queue, self._group = queue, group
        self._waiting: deque[tuple[Work, int, Future]] = deque()
        self._units = 0
        self._closed = False
        self._last, self._took = 1, 0.0  # works in the last commit, its seconds
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"writer {name}", daemon=True)
        self._thread.start()

    def do(self, work: Work, units: int, timeout: float) -> Any:
        """Hand in `work`, of a size of `units`, and wait for its result.

        Raises:
            Overloaded: the queue is full; the work was not taken.
            StoreUnavailable: closed, or no answer within `timeout` seconds. The work may still
                be carried out later.
        """
        done: Future = Future()
        with self._changed:
            if self._closed:
                raise StoreUnavailable(f"{self._name}: this store was closed")
            if self._waiting and self._units + units > self._queue:
                raise Overloaded(
                    f"{self._name}: {self._units} events wait to be written, and the queue holds "
                    f"{self._queue}; try again later, or with fewer events at once"
                )
            self._waiting.append((work, units, done))
            self._units += units
            self._changed.notify()
        try:
            return done.result(timeout)
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._name}: not written within {timeout:g} s; the disk hangs or another "
                "process holds the file. Send the same again later"
            ) from None

    def close(self, timeout: float) -> None:
        """Take no more, carry out what waits, call `finish`; waits at most `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while group := self._next():
            started = time.monotonic()
            try:
                results = self._commit([work for work, _, _ in group])
            except BaseException as e:
                for _, _, done in group:
                    done.set_exception(e)
            else:
                for (_, _, done), result in zip(group, results, strict=True):
                    done.set_result(result)
            self._took = time.monotonic() - started
        self._finish()

    def _next(self) -> list[tuple[Work, int, Future]]:
        """The works of one commit; waits for the first. Empty when closed and all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            # Those just answered mostly come again: a tenth of a commit's time is worth it.
            self._changed.wait_for(
                lambda: len(self._waiting) >= self._last or self._closed, self._took / 10
            )
            group, units = [], 0
            while self._waiting and (not group or units + self._waiting[0][1] <= self._group):
                group.append(self._waiting.popleft())
                units += group[-1][1]
            self._units -= units
            self._last = len(group)
            return group
