from pathlib import Path

import numpy as np
import pytest

from dimerec.data.audit import Audit, audit
from dimerec.data.dataset import Dataset
from dimerec.data.findings import Finding
from dimerec.data.splits import PROTOCOLS, Protocol, split
from dimerec.vocabulary import Id, Vocabulary
from tests.data.logs import flat, make


def users(seed: int = 0, number: int = 60, items: int = 40) -> tuple[list, list]:
    """Sequences without immediate repeats, and ascending times hours apart."""
    rng = np.random.default_rng(seed)
    sequences, times = [], []
    for n in rng.integers(6, 20, number):
        sequences.append(rng.permutation(np.arange(1, items + 1))[:n].tolist())
        times.append((10**9 + np.sort(rng.choice(10**4, n, replace=False)) * 3600).tolist())
    return sequences, times


def cut(path: Path, sequences: list, times: list, name) -> Dataset:
    """A dataset really cut by the protocol `name`."""
    offsets, values = flat(times)
    numbers: list[Id] = list(range(len(times)))
    names = Vocabulary(numbers)
    parts = ["train"] * len(times) + ["valid"] * 5 + ["test"] * 5
    given: dict[Id, str] = dict(enumerate(parts[-len(times) :]))
    ends = split(Protocol(name=name), offsets=offsets, times=values, users=names, given=given)
    pairs = list(zip(ends.train_end.tolist(), ends.valid_end.tolist(), strict=True))
    cuts = ends.protocol.cuts
    return make(path, sequences, pairs, times=times, protocol=name, cuts=cuts, users=numbers)


def eights(number: int, n: int) -> list[tuple[int, int]]:
    """Boundaries of users of n events: the first 80 % train, the rest tests."""
    return [(n, n) if r < 0.8 * number else (0, 0) for r in range(number)]


def finding(audited: Audit, name: str) -> Finding:
    (found,) = [f for f in audited.findings if f.name == name]
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_clean_data_never_fails(tmp_path: Path, name: str) -> None:
    dataset = cut(tmp_path / "d", *users(), name)
    result = audit(dataset)
    assert [f.name for f in result.findings if f.level == "fail"] == []
    assert (result.dataset, result.digest) == ("small", dataset.digest)
    assert {f.name for f in result.findings} == {
        *("content", "order", "boundaries", "duplicates", "future", "ties", "queries", "repeats"),
        *("cold", "drift", "bots"),
    }
    for quiet in ("content", "order", "boundaries", "duplicates", "ties", "repeats", "bots"):
        assert finding(result, quiet).level == "ok"


def test_no_times_no_checks_of_time(tmp_path: Path) -> None:
    result = audit(make(tmp_path / "d", [[1, 2, 3]] * 5, eights(5, 3)))
    assert {"future", "ties"}.isdisjoint(f.name for f in result.findings)


