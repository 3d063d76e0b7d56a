"""Preparing: the dataset holds exactly the log, filtered as stated, or nothing is written."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dimerec.data.dataset import Dataset
from dimerec.data.interactions import InteractionLog
from dimerec.data.prepare import prepare
from dimerec.data.splits import Protocol
from dimerec.errors import DataError
from dimerec.vocabulary import Id, Item

# user, item, time of eight events; users 3 and 10, items "b", "c", "d", "e"
EVENTS = pl.DataFrame(
    {
        "user": [10, 3, 10, 3, 3, 10, 7, 10],
        "item": ["c", "b", "b", "c", "b", "d", "e", "b"],
        "time": [1_500_000_000 + t for t in (4, 9, 2, 8, 7, 1, 5, 6)],
    }
)


def sequences(dataset: Dataset) -> dict[Id, list[tuple[Id, int]]]:
    """Outside ids with their times, user by user."""
    users = dataset.users.ids(range(1, len(dataset.users) + 1))
    out: dict[Id, list[tuple[Id, int]]] = {}
    for row, user in enumerate(users):
        events = slice(int(dataset.offsets[row]), int(dataset.offsets[row + 1]))
        ids = dataset.vocabulary.ids(dataset.items[events].tolist())
        out[user] = list(zip(ids, dataset.times[events].tolist(), strict=True))
    return out


def log_of(sizes: dict[int, list[int]]) -> InteractionLog:
    pairs = [(u, i) for u, items in sizes.items() for i in items]
    return InteractionLog.read(pl.DataFrame(pairs, schema=["user", "item"], orient="row"))


def test_a_log_by_hand(tmp_path: Path) -> None:
    dataset = prepare(
        InteractionLog.read(EVENTS), tmp_path / "d", protocol="leave-one-out", name="hand"
    )
    t = 1_500_000_000
    assert sequences(dataset) == {
        3: [("b", t + 7), ("c", t + 8), ("b", t + 9)],
        10: [("d", t + 1), ("b", t + 2), ("c", t + 4), ("b", t + 6)],
    }
    assert dataset.vocabulary.ids([1, 2, 3]) == ["b", "c", "d"]
    assert dataset.items.tolist() == [1, 2, 1, 3, 1, 2, 1]
    assert dataset.train_end.tolist() == [1, 2]
    assert dataset.valid_end.tolist() == [2, 3]
    card = dataset.card
    assert (card.name, card.users, card.items, card.events) == ("hand", 2, 3, 7)
    (short,) = card.filters
    assert short.name == "users with under 2 events"
    assert (short.events_removed, short.users_removed, short.items_removed) == (1, 1, 1)
    assert card.origin["time"] == "epoch seconds"
    assert dataset.metadata() == [Item()] * 3


def test_integer_ids_are_numbered_by_value_not_by_letter(tmp_path: Path) -> None:
    dataset = prepare(log_of({u: [100, 9, 20] for u in (11, 9, 2, 5)}), tmp_path / "d")
    assert dataset.vocabulary.ids([1, 2, 3]) == [9, 20, 100]
    assert dataset.users.ids([1, 2, 3, 4]) == [2, 5, 9, 11]


def test_own_csv_string_ids_milliseconds_unsorted_gzipped(tmp_path: Path) -> None:
    text = EVENTS.select(
        pl.format("u-{}", "user").alias("customer"),
        pl.format("sku/{}", "item").alias("SKU"),
        (pl.col("time") * 1000 + 123).alias("ts"),
    ).write_csv()
    path = tmp_path / "own.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    dataset = prepare(InteractionLog.read(path), tmp_path / "d", protocol="leave-one-out")
    assert list(sequences(dataset)) == ["u-10", "u-3"]
    assert [i for i, _ in sequences(dataset)["u-10"]] == ["sku/d", "sku/b", "sku/c", "sku/b"]
    assert sequences(dataset)["u-3"][0][1] == 1_500_000_007
    assert dataset.card.name == "own"
    assert dataset.card.origin["time"] == "epoch milliseconds"


def test_without_times_positions_close_up_after_filters(tmp_path: Path) -> None:
    log = log_of({1: [5, 6, 5], 2: [5, 5, 5], 3: [5, 5], 4: [5, 5]})
    dataset = prepare(log, tmp_path / "d", min_item_events=2)
    assert sequences(dataset)[1] == [(5, 0), (5, 1)]


def test_rare_items_once_or_until_stable(tmp_path: Path) -> None:
    # Item 9 is rare; without it user 1 has one event; without user 1 item 8 has one.
    log = log_of({1: [9, 8], 2: [8, 7, 7], 3: [7, 7], 4: [7, 7], 5: [7, 7]})
    once = prepare(log, tmp_path / "once", min_item_events=2, iterate=False)
    assert [f.name for f in once.card.filters] == [
        "items with under 2 events", "users with under 2 events",
    ]  # fmt: skip
    assert [f.events_removed for f in once.card.filters] == [1, 1]
    assert [i for i, _ in sequences(once)[2]] == [8, 7, 7]
    stable = prepare(log, tmp_path / "stable", min_item_events=2)
    (only,) = stable.card.filters
    assert only.name == "items with under 2 events and users with under 2 events, until stable"
    assert (only.events_removed, only.users_removed, only.items_removed) == (3, 1, 2)
    assert [i for i, _ in sequences(stable)[2]] == [7, 7]


def test_no_filter_is_recorded_when_none_is_asked_for(tmp_path: Path) -> None:
    dataset = prepare(
        InteractionLog.read(EVENTS), tmp_path / "d", min_user_events=1, protocol="users-8-1-1"
    )
    assert dataset.card.filters == ()
    assert dataset.card.users == 3


def test_the_filters_of_reading_stand_in_the_card(tmp_path: Path) -> None:
    log = InteractionLog.read(EVENTS, where="item!=d", duplicates="collapse")
    dataset = prepare(log, tmp_path / "d", protocol="leave-one-out")
    names = [f.name for f in dataset.card.filters]
    assert names == ["where item!=d", "duplicates collapse", "users with under 2 events"]
    removed = sum(f.events_removed for f in dataset.card.filters)
    assert dataset.card.origin["rows"] - removed == dataset.card.events


EVENT = st.tuples(st.integers(0, 5), st.integers(0, 5))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(st.lists(EVENT, min_size=12, max_size=40), st.data(), st.booleans())
def test_the_order_of_rows_leaves_no_trace(
    tmp_path: Path, events: list[tuple[int, int]], data: st.DataObject, strings: bool
) -> None:
    rows = [(u, i, 1_500_000_000 + 7 * t) for t, (u, i) in enumerate(events)]
    rows += [(u, 0, 1_400_000_000 + u) for u in range(6)]  # six users at least, for three parts
    shuffled = data.draw(st.permutations(rows))
    kind = pl.String if strings else pl.Int64
    digests = [
        prepare(
            InteractionLog.read(
                pl.DataFrame(order, schema=["user", "item", "time"], orient="row").with_columns(
                    pl.col("user", "item").cast(kind)
                )
            ),
            tmp_path / "d",
            min_user_events=1,
            overwrite=True,
        ).digest
        for order in (rows, shuffled)
    ]
    assert digests[0] == digests[1]


def test_any_other_event_changes_the_digest(tmp_path: Path) -> None:
    log = InteractionLog.read(EVENTS)
    digests = {prepare(log, tmp_path / "whole", protocol="leave-one-out").digest}
    for column, value in {"user": 7, "item": "zz", "time": 1_500_000_003}.items():
        changed = EVENTS.with_row_index().with_columns(
            pl.when(pl.col("index") == 5).then(pl.lit(value)).otherwise(column).alias(column)
        )
        log = InteractionLog.read(changed.drop("index"))
        digests.add(prepare(log, tmp_path / column, protocol="leave-one-out").digest)
    assert len(digests) == 4


def test_seed_and_protocol_objects(tmp_path: Path) -> None:
    log = log_of({u: [1, 2, 3] for u in range(40)})
    by_name = prepare(log, tmp_path / "a", seed=3)
    by_struct = prepare(log, tmp_path / "b", protocol=Protocol(name="users-8-1-1", seed=3))
    assert by_name.digest == by_struct.digest != prepare(log, tmp_path / "c", seed=4).digest
    halves = Protocol(name="users-8-1-1", fractions=(0.5, 0.25, 0.25))
    assert prepare(log, tmp_path / "e", protocol=halves).card.splits["train"].users == 20
    with pytest.raises(DataError, match="no protocol 'users'"):
        prepare(log, tmp_path / "f", protocol="users")


@pytest.mark.parametrize("kind", ["mapping", "frame", "file"])
def test_a_given_split(tmp_path: Path, kind: str) -> None:
    log = log_of({u: [1, 2, 3] for u in range(4)})
    parts = {0: "train", 1: "valid", 2: "test", 3: "train", 99: "test"}
    table: Any = pl.DataFrame({"user_id": list(parts), "split": list(parts.values())})
    if kind == "file":
        table.cast(pl.String).write_csv(tmp_path / "split.csv")
    given = {"mapping": parts, "frame": table, "file": tmp_path / "split.csv"}[kind]
    dataset = prepare(log, tmp_path / "d", protocol="given", given=given)
    assert dataset.train_end.tolist() == [3, 0, 0, 3]
    assert dataset.valid_end.tolist() == [3, 3, 0, 3]


def test_a_broken_given_split(tmp_path: Path) -> None:
    log = log_of({u: [1, 2, 3] for u in range(4)})
    for given_, message in {
        "missing": ({0: "train"}, "names no part for 3 users"),
        "columns": (pl.DataFrame({"user": [1], "color": ["red"]}), "a user column and a split"),
        "none": (None, "needs a split file"),
    }.values():
        with pytest.raises(DataError, match=message):
            prepare(log, tmp_path / "d", protocol="given", given=given_)
    assert not (tmp_path / "d").exists()


def test_titles_arrive_in_number_order(tmp_path: Path) -> None:
    items = pl.DataFrame(
        {"item": ["d", "zz", "b"], "title": ["D", "Z", "B"], "genres": ["x|y"] * 3}
    )
    dataset = prepare(
        InteractionLog.read(EVENTS), tmp_path / "d", items=items, protocol="leave-one-out"
    )
    assert dataset.metadata() == [
        Item(title="B", categories=("x", "y")), Item(), Item(title="D", categories=("x", "y")),
    ]  # fmt: skip


def test_what_cannot_be_used_is_refused_and_nothing_written(tmp_path: Path) -> None:
    lonely = log_of({1: [5], 2: [5], 3: [6]})
    with pytest.raises(DataError, match=r"no user has 2 events.*is 'user' the user column"):
        prepare(lonely, tmp_path / "out" / "d")
    with pytest.raises(DataError) as caught:
        prepare(
            InteractionLog.read(EVENTS, where="item!=d"),
            tmp_path / "out" / "d",
            min_item_events=9,
            iterate=False,
        )
    assert "nothing is left of 8 events: where item!=d removed 1; " in str(caught.value)
    assert "items with under 9 events removed 7" in str(caught.value)
    with pytest.raises(DataError, match="give 1"):
        prepare(lonely, tmp_path / "out" / "d", min_user_events=0)
    with pytest.raises(DataError, match="needs event times"):
        prepare(log_of({1: [5, 6], 2: [5, 6]}), tmp_path / "out" / "d", protocol="global-time")
    with pytest.raises(DataError, match="describes none"):
        prepare(
            log_of({u: [5, 6] for u in range(9)}),
            tmp_path / "out" / "d",
            items=pl.DataFrame({"item": [7], "title": ["t"]}),
        )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_dataset_is_kept_unless_told(tmp_path: Path) -> None:
    first = prepare(log_of({u: [1, 2, 3] for u in range(9)}), tmp_path / "d").digest
    other = log_of({u: [1, 2] for u in range(9)})
    with pytest.raises(DataError, match="exists already"):
        prepare(other, tmp_path / "d")
    assert Dataset.open(tmp_path / "d").digest == first
    with pytest.raises(DataError, match="9 users are too few|nothing is left"):
        prepare(other, tmp_path / "d", overwrite=True, min_user_events=3)
    assert Dataset.open(tmp_path / "d").digest == first
    assert prepare(other, tmp_path / "d", overwrite=True).digest != first


def test_against_a_plain_python_preparation(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 200, 3000), rng.zipf(1.4, 3000) % 400
    times = 1_600_000_000 + rng.permutation(3000)
    frame = pl.DataFrame({"user": users, "item": items, "time": times})
    dataset = prepare(
        InteractionLog.read(frame), tmp_path / "d", min_user_events=5, min_item_events=5
    )
    events = sorted(zip(users.tolist(), times.tolist(), items.tolist(), strict=True))
    while True:
        size = len(events)
        for at, least in ((2, 5), (0, 5)):
            ids = [e[at] for e in events]
            enough = {i for i in set(ids) if ids.count(i) >= least}
            events = [e for e in events if e[at] in enough]
        if len(events) == size:
            break
    assert 0 < len(events) < 2900
    expected: dict[Id, list[tuple[Id, int]]] = {}
    for u, t, i in events:
        expected.setdefault(u, []).append((i, t))
    assert sequences(dataset) == expected


KILLED = """
import sys, time
import polars as pl
from dimerec.data import dataset
from dimerec.data.interactions import InteractionLog
from dimerec.data.prepare import prepare
import numpy as np

