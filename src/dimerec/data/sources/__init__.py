"""Public datasets: where they come from, on which terms, and how their original files are read.

A file in this package is one family and lists its `SOURCES`; `all` finds them by looking. `fetch`
brings the original files onto the disk, `read` turns them into an `InteractionLog` after checking
that they are complete. A folder in the one prepared layout (see `prepared`) is read under any name.
"""

import dataclasses
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from dimerec import plugins
from dimerec.data.card import Filter
from dimerec.data.fetch import Remote, download, unpack
from dimerec.data.interactions import InteractionLog
from dimerec.errors import DataError

NOTICES = ("README", "README.txt", "README.md", "README.html", "LICENSE", "LICENSE.txt")
Files = Mapping[str, Path]
Parse = Callable[[Files], tuple[pl.DataFrame, pl.DataFrame | None]]


class Counts(msgspec.Struct, frozen=True):
    """How much a complete dataset holds; items are those that occur in an event."""

    events: int
    users: int
    items: int


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One public dataset.

    Attributes:
        name: what it is called here.
        title, licence, citation, home: for people; `licence` is one line.
        counts: what the complete original holds, checked on reading.
        log: name of the file with the events.
        others: files read beside it where they are present (titles, categories).
        parse: (files by name) -> (events, items). Events: `user`, `item`, `timestamp` (or
            `position`), and what else is known (`rating`, `watch_ratio`). Items: `item`,
            `title` (null where unknown), `categories` list; None where nothing is known.
        remotes: what `fetch` downloads, an archive of these files or the files themselves.
        where, duplicates: the filter and the repeats policy `read` applies unless told otherwise.
        embedded: folder inside the package that holds the data, for the one that may be shipped.
        obtain: how to get it where `fetch` cannot download it.
    """

    name: str
    title: str
    licence: str
    citation: str
    home: str
    counts: Counts
    log: str
    parse: Parse
    others: tuple[str, ...] = ()
    remotes: tuple[Remote, ...] = ()
    where: str | None = None
    duplicates: str = "keep"
    embedded: Path | None = None
    obtain: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to download; None where the publisher does not state it."""
        sizes = [r.bytes for r in self.remotes]
        return None if not sizes or None in sizes else sum(s for s in sizes if s is not None)

    def files(self, place: Path) -> dict[str, Path]:
        """The files of this dataset at `place`, a folder (looked into two levels deep) or its log.

        The other files are looked for beside the log. Any may be gzipped, or unpacked where the
        original is. Raises DataError when the log is not there, or there more than once.
        """
        log = place if place.is_file() else _look(place, self.log)
        if log is None:
            raise DataError(f"{place}: {self.name} is read from {self.log}, which is not there")
        beside = {name: _beside(log.parent, name) for name in self.others}
        return {self.log: log} | {name: path for name, path in beside.items() if path}

    def check(self, events: pl.DataFrame, place: Path) -> None:
        """Raise DataError unless `events` are as many as the complete dataset has."""
        found = Counts(events.height, events["user"].n_unique(), events["item"].n_unique())
        if found != self.counts:
            raise DataError(
                f"{place}: {self.name} has {_said(self.counts)}, but here are {_said(found)}; the "
                "files are incomplete or of another version. Fetch them again, or prepare the "
                "log file as your own data"
            )


class Loaded(msgspec.Struct, frozen=True):
    """A dataset as read.

    Attributes:
        log: the events.
        items: `item`, `title`, `categories`; None where nothing is known of them.
        split: the official split, `user` and `split` ("train", "valid", "test"), if there is one.
        origin: name, title, licence, citation, home, layout ("original" or "prepared") and the
            SHA-256 of the log file; the log's report has them too.
    """

    log: InteractionLog
    items: pl.DataFrame | None
    split: pl.DataFrame | None
    origin: dict[str, Any]


def all() -> list[Source]:
    """Every source, by name."""
    families = (plugins.load(__name__, name) for name in plugins.names(__name__))
    return sorted((s for family in families for s in family.SOURCES), key=lambda s: s.name)


def get(name: str) -> Source:
    """The source called `name`; DataError naming the choices when there is none."""
    known = {source.name: source for source in all()}
    if name not in known:
        raise DataError(f"no such dataset: {name!r} (known: {', '.join(known)})")
    return known[name]


def fetch(name: str, into: Path | str, from_path: Path | str | None = None) -> Path:
    """Where the files of `name` are, bringing them there first if need be; `read` takes the answer.

    With `from_path`, a folder or log file is used where it lies, and a zip archive is unpacked
    into `into/name`. Without it: a folder called `name` in the folder that the environment
    variable DIMEREC_DATA names; else the copy inside the package; else `into/name`, downloaded
    from the publisher unless it is already there, and checked against the size and checksum he
    states.

    Raises:
        DataError: no such dataset, the server cannot be reached or sends something else, files
            are missing, or the dataset has to be fetched by hand (says how).
    """
    source = get(name)
    target = Path(into) / name
    if from_path is not None:
        return _given(source, Path(from_path), target)
    if (here := held(source)) is not None:
        return here
    if target.is_dir():
        return _given(source, target, target)
    if not source.remotes:
        raise DataError(f"{name} cannot be downloaded: {source.obtain}")
    if not source.remotes[0].name.endswith(".zip"):
        for remote in source.remotes:
            download(remote, Path(into) / f".{name}")
        os.replace(Path(into) / f".{name}", target)
        return target
    archive = download(source.remotes[0], Path(into))
    unpack(archive, target, [source.log], (*source.others, *NOTICES))
    archive.unlink()
    return target


