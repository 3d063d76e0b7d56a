"""Opening tables: any file or frame people keep logs in, as one lazy Polars frame.

Whatever is wrong with a file becomes one DataError that names the file and the first bad line,
counted as a person counts them in an editor: the header is line 1.
"""

import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any

import polars as pl

from dimerec.errors import DataError

ROW = "__row__"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class Table:
    """A lazily read table that knows how to speak of its own rows.

    Attributes:
        lazy: the rows; of a text file every column is a string.
        name: what messages call it, the path or "the frame".
        columns: its column names, in order.
        path: the file, None for a frame.
        separator: of a text file, "" for anything else.
    """

    lazy: pl.LazyFrame
    name: str
    columns: list[str]
    path: Path | None = None
    separator: str = ""

    @property
    def text(self) -> bool:
        """Whether values are text as written, so that numbers must be told from strings."""
        return bool(self.separator)

    def read(self, columns: Iterable[str]) -> pl.DataFrame:
        """The rows of `columns` with their index in `ROW` (uint32, 0-based).

        Raises:
            DataError: no rows, or anything that makes the file unreadable.
        """
        wanted = list(dict.fromkeys(columns))
        try:
            frame = self.lazy.select(wanted).with_row_index(ROW).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as e:
            raise self._unreadable(e) from e
        if self.text:
            while frame.height and all(v is None for v in frame.row(-1)[1:]):
                frame = frame.head(-1)  # blank lines at the end of a file
        if not frame.height:
            found = f"only a header ({', '.join(self.columns)})" if self.text else "no rows"
            raise DataError(f"{self.name}: {found}, so there is nothing to read; give it rows")
        return frame

    def fail(self, column: str, row: int, what: str) -> DataError:
        """The error for a value in `column`, at 0-based `row`."""
        return DataError(f"{self.name}, column {column!r}, {self.place(row)}: {what}")

    def place(self, row: int) -> str:
        """What a person calls the 0-based `row`: its line in a text file, else its row from 1."""
        if not self.path or not self.text:
            return f"row {row + 1}"
        with _open(self.path) as raw:
            records = csv.reader(_decoded(raw), delimiter=self.separator)
            line = 1
            for _, _record in zip(range(row + 1), records, strict=False):
                line = records.line_num + 1
        return f"line {line}"

    def digest(self) -> str | None:
        """SHA-256 (hex) of the file's bytes; None for a frame."""
        if self.path is None:
            return None
        with self.path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    def _unreadable(self, error: Exception) -> DataError:
        return _unreadable(self.path, self.name, self.separator, error)


def open_table(source: Any) -> Table:
    """The table at a path, or of a Polars, pandas or Arrow frame.

    Text is `.csv` (commas) or `.tsv` (tabs), plain, `.gz` or `.zst`; `.parquet`; `.arrow`,
    `.feather` or `.ipc`.

    Raises:
        DataError: missing, a directory, empty, of another kind, or not readable as what it is.
    """
    if isinstance(source, (str, Path)):
        return _open_file(Path(source))
    try:
        lazy = _lazy(source)
        return Table(lazy, "the frame", lazy.collect_schema().names())
    except (pl.exceptions.PolarsError, OSError) as e:
        raise DataError(f"the frame: {_first_line(e)}") from e


def _lazy(source: Any) -> pl.LazyFrame:
    if isinstance(source, pl.LazyFrame):
        return source
    if isinstance(source, pl.DataFrame):
        return source.lazy()
    kind = f"{type(source).__module__}.{type(source).__name__}"
    if kind.startswith("pandas.") and kind.endswith("DataFrame"):
        return _from_pandas(source).lazy()
    if hasattr(source, "__arrow_c_stream__"):
        return pl.DataFrame(source).lazy()
    raise DataError(
        f"cannot read a log from {kind}: give a path or a Polars, pandas or Arrow frame"
    )


