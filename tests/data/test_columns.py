"""Columns found by name, and ids."""

import polars as pl
import pytest

from dimerec.data.columns import ALIASES, find, ids
from dimerec.data.tables import open_table
from dimerec.errors import DataError


def parse(values: pl.Series | list, *, text: bool = False) -> pl.Series:
    frame = pl.DataFrame({"item": values})
    table = open_table(frame)
    if text:
        table = type(table)(table.lazy, "log.csv", table.columns, None, ",")
    return ids(table, table.read(["item"]), "item")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["userId", "movieId", "rating", "timestamp"], ("userId", "movieId", "timestamp")),
        (["SessionID", "Item ID", "Date"], ("SessionID", "Item ID", "Date")),
        (["visitorid", "sku", "event_time"], ("visitorid", "sku", "event_time")),
        (["user_id", "session_id", "video_id", "time", "date", "timestamp"],
         ("user_id", "video_id", "timestamp")),
        (["reviewerID", "asin", "unixReviewTime"], ("reviewerID", "asin", "unixReviewTime")),
    ],
)  # fmt: skip
def test_usual_names(columns: list[str], found: tuple[str, str, str]) -> None:
    table = open_table(pl.DataFrame({c: [1] for c in columns}))
    assert find(table, None) == dict(zip(("user", "item", "time"), found, strict=True))


def test_position_is_taken_only_without_a_time_or_when_asked_for() -> None:
    both = open_table(pl.DataFrame({c: [1] for c in ("user", "item", "time", "position")}))
    assert find(both, None) == {"user": "user", "item": "item", "time": "time"}
    asked = find(both, {"position": "position"})
    assert asked == {"user": "user", "item": "item", "position": "position"}
    only = open_table(pl.DataFrame({c: [1] for c in ("user", "item", "pos")}))
    assert find(only, None) == {"user": "user", "item": "item", "position": "pos"}


def test_given_names_go_first_and_are_not_used_twice() -> None:
    table = open_table(pl.DataFrame({c: [1] for c in ("user", "session", "movie")}))
    assert find(table, {"item": "user"}) == {"item": "user", "user": "session"}
    with pytest.raises(DataError, match="twice"):
        find(table, {"item": "user", "user": "user"})


def test_every_alias_is_found_by_itself_and_names_no_other_role() -> None:
    flat = [a for names in ALIASES.values() for a in names]
    assert len(flat) == len(set(flat))


def test_missing_columns_list_what_was_found_and_what_was_looked_for() -> None:
    table = open_table(pl.DataFrame({"who": [1], "item": [2]}))
    with pytest.raises(DataError, match=r"no user column \(usual names: user_id, .*found: who, it"):
        find(table, None)
    with pytest.raises(DataError, match=r"no column 'clock' \(given as time\); found: who, item"):
        find(table, {"user": "who", "time": "clock"})
    with pytest.raises(DataError, match="not 'rating'"):
        find(table, {"rating": "who"})
    with pytest.raises(DataError, match="time or position, not both"):
        find(table, {"time": "who", "position": "item"})


def test_text_ids_are_integers_only_when_all_are_written_as_integers() -> None:
    assert parse(["10", " 9 ", "0", "-3"], text=True).to_list() == [10, 9, 0, -3]
    assert parse(["007", "7"], text=True).to_list() == ["007", "7"]
    assert parse(["1", "a"], text=True).to_list() == ["1", "a"]
    assert parse(["1", "99999999999999999999"], text=True).dtype == pl.String
    assert parse(["1.0", "2.0"], text=True).dtype == pl.String


def test_ids_of_a_frame_keep_their_kind() -> None:
    assert parse(["10", " 9 "]).to_list() == ["10", "9"]
    assert parse(pl.Series([3, 1], dtype=pl.UInt16)).dtype == pl.Int64
    assert parse(pl.Series(["a", "b"], dtype=pl.Categorical)).to_list() == ["a", "b"]
    assert parse([1.0, 2.0]).to_list() == [1, 2]
    assert parse(pl.Series([2**64 - 1, 1], dtype=pl.UInt64)).to_list() == [f"{2**64 - 1}", "1"]


@pytest.mark.parametrize(
    ("values", "row"),
    [
        (["a", "", "b"], 2),
        (["a", "  ", None], 2),
        ([1, 2, None], 3),
        ([1.0, float("nan")], 2),
        ([1.0, None], 2),
        ([1.0, 2.5], 2),
        ([1.0, float("inf")], 2),
    ],
)
def test_null_and_impossible_ids_are_refused(values: list, row: int) -> None:
    with pytest.raises(DataError, match=rf"^the frame, column 'item', row {row}: .*no id"):
        parse(values)


def test_other_types_are_no_ids() -> None:
    with pytest.raises(DataError, match="ids are integers or strings"):
        parse([True, False])
    with pytest.raises(DataError, match="ids are integers or strings"):
        parse([[1], [2]])
