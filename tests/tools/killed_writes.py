"""Write bundles in child processes, each killed one step further; print what is left as JSON.

Run as `python -m tests.tools.killed_writes FOLDER`. A step is a line of `dimerec.files` or of
`Path.write_bytes`, so the kills fall before, between and after every file operation.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import dimerec.models
from dimerec import files
from dimerec.bundle import Bundle
from tests.tools.bundles import MODELS, write

STRIDE = 4


def killed(path: Path, replacing: bool, fatal: int) -> bool:
    """Write a bundle of seed 1 in a child killed at its step `fatal`; False when it got through."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    steps = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        code = frame.f_code
        if code.co_filename != files.__file__ and code is not Path.write_bytes.__code__:
            return None
        if event == "line":
            steps += 1
            if steps == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    enter = files.new_directory

    def traced(target: Path) -> Any:
        sys.settrace(trace)  # from here on only: tracing is slow
        return enter(target)

    files.new_directory = traced
    write(path, seed=1, overwrite=replacing)
    os._exit(0)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dimerec.models.__path__.append(MODELS)
    write(folder / "old")
    attempts = []
    for replacing in (False, True):
        fatal, was_killed = 1, True
        while was_killed:
            path = folder / f"{replacing}{fatal}"
            if replacing:
                shutil.copytree(folder / "old", path)
            was_killed = killed(path, replacing, fatal)
            there = Bundle.open(path).config.seed if path.exists() else "nothing"
            attempts.append({"replacing": replacing, "killed": was_killed, "there": there})
            fatal += STRIDE
    print(json.dumps(attempts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
