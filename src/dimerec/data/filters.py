"""What is dropped from a log, each filter with an account of what it removed."""

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from dimerec.data.card import Filter
from dimerec.data.tables import ROW, Table
from dimerec.errors import DataError

DUPLICATES = ("keep", "first", "last", "collapse")
CONDITION = re.compile(
    r"""\s*(?:`(?P<quoted>[^`]+)`|(?P<column>\w+))
        \s*(?P<op>==|!=|<>|>=|<=|=|<|>)
        \s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s"'=<>]+))\s*""",
    re.VERBOSE,
)
SAME = {"=": "==", "<>": "!="}


@dataclass(frozen=True)
class Condition:
    """`column op value`: which events are kept.

    Attributes:
        column: as the table calls it.
        op: one of == != < <= > >=.
        value: a number, or text; text is compared letter by letter (which suits ISO dates).
        written: the value as it was written.
        text: the condition as it was written.
    """

    column: str
    op: str
    value: float | str
    written: str
    text: str

    def keeps(self, table: Table, frame: pl.DataFrame) -> pl.Series:
        """Which rows of `frame` meet the condition; a missing value never does.

        Raises:
            DataError: a value that cannot be compared with this condition's.
        """
        column = frame[self.column]
        left = column
        right: float | str = self.value
        if isinstance(right, str):
            if column.dtype.is_numeric():
                raise DataError(f"where {self.text}: column {self.column!r} holds numbers")
            right = right.lower() if column.dtype == pl.Boolean else right
            left = column.cast(pl.String)
        elif not column.dtype.is_numeric():
            text = column.cast(pl.String).str.strip_chars()
            left = text.cast(pl.Float64, strict=False)
            bad = left.is_null() & text.is_not_null()
            if bad.any() and self.op in ("==", "!="):
                left, right = text, self.written
            elif bad.any():
                row = int(bad.arg_max() or 0)
                what = f"{text[row]!r} is no number, but the condition is {self.text}"
                raise table.fail(self.column, frame[ROW][row], what)
        comparison = {
            "==": pl.Series.__eq__,
            "!=": pl.Series.__ne__,
            "<": pl.Series.__lt__,
            "<=": pl.Series.__le__,
            ">": pl.Series.__gt__,
            ">=": pl.Series.__ge__,
        }[self.op]
        return comparison(left, right).fill_null(False)


def conditions(where: str | list[str] | tuple[str, ...] | None) -> list[Condition]:
    """The conditions written in `where`, one or several (all must hold).

    Each is `column op value` with op one of == != < <= > >=; a value with spaces stands in quotes,
    a column with spaces in backticks. A bare value that reads as a number is one.

    Raises:
        DataError: a text that is no such condition.
    """
    found = []
    for text in [where] if isinstance(where, str) else where or []:
        match = CONDITION.fullmatch(text)
        if not match:
            raise DataError(
                f"where {text!r}: write it as column op value, as in rating>=4 or "
                "event=='view' (op: == != < <= > >=); give where several times for several"
            )
        parts = match.groupdict()
        written = next(parts[k] for k in ("double", "single", "bare") if parts[k] is not None)
        value: float | str = written
        if parts["bare"] is not None:
            try:
                value = float(written)
            except ValueError:
                pass
        op = SAME.get(parts["op"], parts["op"])
        column = parts["quoted"] or parts["column"]
        found.append(Condition(column, op, value, written, text.strip()))
    return found


def without_duplicates(frame: pl.DataFrame, policy: str) -> pl.DataFrame:
    """A log frame (sorted by user, then time) under the `policy` for repeated items.

    "keep" keeps all; "first" and "last" one event a (user, item); "collapse" the first of every
    run in which a user's item repeats immediately.

    Raises:
        DataError: no such policy.
    """
    if policy not in DUPLICATES:
        raise DataError(f"no duplicates policy {policy!r} (known: {', '.join(DUPLICATES)})")
    if policy == "keep":
        return frame
    pair = pl.struct("user", "item")
    kept = {
        "first": pair.is_first_distinct(),
        "last": pair.is_last_distinct(),
        "collapse": (pair != pair.shift(1)).fill_null(True),
    }[policy]
    return frame.filter(kept)


def core(users: np.ndarray, items: np.ndarray, *, user: int, item: int) -> np.ndarray:
    """Which events stay, bool `[N]`, of those with codes `users` and `items` (int `[N]`, from 0).

    Events of items with under `item` events go, then those of users with under `user`, again and
    again until nothing changes: what stays is the largest set in which all have enough.
    """
    keep = np.ones(len(users), bool)
    while True:
        before = int(keep.sum())
        for codes, least in ((items, item), (users, user)):
            if least > 1 and keep.any():
                counts = np.bincount(codes[keep], minlength=int(codes.max()) + 1)
                keep &= (counts >= least)[codes]
        if int(keep.sum()) == before:
            return keep


def account(name: str, start: int, filters: list[Filter]) -> DataError:
    """The error for a log of `start` events of which the filters left nothing."""
    taken = "; ".join(f"{f.name} removed {f.events_removed}" for f in filters)
    return DataError(f"{name}: nothing is left of {start} events: {taken}; loosen a filter")