def _from_pandas(frame: Any) -> pl.DataFrame:
    # Object columns may mix integers with strings, which Arrow refuses: such columns become text.
    mixed = {
        name: column.map(str, na_action="ignore")
        for name, column in frame.items()
        if column.dtype == object and len({type(v) for v in column.dropna()}) > 1
    }
    named = frame.assign(**mixed) if mixed else frame
    return pl.from_pandas(named.rename(columns=str).reset_index(drop=True))


def _open_file(path: Path) -> Table:
    if path.is_dir():
        raise DataError(f"{path}: a directory, where one file of interactions is expected")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    suffixes = [s.lower() for s in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in COMPRESSED
    kind = "".join(suffixes[-2:-1] if packed else suffixes[-1:])
    separator = SEPARATORS.get(kind, "")
    if not separator and (packed or kind not in PARQUET + ARROW):
        raise DataError(
            f"{path}: cannot tell its format from its name; name it .csv or .tsv "
            "(also .gz, .zst), .parquet, .arrow or .feather"
        )
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        if separator:
            lazy = pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
        elif kind in PARQUET:
            lazy = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        else:
            lazy = _scan_arrow(path)
        columns = lazy.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as e:
        raise _unreadable(path, str(path), separator, e) from e
    if separator and len(columns) == 1:
        _check_separator(path, columns[0], separator)
    return Table(lazy, str(path), columns, path, separator)


def _scan_arrow(path: Path) -> pl.LazyFrame:
    with path.open("rb") as f:
        is_file = f.read(6) == b"ARROW1"
    return pl.scan_ipc(path, glob=False) if is_file else pl.read_ipc_stream(path).lazy()


def _check_separator(path: Path, header: str, expected: str) -> None:
    for other, name in (
        ("::", "'::'"),
        ("\t", "tabs"),
        (";", "';'"),
        ("|", "'|'"),
        (",", "commas"),
    ):
        if other in header and other != expected:
            wanted = {",": "a .csv has commas", "\t": "a .tsv has tabs"}[expected]
            way_out = {
                "\t": "name it .tsv",
                ",": "name it .csv",
            }.get(other, "rewrite it so, or read it yourself and give the frame")
            raise DataError(
                f"{path}, line 1: one column only, {header!r}: it looks separated by {name}, "
                f"but {wanted}; {way_out}"
            )


def _unreadable(path: Path | None, name: str, separator: str, error: Exception) -> DataError:
    if isinstance(error, pl.exceptions.NoDataError):
        return DataError(f"{name}: the file is empty")
    if path and separator:
        try:
            found = _first_fault(path, separator)
        except (OSError, EOFError, zlib.error) as e:
            return DataError(f"{name}: damaged or cut short ({_first_line(e)}); get it again")
        if found:
            return DataError(f"{name}, {found}")
    if path:
        return DataError(f"{name}: damaged or cut short ({_first_line(error)}); get it again")
    return DataError(f"{name}: {_first_line(error)}")


def _first_fault(path: Path, separator: str) -> str:
    """What is wrong with the text and on which line; "" when nothing is found."""
    start = 1
    try:
        with _open(path) as raw:
            records = csv.reader(_decoded(raw), delimiter=separator, strict=True)
            header = next(records, [])
            start = records.line_num + 1
            for record in records:
                if len(record) > len(header):
                    return (
                        f"line {start}: {len(record)} fields where the header has {len(header)}; "
                        "quote values that hold the separator"
                    )
                start = records.line_num + 1
    except UnicodeDecodeError as e:
        return f"line {e.start}: not UTF-8 ({e.reason}); save the file as UTF-8"
    except csv.Error as e:
        return f"line {start}: {e}; a quote is opened and not closed properly"
    return ""


def _decoded(raw: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(raw, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise UnicodeDecodeError("utf-8", b"", number, number, e.reason) from e


def _open(path: Path) -> BufferedIOBase:
    """The file's text as bytes, unpacked as its first bytes ask (Polars goes by these too)."""
    with path.open("rb") as f:
        start = f.read(4)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return BufferedReader(pa.input_stream(path, compression="zstd"))
    return path.open("rb")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
