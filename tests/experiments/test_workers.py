"""Processes that come and go: every task is done, whoever does it and whoever is killed."""

import os
import signal
import subprocess
import sys
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


def wait_forever(told: Path) -> None:
    told.with_suffix(".part").write_text(str(os.getpid()))
    told.with_suffix(".part").rename(told)
    time.sleep(600)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc for the process's state")
def test_a_process_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        "from dimerec.experiments.workers import Workers\n"
        "from tests.experiments.test_workers import wait_forever\n"
        "if __name__ == '__main__':\n"
        f"    Workers(1, 1).submit(wait_forever, Path({str(tmp_path / 'pid')!r})).result()\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    parent = subprocess.Popen([sys.executable, str(script)], env=env)
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    assert alive(worker)
    parent.kill()
    parent.wait()
    for _ in range(200):
        if not alive(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the process went on without its parent")