def test_a_changed_file_fails(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", [[1, 2, 3]] * 5, eights(5, 3))
    np.save(dataset.path / "times.npy", np.arange(15))
    result = audit(Dataset.open(dataset.path))
    assert result.level == "fail"
    assert "card.json's digest" in finding(result, "content").message


def test_times_going_back_fail(tmp_path: Path) -> None:
    sequences, times = users()
    times[3][4], times[3][2] = times[3][2], times[3][4]
    times[7] = times[7][::-1]
    ends = [(len(s), len(s)) for s in sequences[:-1]] + [(0, 0)]
    found = finding(audit(make(tmp_path / "d", sequences, ends, times=times)), "order")
    assert found.level == "fail"
    # the swap puts 4 before 3 before 2: two steps back
    assert found.numbers == {"events": 2 + len(times[7]) - 1, "users": 2}


@pytest.mark.parametrize(
    ("protocol", "pair", "fails"),
    [
        ("users-8-1-1", (4, 4), True),  # an evaluation user who trains
        ("users-8-1-1", (4, 6), True),
        ("users-8-1-1", (0, 3), True),  # both validates and tests
        ("users-8-1-1", (0, 6), False),
        ("sessions-by-time", (4, 5), True),
        ("given", (4, 5), True),
        ("leave-one-out", (4, 5), False),
        ("leave-one-out", (5, 5), True),
        ("leave-one-out", (6, 6), True),
        ("leave-one-out", (3, 5), True),
    ],
)
def test_users_cut_against_their_protocol_fail(tmp_path: Path, protocol, pair, fails) -> None:
    usual = [(4, 5)] * 4 if protocol == "leave-one-out" else [(6, 6)] * 3 + [(0, 0)]
    dataset = make(tmp_path / "d", [[1, 2, 3, 4, 5, 6]] * 5, [*usual, pair], protocol=protocol)
    found = finding(audit(dataset), "boundaries")
    assert found.level == ("fail" if fails else "ok")
    assert found.numbers == {"users": int(fails)}
    assert ("'u4'" in found.message) is fails


def test_short_users_may_stay_whole_in_leave_one_out(tmp_path: Path) -> None:
    dataset = cut(
        tmp_path / "d", [[1, 2], [3], [1, 2, 3]], [[1, 9], [5], [2, 4, 6]], "leave-one-out"
    )
    assert finding(audit(dataset), "boundaries").level == "ok"


def test_events_across_a_global_cut_fail(tmp_path: Path) -> None:
    sequences, times = users()
    good = cut(tmp_path / "good", sequences, times, "global-time")
    assert finding(audit(good), "future").level == "ok"
    ends = list(zip(good.train_end.tolist(), good.valid_end.tolist(), strict=True))
    row = next(r for r, (t, v) in enumerate(ends) if t < v < len(sequences[r]))
    (t, v), cuts = ends[row], good.card.protocol.cuts
    cases = {"train": ((t + 1, v), 1), "valid": ((t, v + 1), 1), "test": ((t, t), v - t)}
    for name, (pair, wrong) in cases.items():
        doctored = [*ends[:row], pair, *ends[row + 1 :]]
        bad = make(
            tmp_path / name, sequences, doctored, times=times, protocol="global-time", cuts=cuts
        )
        found = finding(audit(bad), "future")
        assert (found.level, found.numbers) == ("fail", {"events": wrong})


@pytest.mark.parametrize(
    ("ends", "wrong"),
    [
        ([(2, 2), (2, 2), (0, 2), (0, 0)], 0),
        ([(2, 2), (0, 2), (2, 2), (0, 0)], 1),  # a training session after a validation session
        ([(0, 0), (2, 2), (2, 2), (0, 2)], 3),  # everything after the test session
        ([(2, 2), (2, 2), (0, 0), (0, 2)], 1),
    ],
)
def test_sessions_out_of_time_fail(tmp_path: Path, ends, wrong: int) -> None:
    times = [[10, 20], [11, 30], [5, 40], [1, 50]]  # in order of their last event
    dataset = make(tmp_path / "d", [[1, 2]] * 4, ends, times=times, protocol="sessions-by-time")
    found = finding(audit(dataset), "future")
    assert (found.level, found.numbers) == ("fail" if wrong else "ok", {"sessions": wrong})


@pytest.mark.parametrize(("ends", "wrong"), [([(2, 2), (2, 2), (0, 2), (0, 0)], 0),
                                             ([(2, 2), (0, 2), (2, 2), (0, 0)], 1)])  # fmt: skip
def test_sessions_out_of_order_fail(tmp_path: Path, ends, wrong: int) -> None:
    dataset = make(
        tmp_path / "d", [[1, 2]] * 4, ends, protocol="sessions-in-order", users=[7, 8, 9, 11]
    )
    found = finding(audit(dataset), "future")
    assert (found.level, found.numbers) == ("fail" if wrong else "ok", {"sessions": wrong})


def test_protocols_without_time_warn_of_the_future(tmp_path: Path) -> None:
    times = [[1, 2], [3, 9], [5, 40]]
    dataset = make(tmp_path / "d", [[1, 2]] * 3, [(2, 2), (2, 2), (0, 0)], times=times)
    found = finding(audit(dataset), "future")
    assert (found.level, found.numbers) == ("warn", {"share": 0.5})  # 5 is older than 9


def test_duplicate_sessions_across_splits_fail(tmp_path: Path) -> None:
    sequences, _ = users()
    ends = [(len(s), len(s)) for s in sequences[:-1]] + [(0, 0)]
    assert finding(audit(make(tmp_path / "a", sequences, ends)), "duplicates").level == "ok"
    sequences[-1] = sequences[4]
    ends[-1] = (0, len(sequences[4]))
    found = finding(audit(make(tmp_path / "b", sequences, ends)), "duplicates")
    assert found.level == "fail"
    assert found.numbers["twins"] == found.numbers["twins_of_5_items"] == 1
    assert found.numbers["share_of_5_items"] == 1.0
    # the same items in another order are another session
    sequences[-1] = sequences[4][::-1]
    assert finding(audit(make(tmp_path / "c", sequences, ends)), "duplicates").level == "ok"


def test_a_rare_long_twin_warns(tmp_path: Path) -> None:
    sequences, _ = users(number=400)
    ends = [(len(s), len(s)) for s in sequences[:200]] + [(0, 0)] * 200
    sequences[-1] = sequences[4]
    found = finding(audit(make(tmp_path / "d", sequences, ends)), "duplicates")
    assert (found.level, found.numbers["share_of_5_items"]) == ("warn", 1 / 200)


def test_short_sessions_repeat_naturally(tmp_path: Path) -> None:
    sequences = [[1, 2], [1, 2, 1, 2, 1, 2, 1, 2]] * 10  # long, but of two items
    ends = [(len(s), len(s)) for s in sequences[:16]] + [(0, 0)] * 4
    found = finding(audit(make(tmp_path / "d", sequences, ends)), "duplicates")
    assert (found.level, found.numbers["twins"]) == ("ok", 4)


def test_the_same_session_under_two_names_fails(tmp_path: Path) -> None:
    sequences = [[1, 2, 3], [4, 5, 6], [1, 2, 3]]
    ends = [(3, 3), (3, 3), (0, 0)]
    times = [[10, 20, 30], [11, 22, 33], [10, 20, 30]]
    found = finding(audit(make(tmp_path / "a", sequences, ends, times=times)), "duplicates")
    assert (found.level, found.numbers["twins_in_time"]) == ("fail", 1)
    times[2] = [10, 20, 31]
    found = finding(audit(make(tmp_path / "b", sequences, ends, times=times)), "duplicates")
    assert (found.level, found.numbers["twins"], found.numbers["twins_in_time"]) == ("ok", 1, 0)


def test_two_events_at_the_same_times_are_chance(tmp_path: Path) -> None:
    times = [[10, 20], [11, 22], [10, 20]]
    dataset = make(tmp_path / "d", [[1, 2], [3, 4], [1, 2]], [(2, 2), (2, 2), (0, 0)], times=times)
    found = finding(audit(dataset), "duplicates")
    assert (found.level, found.numbers["twins"], found.numbers["twins_in_time"]) == ("ok", 1, 0)


def test_nothing_to_score_warns(tmp_path: Path) -> None:
    found = finding(audit(make(tmp_path / "d", [[1, 2]] * 2, [(2, 2), (0, 2)])), "queries")
    assert found.level == "warn"
    assert "test_last" in found.message
    assert found.numbers["valid_last"] == 1


def test_ties_and_repeats_are_counted_inside_users(tmp_path: Path) -> None:
    sequences = [[1, 1, 2, 3], [3, 3], [3, 4]]
    times = [[5, 5, 5, 6], [6, 7], [7, 8]]
    dataset = make(tmp_path / "d", sequences, [(4, 4), (2, 2), (0, 0)], times=times)
    assert finding(audit(dataset), "ties").numbers == {"events": 2, "share": 2 / 8}
    assert finding(audit(dataset), "repeats").numbers == {"events": 2, "share": 2 / 8}
    assert finding(audit(dataset), "ties").level == "warn"
    assert finding(audit(dataset), "repeats").level == "warn"


def test_cold_items_are_counted(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", [[1, 2], [1, 3, 3, 4], [2, 1]], [(2, 2), (0, 0), (0, 2)])
    found = finding(audit(dataset), "cold")
    assert found.level == "warn"
    assert found.numbers == {
        "valid_items": 0,
        "valid_events": 0,
        "valid_share": 0.0,
        "test_items": 2,
        "test_events": 3,
        "test_share": 0.75,
    }


def test_drift_is_told_from_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    same = rng.integers(1, 31, (100, 8)).tolist()
    moved = same[:80] + rng.integers(16, 46, (20, 8)).tolist()
    calm = finding(audit(make(tmp_path / "a", same, eights(100, 8))), "drift")
    windy = finding(audit(make(tmp_path / "b", moved, eights(100, 8))), "drift")
    assert calm.level == "ok"
    assert windy.level == "warn"
    train, test = (np.bincount(np.ravel(m), minlength=46) for m in (moved[:80], moved[80:]))
    by_hand = sum(abs(a / 640 - b / 160) for a, b in zip(train, test, strict=True)) / 2
    assert windy.numbers["total_variation"] == pytest.approx(by_hand)


def test_bots_by_number_and_by_speed(tmp_path: Path) -> None:
    sequences = [[1, 2, 3]] * 20 + [[1, 2] * 600, [1, 2] * 50, [1, 2] * 50]
    slow = list(range(10, 10_000_010, 10_000))
    times = (
        [[5, 500, 999]] * 20
        + [
            list(range(0, 1200 * 9, 9)),  # 7 a minute
            [int(1000 + 0.59 * k) for k in range(100)],  # 100 events in 58 s
            slow[:99] + [slow[99]],
        ]
    )
    dataset = make(tmp_path / "d", sequences, [(len(s), len(s)) for s in sequences], times=times)
    found = finding(audit(dataset), "bots")
    assert found.level == "warn"
    assert (found.numbers["users_too_many"], found.numbers["users_too_fast"]) == (1, 1)
    assert found.numbers["largest"] == 1200
