"""Times of every usual unit come out as the same instants; absurd ones are refused."""

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.data.tables import open_table
from dimerec.data.times import Times, positions, times
from dimerec.errors import DataError

INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31, 23, 59, 59))


def parse(values: pl.Series | list) -> Times:
    table = open_table(pl.DataFrame({"time": values}))
    return times(table, table.read(["time"]), "time")


def seconds(values: pl.Series | list) -> list[int]:
    parsed = parse(values)
    return (parsed.stamps // parsed.per_second).to_list()


@given(st.lists(INSTANTS, min_size=1, max_size=5), st.sampled_from(["s", "ms", "us", "ns"]))
def test_epochs_of_any_unit_are_told_apart(instants: list[datetime], unit: str) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    expected = [int(i.replace(tzinfo=UTC).timestamp()) for i in instants]
    raw = [e * scale for e in expected]
    assert seconds(raw) == expected
    assert seconds([str(r) for r in raw]) == expected
    assert parse(raw).unit.startswith("epoch ")


@given(
    st.lists(INSTANTS, min_size=1, max_size=4),
    st.sampled_from(["T", " "]),
    st.sampled_from(["", "Z", " UTC", "+02:00", "-0530"]),
    st.sampled_from(["auto", "milliseconds", "microseconds"]),
)
def test_iso_8601_agrees_with_the_standard_library(
    instants: list[datetime], separator: str, zone: str, precision: str
) -> None:
    text = [i.isoformat(separator, precision) + zone for i in instants]
    zones = {"+02:00": timedelta(hours=2), "-0530": -timedelta(hours=5, minutes=30)}
    offset = timezone(zones.get(zone, timedelta(0)))
    expected = [i.replace(tzinfo=offset, microsecond=0).timestamp() for i in instants]
    low, high = 631_152_000, 4_102_444_800
    if all(low <= e < high for e in expected):
        assert seconds(text) == expected


def test_dates_alone_and_minutes_mix_with_full_times() -> None:
    day = int(datetime(2020, 2, 29, tzinfo=UTC).timestamp())
    assert seconds(["2020-02-29", "2020-02-29T00:01", "2020-02-29 00:00:02.5Z"]) == [
        day, day + 60, day + 2,
    ]  # fmt: skip


def test_fractions_order_events_inside_a_second() -> None:
    parsed = parse(["1500000000.75", "1500000000.25"])
    assert parsed.stamps[0] - parsed.stamps[1] == 500_000
    assert (parsed.stamps // parsed.per_second).to_list() == [1_500_000_000] * 2
    parsed = parse([1_500_000_000_750, 1_500_000_000_250])
    assert (parsed.unit, parsed.per_second) == ("epoch milliseconds", 1000)


def test_typed_columns() -> None:
    instant = datetime(2020, 1, 1, 12, tzinfo=UTC)
    expected = [int(instant.timestamp())]
    for kind in ("ms", "us", "ns"):
        assert (
            seconds(pl.Series([instant.replace(tzinfo=None)], dtype=pl.Datetime(kind))) == expected
        )
    berlin = pl.Series([instant]).dt.convert_time_zone("Europe/Berlin")
    assert seconds(berlin) == expected
    assert seconds([date(2020, 1, 1)]) == [expected[0] - 12 * 3600]
    assert seconds(pl.Series([1_577_880_000], dtype=pl.UInt32)) == expected


@pytest.mark.parametrize(
    ("values", "row", "shown"),
    [
        ([1_500_000_000, None], 2, "not a time"),
        (["1500000000", "yesterday", "x"], 2, "'yesterday': not a time"),
        (["1500000000", "", "1500000000"], 2, "not a time"),
        (["2020-01-01", "2020-01-01", "2020-02-30"], 3, "'2020-02-30': not a time"),
        (["2020-01-01", "01/02/2020", "2020-02-20"], 2, "'01/02/2020': not a time"),
        (["2020-01-01", "1970-01-01", "2020-01-01"], 2, "outside the years"),
        ([1_500_000_000, 0, 1_500_000_000], 2, "0: no time between 1990 and 2099 in seconds"),
        ([1_500_000_000, 1_500_000_001, 1_500_000_000_000], 3, "in seconds, as the others"),
        ([1, 2, 3], 1, "1: no time .* give it as position"),
        ([20200705, 20200706], 1, "no time between"),
        ([1.5e9, float("nan")], 2, "not a time"),
        (["1500000000.5", "inf", "1500000000"], 2, "not a time"),
        ([datetime(2020, 1, 1), datetime(1980, 1, 1)], 2, "outside the years"),
        ([None, datetime(1980, 1, 1)], 1, "not a time"),
    ],
)
def test_absurd_and_unreadable_times_are_refused(values: list, row: int, shown: str) -> None:
    with pytest.raises(DataError, match=rf"^the frame, column 'time', row {row}: .*{shown}"):
        parse(values)


def test_types_that_are_no_times() -> None:
    for values in ([True], [timedelta(1)], [[1]]):
        with pytest.raises(DataError, match="not a time"):
            parse(values)


def test_positions_are_any_numbers() -> None:
    def read(values: list) -> list:
        table = open_table(pl.DataFrame({"pos": values}))
        return positions(table, table.read(["pos"]), "pos").stamps.to_list()

    assert read([3, 0, 7]) == [3, 0, 7]
    assert read(["3", "0.5"]) == [3.0, 0.5]
    for bad in ([1, None], ["1", "x"], [1.0, float("nan")]):
        with pytest.raises(DataError, match="column 'pos', row 2: .*not a position"):
            read(bad)
    with pytest.raises(DataError, match="not numbers"):
        read([[1]])