whole = np.save
def slow(path, array, **kwargs):
    whole(path, array, **kwargs)
    print("writing", path, flush=True)
    for _ in range(1200):  # naps: a signal that comes just before a long sleep would wait for it
        time.sleep(0.05)
np.save = slow
frame = pl.DataFrame({"user": [u for u in range(30) for _ in range(4)], "item": [1, 2, 3, 4] * 30})
prepare(InteractionLog.read(frame), sys.argv[1], overwrite=True)
"""


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "overwriting"])
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_preparation_leaves_nothing(tmp_path: Path, before: bool, kill: int) -> None:
    out = tmp_path / "d"
    log = log_of({u: [1, 2, 3] for u in range(9)})
    digest = prepare(log, out).digest if before else None
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline().startswith("writing"), "it must be killed half-way"
        start = time.monotonic()
        process.send_signal(kill)
        process.wait(timeout=30)
    assert process.returncode != 0 and time.monotonic() - start < 30
    if before:
        assert Dataset.open(out).digest == digest
    else:
        assert not out.exists()
        with pytest.raises(DataError, match="no dataset directory"):
            Dataset.open(out)
    visible = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert visible == (["d"] if before else [])
    if kill == signal.SIGINT:
        assert [p.name for p in tmp_path.iterdir()] == visible
    assert prepare(log, out, overwrite=before).card.users == 9
