"""Work side by side: the same results for any number of processes, and every way it may fail."""

import multiprocessing
import os

import pytest

from dimerec.errors import ConfigError, DimeRecError
from dimerec.experiments.processes import side_by_side


def double(tell, value: int) -> int:
    tell(0, 1, "started")
    if value == 13:
        raise ConfigError("thirteen is refused")
    if value == 14:
        raise ValueError("fourteen")
    if value == 15:
        os._exit(9)
    if value == 16:
        raise KeyboardInterrupt
    tell(1, 1, "done")
    return 2 * value


def test_here_and_elsewhere_give_the_same():
    work = {"a": (1,), "b": (2,), "c": (3,)}
    for jobs in (1, 2):
        told: list = []
        found = side_by_side(double, work, jobs, told.append)
        assert found == {"a": 2, "b": 4, "c": 6} and list(found) == list(work)
        for name in work:
            mine = [note for note in told if note[0] == name]
            assert mine == [(name, 0, 1, "started"), (name, 1, 1, "done")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (13, "b: thirteen is refused"),
        (14, "b: ValueError: fourteen"),
        (15, "b ended without a word"),
    ],
)
def test_a_failure_elsewhere_is_named(bad: int, message: str, capfd):
    with pytest.raises(DimeRecError, match=message):
        side_by_side(double, {"a": (1,), "b": (bad,)}, 2, lambda note: None)
    capfd.readouterr()  # the traceback of the process


def test_a_failure_here_is_the_error_itself():
    with pytest.raises(ConfigError, match="thirteen"):
        side_by_side(double, {"b": (13,)}, 1, lambda note: None)


def test_an_interrupt_elsewhere_is_one_here():
    with pytest.raises(KeyboardInterrupt):
        side_by_side(double, {"a": (16,), "b": (2,)}, 2, lambda note: None)


def test_an_interrupt_of_the_parent_ends_the_processes():
    def interrupt(note) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(double, {"a": (1,), "b": (2,)}, 2, interrupt)
    assert not multiprocessing.active_children()
