"""Export: `encode` compiled ahead of time, and verified against the model it was made of.

What is made lies in the bundle's cache, one folder a platform. It is never required: without it
the model runs as it is, slower. It holds native code, so it is loaded only when its digest is the
one that was written down beside it, and it was made of this very bundle, by these versions.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch

from dimerec import __version__, files
from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.errors import BundleError, ServingError
from dimerec.manifest import CACHE, FileEntry, verified
from dimerec.model import SequentialModel
from dimerec.serving import onnx_file
from dimerec.serving.compiled import (
    CONSTANTS,
    PACKAGE,
    Encode,
    attach,
    check_compiler,
    exported,
    native,
    platform_key,
)
from dimerec.serving.parity import Check, checked

logger = logging.getLogger(__name__)

SCHEMA = 1
CARD, ONNX = "card.json", "encode.onnx"
AS_IT_IS = "nothing is written, and the bundle is served as it is, only slower"


class Card(Struct, frozen=True):
    """What one folder of the cache holds, and what it was made of.

    Attributes:
        bundle: digest of the bundle.
        config: fingerprint of its configuration, with the options under which it was opened.
        version: of the package that wrote it.
        platform: see `platform_key`.
        files: SHA-256 and size of every other file.
        checks: what was verified.
    """

    schema: int
    bundle: str
    config: str
    version: str
    platform: str
    files: dict[str, FileEntry]
    checks: list[Check]


def folder(bundle: Bundle) -> Path:
    """Where this platform's compiled code of `bundle` lies, if it was made."""
    return bundle.path / CACHE / f"encode-{platform_key()}"


def export(bundle: Bundle, *, onnx: bool = False) -> Card:
    """Compile `encode` for this platform, verify it, and store it in the bundle's cache.

    It takes a minute or so. What stood there for this platform is replaced.

    Args:
        onnx: also write `encode.onnx`, verified with ONNX Runtime. It takes `history` int64
            `[B, L]` and `noise` float32 `[B, S, d]` and gives `queries` float32 `[B, K, d]`, for
            any B, on any platform.

    Raises:
        ServingError: a counting model, no C++ compiler, a model that cannot be compiled, queries
            that differ too much from those of the model, or a disk that refuses. Nothing is
            written then, and the bundle is served as it is.
    """
    model = bundle.model()
    if not model.has_vectors:
        raise ServingError(
            f"{bundle.path}: {bundle.config.model} counts; it has nothing to compile"
        )
    if onnx:
        onnx_file.check_installed()
    began = time.monotonic()
    length = bundle.config.length
    with _one_thread():
        with _named(bundle, AS_IT_IS):
            check_compiler()
            program = exported(model, length)
            contents = native(model, program)
            checks = checked(model, length, "aotinductor", attach(model, length, contents))
        if onnx:
            with _named(bundle, "nothing is written; export without ONNX"):
                contents[ONNX] = onnx_file.written(program)
                session = onnx_file.session(contents[ONNX])
                checks += checked(model, length, "onnxruntime", session)
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in contents.items()
    }
    card = Card(SCHEMA, *_identity(bundle), platform_key(), entries, checks)
    contents[CARD] = msgspec.json.format(msgspec.json.encode(card), indent=2)
    at = folder(bundle)
    try:
        with files.new_directory(at) as new:
            for name, content in contents.items():
                (new / name).write_bytes(content)
    except OSError as e:
        raise ServingError(f"{at}: cannot be written ({e}); nothing is left") from e
    logger.info("compiled in %.0f s: %s", time.monotonic() - began, at)
    return card


def load(bundle: Bundle, model: SequentialModel) -> Encode:
    """The compiled `encode` of this platform, running on the weights of `model`.

    Args:
        model: of `bundle`, on the CPU; its tensors are used in place.

    Returns:
        A function as `SequentialModel.encode`; threads may share it. A batch that it was not made
        for goes to the model itself.

    Raises:
        ServingError: nothing was exported for this platform, it was made of another bundle, by
            other versions or under other options, its digest is not the one written down, or it
            does not run.
    """
    at = folder(bundle)
    if not at.is_dir():
        raise ServingError(
            f"{bundle.path}: no compiled encode for {platform_key()}; make it with "
            f"`dimerec export {bundle.path}`"
        )
    again = f"make it again with `dimerec export {bundle.path}`"
    try:
        card = msgspec.json.decode((at / CARD).read_bytes(), type=Card)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ServingError(f"{at / CARD}: cannot be read ({e}); {again}") from e
    if (card.schema, card.bundle, card.config, card.version) != (SCHEMA, *_identity(bundle)):
        raise ServingError(
            f"{at}: made of another bundle, under other options or by another version; {again}"
        )
    if card.platform != platform_key() or not {PACKAGE, CONSTANTS} <= card.files.keys():
        raise ServingError(f"{at / CARD}: does not name what lies beside it; {again}")
    try:
        contents = {name: verified(at, name, card.files[name]) for name in (PACKAGE, CONSTANTS)}
    except BundleError as e:
        raise ServingError(f"refused: {e}; {again}") from e
    try:
        return attach(model, bundle.config.length, contents)
    except ServingError as e:
        raise ServingError(f"{at}: {e}; {again}") from e


def _identity(bundle: Bundle) -> tuple[str, str, str]:
    return bundle.manifest.digest, bundle.config.fingerprint, __version__


@contextmanager
def _named(bundle: Bundle, then: str) -> Iterator[None]:
    """What goes wrong names the bundle and its model, and says what follows."""
    try:
        yield
    except ServingError as e:
        raise ServingError(f"{bundle.path}: {bundle.config.model} {e}; {then}") from e


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compile and time as a service runs: one thread a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
