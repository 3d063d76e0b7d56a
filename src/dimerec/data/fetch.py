"""Download a public file (progress, resume, checksum) and take what is needed out of an archive."""

import hashlib
import http.client
import os
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from dimerec.errors import DataError
from dimerec.files import new_directory

BLOCK = 1 << 20
Advance = Callable[[int, int | None], None]


class Remote(msgspec.Struct, frozen=True):
    """A file on a server. `bytes` and `md5` are what its publisher states, None where unstated."""

    url: str
    bytes: int | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's name, the last part of the address."""
        return self.url.rpartition("/")[2]


class _Stopped(Exception):
    """A transfer that broke off and is worth another try."""


def download(
    remote: Remote, folder: Path, *, attempts: int = 4, pause: float = 1.0, timeout: float = 30.0
) -> Path:
    """`folder/remote.name`, downloaded whole; what is already there and right is kept.

    The bytes gather in `NAME.part`; a broken transfer goes on from there (HTTP Range), up to
    `attempts` times with pauses of `pause`, 2 `pause`, ... seconds, and so does the next call.
    The finished file has the stated size and MD5 and appears by a rename. Raises DataError when
    the server cannot be reached, refuses, keeps breaking off, or sends something else.
    """
    target = folder / remote.name
    if target.exists() and _wrong(target, remote) is None:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"{folder}: cannot be written ({e.strerror})") from e
    part = target.with_name(f"{target.name}.part")
    with _progress(remote.name) as advance:
        for attempt in range(attempts):
            try:
                _transfer(remote, part, advance, timeout)
                break
            except _Stopped as e:
                stopped = str(e)
                if attempt + 1 < attempts:
                    time.sleep(pause * 2**attempt)
        else:
            have = part.stat().st_size if part.exists() else 0
            raise DataError(
                f"{remote.url}: the transfer stopped {attempts} times, last at byte {have:,} "
                f"({stopped}); run the same command again to go on from there"
            )
    if (wrong := _wrong(part, remote)) is not None:
        part.unlink()
        raise DataError(
            f"{remote.url}: {wrong}; the download was discarded. Try again later, or pass a copy "
            "you trust with --from"
        )
    os.replace(part, target)
    return target


def _transfer(remote: Remote, part: Path, advance: Advance, timeout: float) -> None:
    """One request: append to `part` what it lacks. Raises _Stopped or DataError."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == remote.bytes:
        return
    headers = {"User-Agent": "dimerec"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(remote.url, headers=headers), timeout=timeout
        ) as answer:
            start, total = _extent(answer.headers, answer.status)
            if remote.bytes is not None and total not in (None, remote.bytes):
                raise DataError(
                    f"{remote.url}: the server offers {total:,} bytes where {remote.bytes:,} were "
                    "published; the file was replaced. Pass a copy you trust with --from"
                )
            if start not in (0, have):
                part.unlink(missing_ok=True)
                raise _Stopped("the server answered with another range")
            done = _append(answer, part, start, total, advance)
            if total is not None and done != total:
                raise _Stopped(f"the connection closed at byte {done:,} of {total:,}")
    except urllib.error.HTTPError as e:
        if e.code == 416:  # nothing after what we have: finished, or not this file's beginning
            if e.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return
            part.unlink(missing_ok=True)
            raise _Stopped("the server does not know the part downloaded before") from e
        if e.code in (408, 429, 500, 502, 503, 504):
            raise _Stopped(f"the server answered {e.code} {e.reason}") from e
        raise DataError(
            f"{remote.url}: the server answered {e.code} {e.reason}; get the file from another "
            "place and pass it with --from"
        ) from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, TimeoutError):
            raise _Stopped("no answer in time") from e
        raise DataError(
            f"{remote.url}: the server cannot be reached ({e.reason}). Without a network, fetch "
            "the file elsewhere and pass it with --from"
        ) from e
    except (http.client.HTTPException, OSError) as e:
        raise _Stopped(str(e) or type(e).__name__) from e


def _extent(headers: http.client.HTTPMessage, status: int) -> tuple[int, int | None]:
    """(First byte of the body, length of the whole file where the server says)."""
    if status == 206:
        span, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return int(first) if first.isdigit() else -1, int(whole) if whole.isdigit() else None
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _append(
    body: http.client.HTTPResponse, part: Path, start: int, total: int | None, advance: Advance
) -> int:
    """Write the body at `start` of `part`; how many bytes `part` has then."""
    try:
        out = part.open("ab" if start else "wb")
    except OSError as e:
        raise DataError(f"{part}: cannot be written ({e.strerror})") from e
    with out:
        done = start
        while block := body.read(BLOCK):
            try:
                out.write(block)
                out.flush()
            except OSError as e:
                raise DataError(f"{part}: cannot be written ({e.strerror})") from e
            done += len(block)
            advance(done, total)
    return done


def _wrong(path: Path, remote: Remote) -> str | None:
    """What disagrees with the published size and checksum; None when nothing does."""
    size = path.stat().st_size
    if remote.bytes is not None and size != remote.bytes:
        return f"{size:,} bytes came where {remote.bytes:,} were published"
    if remote.md5 is None:
        return None
    with path.open("rb") as f:
        found = hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return None if found == remote.md5 else f"its MD5 is {found}, published was {remote.md5}"


@contextmanager
def _progress(name: str) -> Iterator[Advance]:
    """A bar on a terminal's standard error, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    quiet = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def unpack(
    archive: Path, folder: Path, required: Collection[str], optional: Collection[str] = ()
) -> Path:
    """Take the members named `required` and `optional` out of a zip into the new `folder`.

    Members are known by their file name alone, wherever they lie in the archive, and are written
    flat; nothing else is. `folder` appears whole or not at all. Raises DataError for a broken
    archive, one that names places outside itself, or one that lacks a required file.
    """
    try:
        with zipfile.ZipFile(archive) as z:
            members = _members(archive, z, {*required, *optional})
            if missing := [name for name in required if name not in members]:
                raise DataError(f"{archive}: the archive lacks {', '.join(missing)}")
            with new_directory(folder) as temporary:
                for name, info in members.items():
                    with z.open(info) as source, (temporary / name).open("wb") as out:
                        shutil.copyfileobj(source, out, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise DataError(f"{archive}: not a sound zip archive ({e}); fetch it again") from e
    except OSError as e:
        raise DataError(f"{folder}: cannot unpack {archive.name} ({e.strerror or e})") from e
    return folder


def _members(archive: Path, z: zipfile.ZipFile, names: set[str]) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in z.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.as_posix()[:2]:
            raise DataError(
                f"{archive}: the archive names a place outside itself ({info.filename!r}); "
                "it is not the published one, and nothing was unpacked"
            )
        if path.name not in names or info.is_dir() or path.parts[0] == "__MACOSX":
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{archive}: {info.filename!r} is a link; nothing was unpacked")
        if path.name in found:
            raise DataError(f"{archive}: the archive holds {path.name} twice; unpack it by hand")
        found[path.name] = info
    return found
