"""Reading a log: every format gives the same events, every fault one clear line."""

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.data.interactions import InteractionLog
from dimerec.errors import DataError

ROWS = [
    ("bo", "x", 1_600_000_000_500, 5),
    ("al", "y", 1_600_000_000_900, 2),
    ("bo", "z", 1_600_000_000_100, 4),
    ("al", "x", 1_500_000_000_000, 3),
    ("al", "x", 1_600_000_000_900, 1),
]
SORTED = [
    ("al", "x", 1_500_000_000),
    ("al", "y", 1_600_000_000),
    ("al", "x", 1_600_000_000),
    ("bo", "z", 1_600_000_000),
    ("bo", "x", 1_600_000_000),
]
FRAME = pl.DataFrame(ROWS, schema=["UserID", "video_id", "timestamp", "rating"], orient="row")


def write(path: Path, frame: pl.DataFrame = FRAME) -> Path:
    kind, packing = (path.suffixes + [""])[:2]
    if kind in (".csv", ".tsv"):
        text = frame.write_csv(separator="\t" if kind == ".tsv" else ",").encode()
        if packing == ".zst":
            with pa.CompressedOutputStream(str(path), "zstd") as f:
                f.write(text)
        else:
            path.write_bytes(gzip.compress(text) if packing == ".gz" else text)
    elif kind == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ipc(path)
    return path


@pytest.mark.parametrize(
    "name",
    ["log.csv", "log.tsv", "log.csv.gz", "log.tsv.gz", "log.csv.zst", "log.tsv.zst", "log.parquet",
     "log.arrow", "log.feather", "LOG.CSV"],
)  # fmt: skip
def test_every_file_format_gives_the_same_log(tmp_path: Path, name: str) -> None:
    if name == "LOG.CSV":
        path = write(tmp_path / "log.csv").rename(tmp_path / name)
    else:
        path = write(tmp_path / name)
    log = InteractionLog.read(path)
    assert log.frame.rows() == SORTED
    assert log.name == name.partition(".")[0]
    assert log.timed
    assert log.report["rows"] == 5
    assert log.report["time"] == "epoch milliseconds"
    assert log.report["columns"] == {"user": "UserID", "item": "video_id", "time": "timestamp"}
    assert len(log.report["sha256"]) == 64


@pytest.mark.parametrize(
    "frame",
    [FRAME, FRAME.lazy(), FRAME.to_pandas(), FRAME.to_arrow(),
     FRAME.to_pandas().sample(frac=1, random_state=1).sort_index()],
    ids=["polars", "lazy", "pandas", "arrow", "index"],
)  # fmt: skip
def test_every_frame_gives_the_same_log(frame: Any) -> None:
    log = InteractionLog.read(frame)
    assert log.frame.rows() == SORTED
    assert (log.name, log.report["source"], log.report["sha256"]) == ("log", "a frame", None)


def test_pandas_columns_of_mixed_ids_become_strings() -> None:
    frame = pd.DataFrame({"user": [1, "a"], "item": [2, 3], "time": [1.5e9, 1.6e9]})
    assert InteractionLog.read(frame).frame.rows() == [
        ("1", 2, 1_500_000_000), ("a", 3, 1_600_000_000),
    ]  # fmt: skip


def test_pandas_integers_made_floats_by_a_hole_name_the_hole() -> None:
    frame = pd.DataFrame({"user": [1, None], "item": [2, 3], "time": [1.5e9, 1.6e9]})
    with pytest.raises(DataError, match="column 'user', row 2: .*no id"):
        InteractionLog.read(frame)


def test_iso_times_and_integer_ids(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        'Session,"Item ID",Date\n'
        "10,5,2014-04-07T10:51:09.277Z\n"
        "9,6,2014-04-07T10:51:09.177Z\n"
        "10,4,2014-04-07T10:51:09.276Z\n"
    )
    log = InteractionLog.read(path)
    second = int(datetime(2014, 4, 7, 10, 51, 9, tzinfo=UTC).timestamp())
    assert log.frame.rows() == [(9, 6, second), (10, 4, second), (10, 5, second)]
    assert log.report["time"] == "ISO 8601"


def test_without_times_the_arrival_is_the_order() -> None:
    log = InteractionLog.read(pl.DataFrame({"user": [2, 1, 2, 2], "item": [9, 8, 7, 9]}))
    assert log.frame.rows() == [(1, 8, 0), (2, 9, 0), (2, 7, 1), (2, 9, 2)]
    assert not log.timed
    assert log.report["time"] == "arrival order"


def test_positions_order_and_are_renumbered() -> None:
    frame = pl.DataFrame({"user": [1, 1, 1], "item": [7, 8, 9], "position": [40, 10, 20]})
    log = InteractionLog.read(frame)
    assert log.frame.rows() == [(1, 8, 0), (1, 9, 1), (1, 7, 2)]
    assert (log.timed, log.report["time"]) == (False, "position")


