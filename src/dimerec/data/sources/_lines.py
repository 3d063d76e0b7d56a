"""Original text files as typed columns; a malformed line is a DataError naming file and line."""

import csv
import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import polars as pl

from dimerec.errors import DataError

Schema = Mapping[str, Any]  # column -> Polars type, one of KINDS
KINDS = {pl.Int64: (int, "an integer"), pl.Float64: (float, "a number"), pl.String: (str, "text")}


def table(
    path: Path,
    schema: Schema,
    *,
    separator: str = ",",
    header: bool = True,
    optional: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Columns of a text file, plain or gzipped.

    With a header, the columns named in `schema` wherever they stand; without, `schema` names all
    fields in order. `separator` is one character or "::". Values may be missing only in columns
    named `optional`. Raises DataError with the first line that is not so.
    """
    if separator == "::":  # a one-character separator twice: an empty field between any two
        names = list(schema)
        gaps = {f"gap {n}": pl.String for n in names[1:]}
        order = [names[0], *(x for n in names[1:] for x in (f"gap {n}", n))]
        physical: Schema = {x: (schema[x] if x in schema else gaps[x]) for x in order}
    else:
        gaps, physical = {}, schema
    try:
        if header:
            frame = pl.read_csv(
                path, separator=separator, columns=list(schema), schema_overrides=schema
            ).select(list(schema))
        else:
            frame = pl.read_csv(
                path, separator=separator[0], has_header=False, schema=physical, quote_char=None
            )
    except (pl.exceptions.PolarsError, OSError) as e:
        reason = str(e).strip().splitlines()[0]
        raise _fault(path, schema, separator, header, optional, reason) from e
    filled = (name for name in schema if name not in optional)
    if any(frame[n].null_count() for n in filled) or any(
        frame[g].null_count() < frame.height for g in gaps
    ):
        raise _fault(path, schema, separator, header, optional, "a value is missing")
    if not frame.height:
        raise DataError(f"{path}: the file holds no rows")
    return frame.drop(list(gaps))


def records(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(Line number from 1, line without its end) of a text file, plain or gzipped."""
    number = 0
    try:
        with _opened(path) as f:
            for number, line in enumerate(f, 1):
                yield number, line.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}, line {number}: not {encoding} text ({e.reason})") from e
    except (OSError, EOFError) as e:
        raise DataError(f"{path}: damaged or cut short after line {number} ({e})") from e


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    with path.open("rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as f:
        yield f


def _fault(
    path: Path,
    schema: Schema,
    separator: str,
    header: bool,
    optional: tuple[str, ...],
    reason: str,
) -> DataError:
    """What is wrong with the file, found by going through it slowly."""
    lines = records(path)
    columns = list(schema)
    try:
        if header:
            _, first = next(lines, (0, ""))
            columns = next(csv.reader([first], delimiter=separator), [])
            if missing := [c for c in schema if c not in columns]:
                found = ", ".join(columns) or "nothing"
                return DataError(f"{path}: no column {', '.join(missing)}; found: {found}")
        for number, line in lines:
            if separator == "::" or not header:
                fields = line.split(separator)
            else:
                fields = next(csv.reader([line], delimiter=separator), [])
            if (wrong := _wrong(fields, columns, schema, optional)) is not None:
                return DataError(f"{path}, line {number}: {wrong}: {line[:80]!r}")
    except DataError as e:
        return e
    return DataError(f"{path}: cannot be read ({reason})")


def _wrong(
    fields: list[str], columns: list[str], schema: Schema, optional: tuple[str, ...]
) -> str | None:
    if len(fields) != len(columns):
        return f"expected {len(columns)} fields ({', '.join(columns)}), found {len(fields)}"
    for name, value in zip(columns, fields, strict=True):
        if name not in schema or (not value and name in optional):
            continue
        parse, what = KINDS[schema[name]]
        try:
            if not value:
                raise ValueError
            parse(value)
        except ValueError:
            return f"{name} is not {what}"
    return None
