"""Killed processes: what was acknowledged is there afterwards, and nothing is there by halves."""

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimerec.serving.history import HistoryStore, MemoryStore, open_store
from tests.tools import history_writer
from tests.tools.history_writer import STEPS, USERS, batch
from tests.tools.redis_server import RedisServer

WRITER = [sys.executable, "-m", history_writer.__name__]
ALL = 1_000_000
CALLS = "pwrite64,fdatasync,ftruncate,unlink"
strace = pytest.mark.skipif(
    not shutil.which("strace") or subprocess.run(["strace", "-qq", "true"]).returncode != 0,
    reason="strace is not installed, or may not trace here",
)


def acknowledged(output: str) -> set[tuple[str, int, int]]:
    lines = [line.split() for line in output.splitlines() if line.startswith("ok ")]
    return {(round, int(thread), int(number)) for _, round, thread, number in lines}


def check(store: HistoryStore, known: set[tuple[str, int, int]]) -> None:
    """All that was acknowledged is there, once; what else is there, is there whole."""
    items = {user: store.read("t", user, ALL) for user in USERS}
    assert items["a"] == items["b"] == items["c"]
    assert len(items["a"]) >= len(known)
    events = [event for which in sorted(known) for event in batch(*which)]
    for start in range(0, len(events), 1000):
        assert not any(store.append("t", events[start : start + 1000]))
    assert store.read("t", "a", ALL) == items["a"]


def killed_rounds(url: str, rounds: int, seed: int) -> set[tuple[str, int, int]]:
    """Writers on one store, one after the other, each killed while it writes: what they said."""
    known: set[tuple[str, int, int]] = set()
    rng = random.Random(seed)
    for round in range(rounds):
        process = subprocess.Popen(
            [*WRITER, url, str(round), "4", "100000"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        # at any time after it began, or after so many commits, however long they take
        awaited = [process.stdout.readline() for _ in range(9 * (round % 2))]
        killer = threading.Timer(rng.uniform(0.01, 0.3), process.kill)
        killer.start()
        output = "".join(awaited) + process.stdout.read()
        assert process.wait() == -9
        process.stdout.close()
        known |= acknowledged(output)
    assert len(known) > 4 * rounds  # nine in every second round at least
    return known


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, rounds: int, figure):
    url = f"sqlite:///{tmp_path}/h.db?keep={ALL}"
    known = killed_rounds(url, rounds, rounds)
    store = open_store(url)
    check(store, known)
    found = len(store.read("t", "a", ALL))
    figure(
        "{kills} kills: {known:,} deliveries acknowledged, {found:,} there afterwards, these among "
        "them",
        kills=rounds,
        known=len(known),
        found=found,
    )
    store.close()


def more(output: list[str], count: int) -> None:
    """Wait until so many more commits were acknowledged than are now."""
    start, end = len(output), time.monotonic() + 120
    while sum(line.startswith("ok ") for line in output[start:]) < count:
        assert time.monotonic() < end, output[-10:]
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_kill_9_of_the_redis_server(
    server: RedisServer, rounds: int
):
    """The server is killed under the writer, which tries again until there is one."""
    url = f"{server.url}?keep={ALL}"
    with subprocess.Popen(
        [*WRITER, url, "0", "4", "100000"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        output: list[str] = []
        reader = threading.Thread(target=lambda: output.extend(process.stdout))
        reader.start()
        for round in range(rounds):
            time.sleep(0.2)
            if round % 2:  # else perhaps before it is found to be there again
                more(output, 10)
            server.kill()
            server.start()
        more(output, 10)
        process.kill()
        reader.join()
    assert any(line.startswith("no redis://") for line in output)
    known = acknowledged("".join(output))
    assert len(known) > 4 * rounds
    store = open_store(url)
    check(store, known)
    store.close()


def states() -> list[list]:
    """What is read after the first n steps, for each n."""
    model = MemoryStore()
    out = [[[], []]]
    for step in STEPS:
        history_writer.do(model, step)
        out.append([model.read("t", user, 999) for user in ("u", "v")])
    return out


def killed_at(folder: Path, call: str, when: int) -> bool:
    """Do the steps in a process killed at the `when`th `call`; False when it got through."""
    folder.mkdir()
    url = f"sqlite:///{folder}/h.db"
    inject = f"inject={call}:signal=SIGKILL:when={when}"
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
    done = subprocess.run([*words, *WRITER, url, "steps"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == (0 if "closed" in lines else -9), done.stderr
    told = max((int(line) for line in lines if line.isdigit()), default=0)
    store = open_store(url)
    found = [store.read("t", user, 999) for user in ("u", "v")]
    assert found in states()[told : told + 2], f"{call} {when}: neither old nor new"
    for step in STEPS:  # and it goes on: all is done again, and ends as ever
        history_writer.do(store, step)
    store.close()
    return "closed" not in lines


@strace
@pytest.mark.parametrize(
    ("call", "when"), [("pwrite64", 20), ("pwrite64", 60), ("fdatasync", 7), ("ftruncate", 2)]
)
def test_killed_in_a_commit_or_checkpoint(tmp_path: Path, call: str, when: int):
    assert killed_at(tmp_path / "there", call, when)


@strace
@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS.split(","))
def test_killed_at_every_call_it_is_old_or_new_never_mixed(tmp_path: Path, call: str, figure):
    when = 1
    while killed_at(tmp_path / str(when), call, when):
        when += 1
    least = {"pwrite64": 40, "fdatasync": 12, "ftruncate": 2, "unlink": 2}
    assert when > least[call]
    figure("{kills} kills, one at each call of {calls} kinds: none mixed", kills=when - 1, calls=1)
