"""An index on disk: its files and a manifest with size and SHA-256 of each. No pickle.

Every file is hashed before anything parses it. That finds damage, not malice: whoever can write
the folder can write the manifest, too.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from dimerec import files
from dimerec.config import Struct
from dimerec.errors import BundleError, DataError
from dimerec.manifest import FileEntry

if TYPE_CHECKING:
    from dimerec.retrieval.local import LocalIndex

MANIFEST, SCHEMA, LIMIT = "index.json", 1, 2**20
AGAIN = "build it again with `dimerec index`"
Writer = Callable[[Path], Any]


class Stored(Struct, frozen=True):
    """What `index.json` holds.

    Attributes:
        kind: which index this is.
        vectors: SHA-256 of the item vectors and of which are gone, see `digest`.
        settings: what the kind needs besides its files.
        files: size and SHA-256 of each.
        digest: SHA-256 of all the rest.
    """

    schema: int
    kind: Literal["exact", "approximate"]
    vectors: str
    settings: dict[str, int | str]
    files: dict[str, FileEntry]
    digest: str = ""

    def sealed(self) -> "Stored":
        """The same with the digest it must have."""
        rest = msgspec.to_builtins(msgspec.structs.replace(self, digest=""))
        value = hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()
        return msgspec.structs.replace(self, digest=value)


def digest(vectors: np.ndarray, gone: np.ndarray | None = None) -> str:
    """SHA-256 (hex) of item vectors `[V, d]` as float32, and of the numbers that are no items."""
    table = np.ascontiguousarray(vectors, "<f4")
    numbers = np.ascontiguousarray(np.zeros(0) if gone is None else gone, "<i8")
    found = hashlib.sha256(f"{list(table.shape)} {len(numbers)}\n".encode())
    found.update(table.data if table.size else b"")
    found.update(numbers.data if numbers.size else b"")
    return found.hexdigest()


def write(
    path: str | Path,
    kind: str,
    vectors: str,
    settings: Mapping[str, int | str],
    writers: Mapping[str, Writer],
) -> None:
    """Write an index to the directory `path`, whole or not at all; replaces an index there.

    Raises:
        DataError: something else stands there, or the disk refuses.
    """
    path = Path(path)
    if os.path.lexists(path) and not (path / MANIFEST).is_file():
        raise DataError(f"{path} exists already and is no index; choose another path")
    try:
        with files.new_directory(path) as folder:
            for name, writer in writers.items():
                writer(folder / name)
            stored = {
                "schema": SCHEMA,
                "kind": kind,
                "vectors": vectors,
                "settings": dict(settings),
                "files": {name: _entry(folder / name) for name in sorted(writers)},
            }
            manifest = msgspec.convert(stored, Stored, from_attributes=True).sealed()
            content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            (folder / MANIFEST).write_bytes(content)
    except OSError as e:
        raise DataError(f"{path}: the index cannot be written ({e}); nothing is left") from e


def read(path: str | Path) -> Stored:
    """The manifest; its files are not looked at yet.

    Raises:
        BundleError: there is none, or it is damaged or of another version.
    """
    file = Path(path) / MANIFEST
    try:
        with _opened(file) as f:
            content = f.read(LIMIT)
        if msgspec.json.decode(content, type=_Schema).schema != SCHEMA:
            raise BundleError(f"{file}: of another version; {AGAIN}")
        stored = msgspec.json.decode(content, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BundleError(f"{file}: cannot be read ({e}); {AGAIN}") from e
    if stored.sealed().digest != stored.digest:
        raise BundleError(f"{file}: was changed, for its digest is not its own; {AGAIN}")
    return stored


def load(path: str | Path, *, mmap: bool = True) -> "LocalIndex":
    """Verify and open what `LocalIndex.save` wrote.

    Args:
        mmap: map vectors and lists into memory: processes on one machine share them, and only
            what is asked for is read again. Such an index cannot be changed.

    Raises:
        BundleError: no index, another version's, or damaged; names the file.
    """
    path = Path(path)
    stored = read(path)
    for name, entry in stored.files.items():
        _verify(path / name, entry)
    if stored.kind == "exact":
        from dimerec.retrieval.exact import ExactIndex as Kind
    else:
        from dimerec.retrieval.approximate import ApproximateIndex as Kind
    try:
        return Kind._load(path, stored.settings, mmap)
    except (KeyError, ValueError, OSError, RuntimeError, DataError) as e:
        raise BundleError(f"{path}: not an index of this version ({e}); {AGAIN}") from e


class _Schema(msgspec.Struct):
    schema: int


def _entry(file: Path) -> FileEntry:
    with file.open("rb") as f:
        return FileEntry(
            sha256=hashlib.file_digest(f, "sha256").hexdigest(), size=os.fstat(f.fileno()).st_size
        )


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    """A plain file, never through a link; a named pipe would wait for its writer."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as f:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BundleError(f"{file}: must be a plain file; {AGAIN}")
            yield f
    except OSError as e:
        raise BundleError(f"{file}: must be a readable plain file, no link ({e}); {AGAIN}") from e


def _verify(file: Path, entry: FileEntry) -> None:
    """BundleError unless the file is a plain one of that size and hash."""
    with _opened(file) as f:
        same = os.fstat(f.fileno()).st_size == entry.size
        found = hashlib.file_digest(f, "sha256").hexdigest() if same else ""
    if found != entry.sha256:
        raise BundleError(f"{file}: size or SHA-256 is not the manifest's; {AGAIN}")
