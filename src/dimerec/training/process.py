"""What a run asks of its process: the device, torch's settings, and a quiet end on Ctrl-C."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

from dimerec.errors import ConfigError

log = logging.getLogger(__name__)


def device(name: str) -> torch.device:
    """The device a configuration names; ConfigError when it is not there."""
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    chosen = torch.device(name)
    if chosen.type == "cuda" and not (there and (chosen.index or 0) < torch.cuda.device_count()):
        raise ConfigError(f"training.device is {name}, which is not there; use auto or cpu")
    return chosen


def describe(device: torch.device) -> str:
    """Name of the device, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextmanager
def settings(device: torch.device, threads: int | None) -> Iterator[None]:
    """Torch's global settings for the run, put back after it.

    On a CPU, scatters with accumulation use atomics on several threads, in any order, unless
    deterministic algorithms are asked for; an exact resume needs them.
    """
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        deterministic.fill_uninitialized_memory,  # pyright: ignore[reportAttributeAccessIssue]
    )
    try:
        if threads:
            torch.set_num_threads(threads)
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
            deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        deterministic.fill_uninitialized_memory = before[2]  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event set by SIGINT or SIGTERM; a second one acts as usual, at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may handle signals
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.getsignal(n) for n in names}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        log.info("stopping after this step; once more stops at once")
        event.set()
        put_back()

    for number in names:
        signal.signal(number, note)
    try:
        yield event
    finally:
        put_back()
