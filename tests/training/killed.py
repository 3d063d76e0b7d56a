"""Train in processes that are killed with SIGKILL, again and again, then to the end.

`python -m tests.training.killed DATASET OUT KILL...`, each KILL one of
`step:N` (in the middle of optimiser step N), `write:N` (just before the Nth rename of a file),
`written:N` (just after it) or `after:SECONDS` (from outside, whatever it is doing).
Prints the kills that hit before the run was at its end. Every attempt is a fork of a process that computes nothing.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import dimerec.models
from dimerec.data.dataset import Dataset
from dimerec.training import loop
from tests.training.conftest import MODELS, make_config


def arm(kind: str, when: int) -> None:
    """Make this process kill itself."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if kind == "step":
        backward = torch.Tensor.backward
        made = loop._Training.step

        def step(self: loop._Training, *args: object) -> None:
            def fatal(*a: object, **k: object) -> None:
                backward(*a, **k)
                die()

            torch.Tensor.backward = fatal if self.state.step == when else backward
            made(self, *args)

        loop._Training.step = step  # pyright: ignore[reportAttributeAccessIssue]
        return
    replace, count = os.replace, 0

    def fatal_replace(*paths: object) -> None:
        nonlocal count
        count += 1
        if count == when and kind == "write":
            die()
        replace(*paths)
        if count == when:
            die()

    os.replace = fatal_replace


def attempt(task: Callable[[], object], kill: str) -> bool:
    """Run `task` in a fork under `kill`; whether it was killed (False: it finished)."""
    kind, _, when = kill.partition(":")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if kind in ("step", "write", "written"):
                arm(kind, int(when))
            task()
            code = 0
        finally:
            os._exit(code)
    if kind == "after":
        time.sleep(float(when))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return True
    assert os.waitstatus_to_exitcode(status) == 0, status
    return False


def main() -> None:
    dataset, out, *kills = sys.argv[1:]
    dimerec.models.__path__ = [*dimerec.models.__path__, str(MODELS)]

    def task() -> object:
        opened = Dataset.open(dataset)
        return loop.train(opened, make_config(), Path(out), resume=True, progress=False)

    warm = torch.nn.Linear(2, 2)  # the optimiser imports much on first use: once, not in every fork
    warm(torch.ones(2)).sum().backward()
    torch.optim.Adam(warm.parameters(), fused=True).step()
    hit = [kill for kill in kills if attempt(task, kill)]
    assert not attempt(task, "")
    print(*hit)


if __name__ == "__main__":
    main()
