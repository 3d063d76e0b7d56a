import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.data.splits import Protocol, Split, split, times_are_positions
from dimerec.errors import DataError
from dimerec.vocabulary import Id, Vocabulary
from tests.data.logs import flat

timelines = st.lists(
    st.lists(st.integers(1, 60), min_size=1, max_size=8).map(sorted), min_size=3, max_size=25
)


def cut(
    protocol: Protocol, times: list[list[int]], users: list[Id] | None = None, given=None
) -> Split:
    offsets, values = flat(times)
    names = Vocabulary(users or [f"u{r:03}" for r in range(len(times))])
    return split(protocol, offsets=offsets, times=values, users=names, given=given)


def parts(result: Split, lengths: list[int]) -> list[str]:
    """The part of every whole user."""
    out = []
    for t, v, n in zip(result.train_end, result.valid_end, lengths, strict=True):
        out.append({(n, n): "train", (0, n): "valid", (0, 0): "test"}[t, v])
    return out


def test_users_8_1_1_counts_and_is_whole() -> None:
    got = parts(cut(Protocol(name="users-8-1-1"), [[1, 2]] * 100), [2] * 100)
    assert [got.count(p) for p in ("train", "valid", "test")] == [80, 10, 10]
    other = parts(cut(Protocol(name="users-8-1-1", seed=1), [[1, 2]] * 100), [2] * 100)
    assert got != other
    assert got == parts(cut(Protocol(name="users-8-1-1"), [[1, 2]] * 100), [2] * 100)


def test_users_8_1_1_does_not_know_the_files_order() -> None:
    ids: list[Id] = list(range(40))
    shuffled = np.random.default_rng(0).permutation(40).tolist()
    first = parts(cut(Protocol(name="users-8-1-1"), [[1, 2]] * 40, ids), [2] * 40)
    second = parts(cut(Protocol(name="users-8-1-1"), [[1, 2]] * 40, shuffled), [2] * 40)
    assert dict(zip(shuffled, second, strict=True)) == dict(zip(ids, first, strict=True))


def test_every_part_gets_a_user() -> None:
    got = parts(cut(Protocol(name="users-8-1-1"), [[1, 2]] * 3), [2] * 3)
    assert sorted(got) == ["test", "train", "valid"]
    with pytest.raises(DataError, match="2 users are too few"):
        cut(Protocol(name="users-8-1-1"), [[1, 2]] * 2)


def test_a_part_without_a_share_is_empty() -> None:
    protocol = Protocol(name="users-8-1-1", fractions=(0.5, 0.0, 0.5))
    got = parts(cut(protocol, [[1, 2]] * 10), [2] * 10)
    assert [got.count(p) for p in ("train", "valid", "test")] == [5, 0, 5]


@given(ids=st.lists(st.integers(-50, 10**12), min_size=3, max_size=40, unique=True))
def test_sessions_in_order_go_by_number_whatever_the_order_of_the_file(ids: list[int]) -> None:
    got = parts(cut(Protocol(name="sessions-in-order"), [[0, 1]] * len(ids), ids), [2] * len(ids))
    part = dict(zip(ids, got, strict=True))
    held = max(1, math.floor(len(ids) / 10 + 0.5))
    wanted = ["train"] * (len(ids) - 2 * held) + ["valid"] * held + ["test"] * held
    assert [part[i] for i in sorted(ids)] == wanted


def test_sessions_in_order_need_numbers() -> None:
    with pytest.raises(DataError, match="'u000' is no number: take users-8-1-1"):
        cut(Protocol(name="sessions-in-order"), [[0, 1]] * 4)


@given(times=timelines)
def test_sessions_by_time_against_sorting(times: list[list[int]]) -> None:
    if times_are_positions(*flat(times)):
        return
    result = cut(Protocol(name="sessions-by-time"), times)
    n = len(times)
    held = max(1, math.floor(n / 10 + 0.5))
    order = sorted(range(n), key=lambda r: (times[r][-1], r))
    wanted = ["train"] * n
    for at, r in enumerate(order):
        if at >= n - 2 * held:
            wanted[r] = "valid" if at < n - held else "test"
    got = parts(result, [len(t) for t in times])
    assert got == wanted
    last = {p: [t[-1] for t, g in zip(times, got, strict=True) if g == p] for p in set(got)}
    assert max(last["train"]) <= min(last["valid"]) <= max(last["valid"]) <= min(last["test"])


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9))
def test_leave_one_out(lengths: list[int]) -> None:
    times = [[5] * n for n in lengths]
    result = cut(Protocol(name="leave-one-out"), times)
    for n, t, v in zip(lengths, result.train_end, result.valid_end, strict=True):
        assert (t, v) == ((n, n) if n < 3 else (n - 2, n - 1))


