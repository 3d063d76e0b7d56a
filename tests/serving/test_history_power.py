"""Power loss: what was acknowledged is there afterwards, and nothing is there by halves."""

import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dimerec.errors import StoreUnavailable
from dimerec.serving import sqlite
from dimerec.serving.history import Event, MemoryStore
from dimerec.serving.sqlite import SqliteStore
from tests.tools.power_loss import Record, recorded

USERS = "abc"
KEEP = 4
FATES = ("none", "all", "some", "torn")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: a thousand power losses are many syncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def steps(seed: int, count: int) -> list[list[Event] | str]:
    """What is asked of the store, one after the other: events to append, a user to erase."""
    rng, out, number = random.Random(seed), [], 0
    for _ in range(count):
        if rng.random() < 0.1:
            out.append(rng.choice(USERS))
            continue
        events = []
        for _ in range(rng.randint(1, 6)):
            number += rng.random() < 0.8  # else an event that was there already
            events.append(Event(USERS[number % 3], "x" * 400 + str(number), number, f"e{number}"))
        out.append(events)
    return out


def do(store, step: list[Event] | str) -> None:
    if isinstance(step, str):
        store.erase("t", step)
    else:
        store.append("t", step)


def look(store) -> list:
    return [store.read("t", user, 99) for user in USERS]


def history_of(todo: list) -> list[list]:
    """What must be read after the first n steps, for each n, from the store in memory."""
    model = MemoryStore(KEEP)
    out = [look(model)]
    for step in todo:
        do(model, step)
        out.append(look(model))
    return out


def record(folder: Path, monkeypatch, todo: list, pages: int) -> Record:
    """Run the steps on the recorded disk, with a checkpoint every few pages of the log."""
    written = Record()
    connect = recorded(written, f"shim {folder.name}")

    def checkpointing(path: str):
        connection = connect(path)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "connect", checkpointing)
        store = SqliteStore(folder / "h.db", KEEP)
        for number, step in enumerate(todo, start=1):
            do(store, step)
            written.note("mark", "", number)
        store.close()
    return written


def broken_promises(folder: Path, written: Record, todo: list, moments: Iterable[int]) -> list[str]:
    """What a power loss at each of the moments breaks: "corrupt", "lost", "mixed", "forgot"."""
    wanted, out = history_of(todo), []
    rng = random.Random(0)
    for moment in moments:
        done = sum(kind == "mark" for kind, *_ in written.operations[:moment])
        for fate in FATES:
            place = folder / "lost"
            written.disk(moment, place, fate, rng)
            try:
                store = SqliteStore(place / "h.db", KEEP)
                found = look(store)
                known = [event for step in todo[:done] if step not in list(USERS) for event in step]
                again = any(store.append("t", known))
                store.close()
            except StoreUnavailable as e:
                out.append(f"corrupt: {e}")
            else:
                # what is on its way at that moment may have arrived, whole
                if found not in wanted[done : done + 2]:
                    out.append(f"{'lost' if found in wanted else 'mixed'} at {moment}, {fate} kept")
                elif again:
                    out.append(f"forgot an event id at {moment}, {fate} kept")
            shutil.rmtree(place)
    return out


def test_what_was_acknowledged_survives_a_power_loss(folder: Path, monkeypatch):
    todo = steps(0, 30)
    written = record(folder, monkeypatch, todo, pages=30)
    assert len({name for _, name, *_ in written.operations} - {""}) == 3  # file, journal, log
    moments = range(0, len(written.operations) + 1, len(written.operations) // 15)
    assert broken_promises(folder, written, todo, moments) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_survives_a_power_loss_at_any_moment(
    folder: Path, monkeypatch, seed: int, figure
):
    todo = steps(seed, 25)
    written = record(folder, monkeypatch, todo, pages=(8, 30, 1000)[seed])
    moments = range(len(written.operations) + 1)
    broken = broken_promises(folder, written, todo, moments)
    figure(
        "{losses:,} power losses: {broken} stores corrupt, mixed or short of what was acknowledged",
        losses=len(moments) * len(FATES),
        broken=len(broken),
    )
    assert broken == []


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_a_store_that_syncs_less_is_caught(folder: Path, monkeypatch, synchronous: str):
    monkeypatch.setattr(sqlite, "SYNCHRONOUS", synchronous)
    todo = steps(0, 20)
    written = record(folder, monkeypatch, todo, pages=30)
    moments = range(len(written.operations) // 2, len(written.operations), 40)
    found = {text.split()[0] for text in broken_promises(folder, written, todo, moments)}
    assert "lost" in found