def test_other_column_names_are_given(tmp_path: Path) -> None:
    frame = FRAME.rename({"UserID": "who", "video_id": "what", "timestamp": "when"})
    columns = {"user": "who", "item": "what", "time": "when"}
    log = InteractionLog.read(frame, columns=columns, name="mine")
    assert log.frame.rows() == SORTED
    assert (log.name, log.report["columns"]) == ("mine", columns)


def test_where_keeps_and_accounts() -> None:
    log = InteractionLog.read(FRAME, where=["rating>=2", "video_id!=y"])
    assert [r[:2] for r in log.frame.rows()] == [("al", "x"), ("bo", "z"), ("bo", "x")]
    first, second = log.filters
    assert (first.name, first.events_removed, first.users_removed) == ("where rating>=2", 1, 0)
    assert (second.name, second.events_removed, second.items_removed) == ("where video_id!=y", 1, 1)
    assert InteractionLog.read(FRAME, where="rating>=5").filters[0].users_removed == 1


def test_bad_rows_that_where_drops_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,ok\n1,2,1500000000,1\n1,,never,0\n1,3,1500000001,1\n,4,1,1\n")
    with pytest.raises(DataError, match=r"log.csv, column 'time', line 3: 'never': not a time"):
        InteractionLog.read(path)
    with pytest.raises(DataError, match=r"log.csv, column 'time', line 5: '1': no time"):
        InteractionLog.read(path, where="ok==1")


def test_duplicates_are_dropped_in_time_order_and_accounted() -> None:
    frame = pl.DataFrame(
        {"user": [1, 1, 1, 1], "item": ["a", "b", "a", "a"], "position": [4, 3, 2, 1]}
    )
    collapsed = InteractionLog.read(frame, duplicates="collapse")
    assert collapsed.frame.rows() == [(1, "a", 0), (1, "b", 1), (1, "a", 2)]
    assert collapsed.filters[0].name == "duplicates collapse"
    assert collapsed.filters[0].events_removed == 1
    first = InteractionLog.read(frame, duplicates="first").frame
    assert first["item"].to_list() == ["a", "b"]
    last = InteractionLog.read(frame, duplicates="last").frame
    assert last["item"].to_list() == ["b", "a"]
    assert InteractionLog.read(frame).filters == ()


def test_everything_filtered_away_says_by_what(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv")
    with pytest.raises(DataError) as caught:
        InteractionLog.read(path, where=["rating>=3", "rating>=6", "rating>=7"])
    assert str(caught.value) == (
        f"{path}: nothing is left of 5 events: where rating>=3 removed 2; "
        "where rating>=6 removed 3; loosen a filter"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,time\n1,1500000000\n", r": no item column \(usual names: item_id, .*found: user, t"),
        ("user,item,time\n1,2,1500000000\n,3,1500000000\n", "column 'user', line 3: no id"),
        ("user,item,time\n1,2,1500000000\n1,3,soon\n", "column 'time', line 3: 'soon': not a time"),
        ("user,item,time\n1,2,1500000000\n1,3,7\n", "column 'time', line 3: '7': no time between"),
        ("user,item,time\n1,2,1500000000\n\n1,3,1500000000\n", "line 3: "),
        ('user,item,time\n"a\nb",2,1500000000\nc, ,1500000000\n', "column 'item', line 4: .*no id"),
        ("user,item,time\n1,2\n", "column 'time', line 2: not a time"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str, packed: bool) -> None:
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        InteractionLog.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_wrong_arguments() -> None:
    with pytest.raises(DataError, match="no column 'stars'; found: UserID, video_id"):
        InteractionLog.read(FRAME, where="stars>=4")
    with pytest.raises(DataError, match="write it as column op value"):
        InteractionLog.read(FRAME, where="rating")
    with pytest.raises(DataError, match="no duplicates policy 'some'"):
        InteractionLog.read(FRAME, duplicates="some")
    with pytest.raises(DataError, match="given as user, item, time or position"):
        InteractionLog.read(FRAME, columns={"rating": "rating"})


EVENT = st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 30))


@given(st.lists(EVENT, min_size=1, max_size=40), st.randoms())
def test_the_order_is_user_time_arrival(events: list[tuple[int, int, int]], random: Any) -> None:
    frame = pl.DataFrame(
        [(u, i, 1_500_000_000 + t) for u, i, t in events],
        schema=["user", "item", "ts"],
        orient="row",
    )
    expected = [(u, i, 1_500_000_000 + t) for u, i, t in sorted(events, key=lambda e: (e[0], e[2]))]
    assert InteractionLog.read(frame).frame.rows() == expected


def test_large_unsorted_log_against_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 3000, 120_000), rng.integers(0, 500, 120_000)
    times = 1_600_000_000 + rng.integers(0, 5000, 120_000)
    pl.DataFrame({"user": users, "item": items, "time": times}).write_csv(tmp_path / "log.csv")
    order = np.lexsort((np.arange(len(users)), times, users))
    frame = InteractionLog.read(tmp_path / "log.csv").frame
    for name, values in {"user": users, "item": items, "time": times}.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values[order])