def read(
    name: str,
    path: Path | str | None = None,
    *,
    where: str | Sequence[str] | None = None,
    duplicates: str | None = None,
    complete: bool = True,
) -> Loaded:
    """Read `name` from `path`: a folder, the log file, a zip archive, or a prepared folder.

    Without `path` it is the folder in DIMEREC_DATA or the copy inside the package. `where` and
    `duplicates` replace the filter and the policy that the source applies by itself.
    `complete=False` leaves the counts unchecked.

    Raises:
        DataError: not there; a malformed line (names file and line); not all of the dataset.
    """
    source = get(name)
    place = Path(path) if path is not None else held(source)
    if place is None:
        raise DataError(
            f"{name} is not here yet: dimerec fetch {name}, or say where it is (--from)"
        )
    if not place.exists():
        raise DataError(f"{place}: no such file or folder, looking for {name}")
    events, items, split, about = _events(source, place)
    if complete:
        source.check(events, place)
    timed, untimed = _timed(events)
    log = InteractionLog.read(
        timed,
        where=source.where if where is None else where,
        duplicates=source.duplicates if duplicates is None else duplicates,
        name=source.name,
    )
    origin = {n: getattr(source, n) for n in ("title", "licence", "citation", "home")} | about
    log = dataclasses.replace(
        log,
        report=log.report | {"source": source.name, "rows": events.height} | origin,
        filters=(*untimed, *log.filters),
    )
    return Loaded(log, items, split, {"name": source.name, **origin})


def _timed(events: pl.DataFrame) -> tuple[pl.DataFrame, list[Filter]]:
    """Events that have a time, and the filter that took the others away, if it took any."""
    if "timestamp" not in events.columns or not events["timestamp"].null_count():
        return events, []
    kept = events.filter(pl.col("timestamp").is_not_null())
    return kept, [
        Filter(
            name="rows without a time",
            events_removed=events.height - kept.height,
            users_removed=events["user"].n_unique() - kept["user"].n_unique(),
            items_removed=events["item"].n_unique() - kept["item"].n_unique(),
        )
    ]


def _events(
    source: Source, place: Path
) -> tuple[pl.DataFrame, pl.DataFrame | None, pl.DataFrame | None, dict[str, Any]]:
    """Events, items, the official split, and layout and digest of what was read."""
    from dimerec.data.sources import prepared

    if (folder := prepared.folder(place)) is not None:
        files = prepared.files(folder)
        about = {"layout": "prepared", "sha256": _digest(files[prepared.EVENTS])}
        return *prepared.parse(files), prepared.split(folder), about
    with tempfile.TemporaryDirectory(prefix="dimerec-") as scratch:
        if place.is_file() and zipfile.is_zipfile(place):
            place = unpack(place, Path(scratch) / source.name, [source.log], source.others)
        files = source.files(place)
        return (
            *source.parse(files),
            None,
            {
                "layout": "original",
                "sha256": _digest(files[source.log]),
            },
        )


def _digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _given(source: Source, path: Path, target: Path) -> Path:
    from dimerec.data.sources import prepared

    if not path.exists():
        raise DataError(f"{path}: no such file or folder (given with --from)")
    if path.is_file():
        with path.open("rb") as f:
            start = f.read(6)
        if start == b"7z\xbc\xaf\x27\x1c":
            raise DataError(f"{path}: DimeRec does not unpack .7z; run `7z x` and pass the folder")
        if zipfile.is_zipfile(path):
            return unpack(path, target, [source.log], (*source.others, *NOTICES))
    if (folder := prepared.folder(path)) is not None:
        return folder
    source.files(path)
    return path


def held(source: Source) -> Path | None:
    """Where `source` lies already: in DIMEREC_DATA, or inside the package; None if nowhere."""
    root = os.environ.get("DIMEREC_DATA")
    if root and (Path(root) / source.name).is_dir():
        return Path(root) / source.name
    return source.embedded


def _look(place: Path, name: str) -> Path | None:
    """The file `name` in `place` or up to two folders below; DataError when there are several."""
    for depth in (".", "*", "*/*"):
        folders = sorted(place.glob(depth)) if depth != "." else [place]
        found = [path for folder in folders if (path := _beside(folder, name)) is not None]
        if len(found) > 1:
            raise DataError(f"{place}: {name} is there more than once: {found[0]}, {found[1]}")
        if found:
            return found[0]
    return None


def _beside(folder: Path, name: str) -> Path | None:
    """`folder/name`, or its gzipped or unpacked form."""
    forms = (name, f"{name}.gz", name.removesuffix(".gz"))
    return next((folder / form for form in forms if (folder / form).is_file()), None)


def _said(counts: Counts) -> str:
    return f"{counts.events:,} events of {counts.users:,} users on {counts.items:,} items"
