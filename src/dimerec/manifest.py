"""Manifest: which files a bundle holds, with size and SHA-256, and reading nothing else.

Nothing is parsed before it was hashed, and no link is followed.
"""

import hashlib
import os
import platform
import stat
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta

from dimerec import __version__
from dimerec.config import NonNegative, Positive, RunConfig, Struct
from dimerec.errors import BundleError

SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
VOCABULARY = "vocabulary.json"
ITEMS = "items.json"
COUNTS = "counts.safetensors"
GOLDEN = "golden.json"
FILES = (COUNTS, GOLDEN, ITEMS, VOCABULARY, WEIGHTS)
CACHE = "cache"  # a folder of what can be made anew from the rest; it names its own digests
MANIFEST_LIMIT = 2**20  # bytes
AGAIN = "write the bundle again, or copy it again from where it was written"


class FileEntry(Struct, frozen=True):
    """SHA-256 (hex) and size in bytes of one file."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: NonNegative


class Origin(Struct, frozen=True):
    """Where a bundle comes from.

    Attributes:
        dataset, digest, protocol: the dataset's name, `Dataset.digest` and splitting protocol.
        weights, steps, stopped: which weights of the run these are, its steps, why it ended.
    """

    dataset: str
    digest: str
    protocol: str
    weights: str = ""
    steps: NonNegative = 0
    stopped: str = ""


class Sizes(Struct, frozen=True):
    """V (items plus padding), L (longest history), d (width; 0 for a counting model)."""

    items: Positive
    length: Positive
    width: NonNegative


class Manifest(Struct, frozen=True):
    """What `manifest.json` holds; the model's name is `config.model`.

    `digest` is the SHA-256 (hex) of all the rest, and so of the whole bundle; `sealed` sets it.
    """

    schema: int
    config: RunConfig
    origin: Origin
    sizes: Sizes
    versions: dict[str, str]
    files: dict[str, FileEntry]
    digest: str = ""

    def sealed(self) -> "Manifest":
        """The same manifest with the digest it must have."""
        return msgspec.structs.replace(self, digest=_digest(msgspec.to_builtins(self)))


def read_manifest(path: Path) -> Manifest:
    """The manifest, its file list compared with the directory: exactly `FILES`, regular files.

    Beside them a folder `CACHE` may stand. It is no part of what is verified here.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such directory; give the path that `train` or `write` made")
    there = sorted(
        e.name for e in os.scandir(path) if e.name != CACHE or not e.is_dir(follow_symlinks=False)
    )
    if MANIFEST not in there:
        raise BundleError(f"{path}: not a bundle, for it holds no {MANIFEST}")
    content = _read(path, MANIFEST, None)
    try:
        schema = msgspec.json.decode(content, type=Schema).schema
        if schema != SCHEMA:
            raise BundleError(
                f"{path / MANIFEST}: schema {schema}, but this version reads {SCHEMA}; open it "
                "with the version that wrote it, or train again"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BundleError(f"{path / MANIFEST}: not a manifest ({e}); {AGAIN}") from e
    if manifest.digest != _digest(msgspec.json.decode(content)):
        raise BundleError(f"{path / MANIFEST}: was changed: its digest is not its own; {AGAIN}")
    if manifest.config.length != manifest.sizes.length:
        raise BundleError(f"{path / MANIFEST}: config and sizes disagree on the length; {AGAIN}")
    if tuple(sorted(manifest.files)) != FILES:
        raise BundleError(
            f"{path / MANIFEST}: must list {', '.join(FILES)}, but lists "
            f"{', '.join(repr(n) for n in sorted(manifest.files))}; {AGAIN}"
        )
    for name in FILES:
        if name not in there:
            raise BundleError(f"{path / name}: missing; {AGAIN}")
    for name in there:
        if name not in (*FILES, MANIFEST):
            raise BundleError(f"{path / name}: not part of the bundle; remove it")
    return manifest


def _digest(plain: dict[str, Any]) -> str:
    """SHA-256 of a manifest as it is written, without its digest: fields that a later version
    adds, with a default, do not disturb the bundles of an earlier one."""
    plain = {name: value for name, value in plain.items() if name != "digest"}
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


class Schema(msgspec.Struct):
    """The one key that manifests of every version share."""

    schema: int


def _read(path: Path, name: str, size: int | None) -> bytes:
    """A regular file's bytes, never through a link; `size` is what it must have, if known."""
    file = path / name
    try:
        # Non-blocking, for a named pipe would wait for its writer.
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as e:
        raise BundleError(f"{file}: must be a readable plain file, no link ({e}); {AGAIN}") from e
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{file}: must be a plain file; {AGAIN}")
        if size is None and status.st_size > MANIFEST_LIMIT:
            raise BundleError(f"{file}: larger than {MANIFEST_LIMIT} bytes; {AGAIN}")
        if size is not None and status.st_size != size:
            raise BundleError(
                f"{file}: {status.st_size} bytes, but the manifest says {size}; {AGAIN}"
            )
        with os.fdopen(fd, "rb", closefd=False) as f:
            return f.read()
    except OSError as e:
        raise BundleError(f"{file}: cannot be read ({e}); {AGAIN}") from e
    finally:
        os.close(fd)


def verified(path: Path, name: str, entry: FileEntry) -> bytes:
    """The file's bytes; BundleError unless size and hash are those of the manifest."""
    content = _read(path, name, entry.size)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{path / name}: its SHA-256 is not the manifest's; {AGAIN}")
    return content


def versions() -> dict[str, str]:
    """Versions of what wrote the bundle."""
    return {
        "dimerec": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
