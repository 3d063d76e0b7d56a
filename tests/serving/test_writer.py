"""Group commit: all that waits becomes one commit, in order, within bounds."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from dimerec.errors import Overloaded, StoreUnavailable
from dimerec.serving.writer import GroupWriter


class Disk:
    """A commit that waits until it is let go, and writes down what it was given."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.finished = False

    def commit(self, works: Sequence[str]) -> list[str]:
        self.groups.append(list(works))
        self.begun.release()
        assert self.go.acquire(timeout=20)
        if "bad" in works:
            raise StoreUnavailable("the disk is gone")
        return [work.upper() for work in works]

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def writer(disk: Disk) -> Iterator[GroupWriter]:
    writer = GroupWriter(disk.commit, disk.finish, name="disk", queue=6, group=4)
    yield writer
    for _ in range(20):
        disk.go.release()
    writer.close(20.0)
    assert disk.finished


@pytest.fixture
def hand_in(writer: GroupWriter) -> Iterator[Callable[..., Future]]:
    """Hand in a work from another thread; returns when it waits behind a commit, with what it
    will get. The first one does not wait."""
    with ThreadPoolExecutor(20) as threads:

        def hand_in(work: str, units: int = 1, first: bool = False) -> Future:
            before = len(writer._waiting)
            future = threads.submit(writer.do, work, units, 20.0)
            while not first and len(writer._waiting) == before and not future.done():
                threading.Event().wait(0.001)
            return future

        yield hand_in


def test_who_waits_behind_a_commit_shares_the_next(disk: Disk, writer, hand_in):
    first = start(disk, hand_in)
    others = [hand_in(work) for work in "bcdef"]
    for _ in range(3):
        disk.go.release()
    assert [f.result(20) for f in (first, *others)] == list("ABCDEF")
    assert disk.groups == [["a"], ["b", "c", "d", "e"], ["f"]]  # at most four units to a commit


def start(disk: Disk, hand_in: Callable[..., Future]) -> Future:
    """A first work, whose commit has begun."""
    future = hand_in("a", first=True)
    assert disk.begun.acquire(timeout=20)
    return future


def test_what_goes_wrong_is_told_to_all_of_the_commit_and_to_no_other(disk, writer, hand_in):
    first = start(disk, hand_in)
    others = [hand_in("b"), hand_in("bad"), hand_in("c", 4)]
    for _ in range(3):
        disk.go.release()
    assert first.result(20) == "A"
    for future in others[:2]:
        with pytest.raises(StoreUnavailable, match="the disk is gone"):
            future.result(20)
    assert others[2].result(20) == "C"


def test_the_queue_is_bounded(disk, writer, hand_in):
    first = start(disk, hand_in)
    waiting = [hand_in("b", 3), hand_in("c", 3)]
    with pytest.raises(Overloaded, match="disk: 6 events wait.*holds 6"):
        writer.do("d", 1, 20.0)
    for _ in range(3):
        disk.go.release()
    assert [f.result(20) for f in (first, *waiting)] == ["A", "B", "C"]
    assert disk.groups == [["a"], ["b"], ["c"]]
    disk.go.release()
    assert writer.do("d", 100, 20.0) == "D"  # larger than the queue, but nothing waits


def test_no_one_waits_for_ever(disk, writer):
    with pytest.raises(StoreUnavailable, match="disk: not written within 0.05 s"):
        writer.do("a", 1, 0.05)


def test_closing_carries_out_what_waits_and_takes_no_more(disk, writer, hand_in):
    futures: list[Any] = [start(disk, hand_in), hand_in("b")]
    closing = threading.Thread(target=writer.close, args=(20.0,))
    closing.start()
    for _ in range(2):
        disk.go.release()
    closing.join()
    assert [f.result(20) for f in futures] == ["A", "B"] and disk.finished
    with pytest.raises(StoreUnavailable, match="closed"):
        writer.do("c", 1, 20.0)
