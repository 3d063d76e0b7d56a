"""Columns of a log, found by their usual names, and the ids they hold."""

import re
from collections.abc import Collection, Iterable, Mapping

import polars as pl

from dimerec.data.tables import ROW, Table
from dimerec.errors import DataError

# The usual names, most telling first; compared without case, spaces, "_" or "-".
# fmt: off
ALIASES = {
    "user": (
        "user_id", "user", "uid", "user_name", "session_id", "session", "visitor_id",
        "customer_id", "customer", "client_id", "member_id", "account_id", "reviewer_id",
        "viewer_id",
    ),
    "item": (
        "item_id", "item", "iid", "movie_id", "movie", "video_id", "video", "asin", "parent_asin",
        "sku", "product_id", "product", "article_id", "article", "track_id", "song_id", "book_id",
        "isbn", "business_id", "news_id", "content_id",
    ),
    "time": (
        "timestamp", "time", "datetime", "ts", "unix_time", "unix_review_time", "event_time",
        "created_at", "date", "t",
    ),
    "position": ("position", "pos", "order", "step"),
}
# fmt: on
INTEGER = r"^(?:0|-?[1-9][0-9]{0,17})$"  # as an integer is written: "007" is a string


def find(table: Table, given: Mapping[str, str] | None) -> dict[str, str]:
    """Which column of `table` is the "user", "item" and, where there is one, "time" or "position".

    `given` maps these words to column names and goes before the usual names.

    Raises:
        DataError: a given column is not there, or no usual name is; lists what was found.
    """
    given = dict(given or {})
    if unknown := set(given) - set(ALIASES):
        raise DataError(
            f"columns are given as user, item, time or position, not {sorted(unknown)[0]!r}"
        )
    if "time" in given and "position" in given:
        raise DataError("columns: give time or position, not both")
    found: dict[str, str] = {}
    for role, aliases in ALIASES.items():
        if role in given:
            if given[role] not in table.columns:
                raise _missing(table, f"no column {given[role]!r} (given as {role})")
            found[role] = given[role]
        else:
            name = first_alias(table.columns, aliases, but=given.values())
            if name is not None:
                found[role] = name
    for role in ("user", "item"):
        if role not in found:
            names = ", ".join(ALIASES[role])
            raise _missing(table, f"no {role} column (usual names: {names})")
    if "time" in found and "position" in found:
        found.pop("time" if "position" in given else "position")
    if len(set(found.values())) != len(found):
        raise DataError(f"{table.name}: one column is given twice: {found}")
    return found


def first_alias(
    columns: Iterable[str], aliases: Iterable[str], but: Collection[str] = ()
) -> str | None:
    """The column that goes by the first of `aliases` that any does, leaving out `but`."""
    here = {_plain(name): name for name in columns if name not in but}
    return next((here[_plain(a)] for a in aliases if _plain(a) in here), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]", "", name).casefold()


def _missing(table: Table, what: str) -> DataError:
    found = ", ".join(table.columns)
    return DataError(
        f"{table.name}: {what}; found: {found}. Name yours with columns user=..,item=..,time=.."
    )


def ids(table: Table, frame: pl.DataFrame, column: str) -> pl.Series:
    """The ids in `column`, Int64 where all are integers, else String; spaces around are dropped.

    Raises:
        DataError: an id that is null or empty, or a kind of value that is no id.
    """
    values = frame[column]
    if values.dtype.is_float():
        whole = values.is_nan() | (values == values.floor()) | values.is_null()
        refuse(table, frame, column, ~whole, "is no id: ids are integers or strings")
        parsed = values.fill_nan(None).cast(pl.Int64, strict=False)
    elif values.dtype.is_integer():
        parsed = values.cast(pl.Int64, strict=False)
        if parsed.null_count() > values.null_count():
            parsed = values.cast(pl.String)
    elif values.dtype == pl.String or isinstance(values.dtype, (pl.Categorical, pl.Enum)):
        text = values.cast(pl.String).str.strip_chars()
        parsed = text.set(text == "", None)
        if table.text and parsed.drop_nulls().str.contains(INTEGER).all():
            parsed = parsed.cast(pl.Int64)
    else:
        raise DataError(
            f"{table.name}, column {column!r}: holds {values.dtype}; ids are integers or strings"
        )
    refuse(table, frame, column, parsed.is_null(), "no id: every event needs one")
    return parsed


def refuse(table: Table, frame: pl.DataFrame, column: str, bad: pl.Series, what: str) -> None:
    """Raise for the first row where `bad`, showing its value."""
    first = bad.arg_max() if bad.any() else None
    if first is None:
        return
    value = frame[column][first]
    shown = "" if value is None or value == "" else f"{value!r}: "
    raise table.fail(column, frame[ROW][first], shown + what)
