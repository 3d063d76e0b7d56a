"""Independent pieces of work side by side, each in its own process, with word of their progress."""

import multiprocessing
import os
import queue
from collections.abc import Callable, Mapping
from typing import Any

from dimerec.errors import DimeRecError

Note = tuple[str, int, int, str]  # whose, step, steps, what is being done
Work = Callable[..., Any]  # (tell, *arguments) -> result
PATIENCE = 0.2  # seconds between two looks at whether a process still lives


def side_by_side(
    work: Work,
    arguments: Mapping[str, tuple[Any, ...]],
    jobs: int,
    progress: Callable[[Note], object],
) -> dict[str, Any]:
    """`work(tell, *arguments[name])` for every name; the results by name.

    Work is taken up in the order of the names: the longest should come first. With one job
    everything runs in this process.

    Args:
        work: a module's function; it may call `tell(step, steps, what)`.
        progress: called here with the name and what was told.

    Raises:
        DimeRecError: some work failed, or its process died; the other processes are ended.
        KeyboardInterrupt: this process or one of the others was interrupted.
    """
    names = list(arguments)
    if jobs <= 1:
        return {n: work(_Tell(n, progress), *arguments[n]) for n in names}
    context = multiprocessing.get_context("spawn")
    mail = context.Queue()
    waiting = context.SimpleQueue()
    for name in [*names, *[None] * jobs]:
        waiting.put(name)
    workers = [
        context.Process(target=_work, args=(work, dict(arguments), waiting, mail), daemon=True)
        for _ in range(min(jobs, len(names)))
    ]
    results: dict[str, Any] = {}
    try:
        for worker in workers:
            worker.start()
        while len(results) < len(names):
            alive = [w.is_alive() for w in workers]
            try:
                kind, name, value = mail.get(timeout=PATIENCE)
            except queue.Empty:
                if not any(alive):
                    lost = ", ".join(n for n in names if n not in results)
                    raise DimeRecError(
                        f"the process of {lost} ended without a word, for lack of memory perhaps"
                    ) from None
                continue
            if kind == "stopped":
                raise KeyboardInterrupt
            if kind == "failed":
                raise DimeRecError(f"{name}: {value}")
            if kind == "done":
                results[name] = value
            else:
                progress((name, *value))
    finally:
        for worker in workers:
            if worker.is_alive() and len(results) < len(names):
                worker.terminate()
        for worker in workers:
            if worker.pid is not None:
                worker.join()
    return {n: results[n] for n in names}


class _Tell:
    """Passes (step, steps, what) on under a name."""

    def __init__(self, name: str, to: Callable[[Note], object]) -> None:
        self._name, self._to = name, to

    def __call__(self, step: int, steps: int, what: str) -> None:
        self._to((self._name, step, steps, what))


def _work(work: Work, arguments: dict[str, tuple[Any, ...]], waiting: Any, mail: Any) -> None:
    """What a process does: one waiting name after the other."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is the parent's to hear: it ends this process by SIGTERM
    parent = multiprocessing.parent_process()

    def told(note: Note) -> None:
        if parent is not None and not parent.is_alive():
            raise KeyboardInterrupt
        mail.put(("told", note[0], note[1:]))

    while (name := waiting.get()) is not None:
        try:
            result = work(_Tell(name, told), *arguments[name])
        except KeyboardInterrupt:
            mail.put(("stopped", name, None))
            return
        except DimeRecError as e:
            mail.put(("failed", name, str(e)))
            return
        except Exception as e:
            mail.put(("failed", name, f"{type(e).__name__}: {e}"))
            raise
        mail.put(("done", name, result))
