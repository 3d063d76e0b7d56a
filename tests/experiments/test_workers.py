"""Processes that come and go: every task is done, whoever does it and whoever is killed."""

import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from dimerec.experiments.workers import Workers


def square(n: int) -> tuple[int, int]:
    return n * n, os.getpid()


def fall(n: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return n


def held_up(gate: Path) -> str:
    while not gate.exists():
        time.sleep(0.01)
    return gate.name


def broken(n: int) -> int:
    raise ValueError(f"no {n}")


@pytest.mark.timeout(120)
def test_a_process_is_replaced_after_its_share() -> None:
    workers = Workers(1, 2)
    done = [workers.submit(square, n) for n in range(5)]
    values = [future.result() for future in done]
    workers.shutdown()
    assert [v for v, _ in values] == [0, 1, 4, 9, 16]
    pids = [pid for _, pid in values]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] and os.getpid() not in pids


@pytest.mark.timeout(120)
def test_a_killed_process_costs_its_task_alone() -> None:
    workers = Workers(1, 10)
    before, lost, after, wrong = (workers.submit(f, 3) for f in (square, fall, square, broken))
    assert before.result()[0] == after.result()[0] == 9
    with pytest.raises(BrokenProcessPool):
        lost.result()
    with pytest.raises(ValueError, match="no 3"):
        wrong.result()
    workers.shutdown()


@pytest.mark.timeout(120)
def test_shut_down_it_ends_what_has_begun_and_begins_nothing(tmp_path: Path) -> None:
    workers = Workers(1, 10)
    first, second = (workers.submit(held_up, tmp_path / name) for name in ("one", "two"))
    while not first.running():
        time.sleep(0.01)
    shutting = threading.Thread(target=workers.shutdown)
    shutting.start()
    while not second.cancelled():
        time.sleep(0.01)
    (tmp_path / "one").touch()
    shutting.join()
    assert first.result() == "one"
