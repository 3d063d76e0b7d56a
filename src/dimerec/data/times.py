"""Times of a log: epoch numbers of any unit, ISO 8601, datetimes, or mere positions."""

from dataclasses import dataclass

import polars as pl

from dimerec.data.columns import refuse
from dimerec.data.tables import Table
from dimerec.errors import DataError

EARLIEST, LATEST = 631_152_000, 4_102_444_800  # the years 1990 to 2099, Unix seconds
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
ISO = (
    r"^(?<day>\d{4}-\d{2}-\d{2})(?:[T ](?<clock>\d{2}:\d{2})(?::(?<second>\d{2}(?:\.\d{1,9})?))?)?"
    r"\s*(?:Z|UTC|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2}))?$"
)
SLICE = 1_000_000  # rows parsed at once, which bounds the memory of intermediate text


@dataclass(frozen=True)
class Times:
    """Times of all rows as sortable numbers.

    Attributes:
        stamps: Int64 (Float64 for fractional positions), one a row; orders the events.
        per_second: how many stamps make a second; 0 when they are positions.
        unit: what they were taken for, in words.
    """

    stamps: pl.Series
    per_second: int
    unit: str


def times(table: Table, frame: pl.DataFrame, column: str) -> Times:
    """The times in `column`: epoch seconds, ms, us or ns told apart by size, or ISO 8601.

    Raises:
        DataError: a time that is missing, cannot be read, or lies outside 1990 to 2099.
    """
    values = frame[column]
    if values.dtype.is_temporal():
        if values.dtype not in (pl.Date, pl.Datetime):
            raise DataError(f"{table.name}, column {column!r}: holds {values.dtype}, not a time")
        stamps, unit = values.cast(pl.Datetime("us")).to_physical(), "datetime"
    elif values.dtype.is_numeric():
        whole = values.dtype.is_integer()
        return _epochs(
            table, frame, column, values.cast(pl.Int64 if whole else pl.Float64, strict=False)
        )
    elif values.dtype == pl.String:
        text = values.str.strip_chars()
        numbers = _numbers(text)
        dates = _iso(text) if numbers.null_count() else numbers
        if numbers.null_count() <= dates.null_count():
            return _epochs(table, frame, column, numbers)
        stamps, unit = dates, "ISO 8601"
    else:
        raise DataError(f"{table.name}, column {column!r}: holds {values.dtype}, not a time")
    what = "not a time: write epoch seconds (or ms, us, ns) or ISO 8601"
    refuse(table, frame, column, stamps.is_null(), what)
    out = ~stamps.is_between(EARLIEST * 10**6, LATEST * 10**6, closed="left")
    refuse(table, frame, column, out, "outside the years 1990 to 2099")
    return Times(stamps, 10**6, unit)


def positions(table: Table, frame: pl.DataFrame, column: str) -> Times:
    """The places of the events in their user's order, any numbers.

    Raises:
        DataError: a place that is missing or no number.
    """
    values = frame[column]
    numbers = _numbers(values.str.strip_chars()) if values.dtype == pl.String else values
    if not numbers.dtype.is_numeric():
        raise DataError(f"{table.name}, column {column!r}: holds {values.dtype}, not numbers")
    refuse(table, frame, column, _not_finite(numbers), "not a position: a number is expected")
    return Times(numbers, 0, "position")


def _numbers(text: pl.Series) -> pl.Series:
    """Int64 where all of `text` are integers, else Float64; null where neither."""
    whole = text.cast(pl.Int64, strict=False)
    return whole if not whole.null_count() else text.cast(pl.Float64, strict=False)


def _not_finite(numbers: pl.Series) -> pl.Series:
    if numbers.dtype.is_float():
        return ~numbers.is_finite().fill_null(False)
    return numbers.is_null()


def _epochs(table: Table, frame: pl.DataFrame, column: str, values: pl.Series) -> Times:
    what = "not a time: write epoch seconds (or ms, us, ns) or ISO 8601"
    refuse(table, frame, column, _not_finite(values), what)
    ranges = {u: (EARLIEST * n, LATEST * n) for u, n in UNITS.items()}
    fits = {u: values.is_between(low, high, closed="left") for u, (low, high) in ranges.items()}
    unit = max(fits, key=lambda u: int(fits[u].sum()))
    what = (
        f"no time between 1990 and 2099 in {UNIT_NAMES[unit]}, as the others are; if this column "
        "is an order and no time, give it as position"
    )
    if not fits[unit].any():
        what = (
            "no time between 1990 and 2099, neither in s, ms, us nor ns; if this column is an "
            "order and no time, give it as position"
        )
    refuse(table, frame, column, ~fits[unit], what)
    if values.dtype.is_float():
        scale = 10**6 / UNITS[unit]
        micro = (values * scale).round().cast(pl.Int64)
        return Times(micro, 10**6, f"epoch {UNIT_NAMES[unit]}, fractional")
    return Times(values, UNITS[unit], f"epoch {UNIT_NAMES[unit]}")


def _iso(text: pl.Series) -> pl.Series:
    """Unix microseconds, Int64, of ISO 8601 text (UTC without an offset); null if unreadable."""
    return pl.concat(_iso_slice(text.slice(i, SLICE)) for i in range(0, text.len(), SLICE))


def _iso_slice(text: pl.Series) -> pl.Series:
    plain = text.str.replace("T", " ", literal=True).str.strip_suffix("Z")
    stamps = plain.str.strptime(pl.Datetime("us"), "%Y-%m-%d %H:%M:%S%.f", strict=False)
    if not stamps.null_count():
        return stamps.to_physical()
    part = text.str.extract_groups(ISO).struct
    second = part.field("second").fill_null("00")
    full = part.field("day") + " " + part.field("clock").fill_null("00:00") + ":" + second
    local = full.str.strptime(pl.Datetime("us"), "%Y-%m-%d %H:%M:%S%.f", strict=False)
    offset = part.field("hours").cast(pl.Int64) * 60 + part.field("minutes").cast(pl.Int64)
    sign = (part.field("sign") == "-").cast(pl.Int64) * 2 - 1
    shift = (offset * sign * 60_000_000).fill_null(0)
    return local.to_physical() + shift
