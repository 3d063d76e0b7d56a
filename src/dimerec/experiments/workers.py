"""Processes that are replaced after some tasks: those that train grow with each run."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any


class Workers:
    """Some processes, each doing so many tasks at most before another takes its place.

    `ProcessPoolExecutor(max_tasks_per_child=...)` may wait for ever when a process has done its
    share (CPython gh-115634), and ends as a whole when one is killed. Here each process is a
    pool of its own behind a thread, so that a killed one costs its task alone. All of them end
    when the process that made them does, however it ends.
    """

    def __init__(self, number: int, tasks: int) -> None:
        self._tasks = tasks
        self._context = multiprocessing.get_context("spawn")
        self._threads = ThreadPoolExecutor(number)
        self._own = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, function: Callable[..., Any], *given: Any) -> Future:
        """As that of an executor; BrokenProcessPool where the process was killed."""
        return self._threads.submit(self._do, function, given)

    def _do(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        own = self._own
        if not getattr(own, "left", 0):
            if old := getattr(own, "pool", None):
                old.shutdown()
            own.pool = ProcessPoolExecutor(1, self._context, initializer=_end_with_parent)
            own.left = self._tasks
            self._pools.append(own.pool)
        own.left -= 1
        try:
            return own.pool.submit(function, *given).result()
        except BrokenProcessPool:
            own.left = 0
            raise

    def shutdown(self) -> None:
        """Wait for the tasks that have begun; no other begins."""
        self._threads.shutdown(cancel_futures=True)
        for pool in self._pools:
            pool.shutdown()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