@given(times=timelines, low=st.integers(2, 60), more=st.integers(0, 20))
def test_global_time_with_given_cuts(times: list[list[int]], low: int, more: int) -> None:
    if times_are_positions(*flat(times)) or not any(t < low for s in times for t in s):
        return
    result = cut(Protocol(name="global-time", cuts=(low, low + more)), times)
    for s, t, v in zip(times, result.train_end, result.valid_end, strict=True):
        assert all(x < low for x in s[:t])
        assert all(low <= x < low + more for x in s[t:v])
        assert all(x >= low + more for x in s[v:])
    assert result.protocol.cuts == (low, low + more)


def test_global_time_takes_the_quantiles() -> None:
    times = [[10 * (100 * u + k) for k in range(100)] for u in range(10)]
    result = cut(Protocol(name="global-time"), times)
    assert result.protocol.cuts == (8000, 9000)
    assert result.train_end.tolist() == [100] * 8 + [0, 0]
    assert result.valid_end.tolist() == [100] * 9 + [0]


def test_all_events_at_one_time_leave_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match="global-time leaves no training event"):
        cut(Protocol(name="global-time"), [[7, 7], [7]])


def test_given_parts() -> None:
    wanted = ["test", "train", "valid", "train"]
    mapping = {f"u{r:03}": p for r, p in enumerate(wanted)} | {"stranger": "test"}
    result = cut(Protocol(name="given"), [[1, 2, 3]] * 4, given=mapping)
    assert parts(result, [3] * 4) == wanted


def test_given_without_validation_carves_a_tenth_of_training() -> None:
    mapping = {f"u{r:03}": "test" if r % 3 == 0 else "train" for r in range(60)}
    got = parts(cut(Protocol(name="given"), [[1, 2]] * 60, given=mapping), [2] * 60)
    assert [got.count(p) for p in ("train", "valid", "test")] == [36, 4, 20]
    assert all((g == "test") == (r % 3 == 0) for r, g in enumerate(got))
    again = parts(cut(Protocol(name="given", seed=5), [[1, 2]] * 60, given=mapping), [2] * 60)
    assert again != got


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (None, "needs a split file"),
        ({"u000": "train"}, "no part for 1 users, 'u001' among them"),
        ({"u000": "train", "u001": "holdout"}, "'u001' into 'holdout'"),
        ({"u000": "test", "u001": "valid"}, "leaves no training event"),
    ],
)
def test_given_is_checked(mapping, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cut(Protocol(name="given"), [[1, 2], [3]], given=mapping)


@pytest.mark.parametrize("name", ["sessions-by-time", "global-time"])
def test_protocols_of_time_need_times(name) -> None:
    with pytest.raises(DataError, match=f"{name} needs event times"):
        cut(Protocol(name=name), [[0, 1, 2], [0], [0, 1]])


@pytest.mark.parametrize(
    ("times", "positions"),
    [
        ([[0, 1, 2], [0]], True),
        ([[0], [0]], True),
        ([[0, 1, 3], [0]], False),
        ([[0, 1], [1]], False),
        ([[5, 6], [7]], False),
        ([[0, 0]], False),
    ],
)
def test_positions_are_told_from_times(times: list[list[int]], positions: bool) -> None:
    assert times_are_positions(*flat(times)) is positions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "random"}, "no protocol 'random'"),
        ({"name": "users-8-1-1", "fractions": (0.8, 0.1, 0.2)}, "not shares summing to 1"),
        ({"name": "users-8-1-1", "fractions": (1.1, -0.1, 0.0)}, "not shares summing to 1"),
        ({"name": "global-time", "cuts": (5, 4)}, "first is after the second"),
    ],
)
def test_protocols_are_checked(wrong: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Protocol(**wrong)
