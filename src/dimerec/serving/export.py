"""Export: `encode` compiled ahead of time, and verified against the model it was made of.

What is made lies in the bundle's cache, one folder a platform. It is never required: without it
the model runs as it is, slower. It holds native code, so it is loaded only when its digest is the
one that was written down beside it, and it was made of this very bundle, by these versions.
"""

import hashlib
import importlib.util
import io
import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from dimerec import files
from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.errors import BundleError, ServingError
from dimerec.manifest import CACHE, FileEntry, verified, versions
from dimerec.model import SequentialModel
from dimerec.randomness import normal
from dimerec.retrieval.exact import ExactIndex

logger = logging.getLogger(__name__)
Encode = Callable[[Tensor, Tensor], Tensor]

SCHEMA = 1
CARD, PACKAGE, CONSTANTS, ONNX = "card.json", "encode.pt2", "constants.safetensors", "encode.onnx"
BATCHES = (1, 2, 8, 64)  # verified at every export
LARGEST = 1024  # histories the compiled code takes at once
TOLERANCE = 1e-4  # largest difference of a query's coordinate, of the largest coordinate
AGREEMENT, TOP = 0.99, 20  # least share of the same items among the best `TOP`
SECONDS = 0.5  # spent on timing each batch size


class Check(Struct, frozen=True):
    """Compiled against eager at one batch size.

    Attributes:
        engine: "aotinductor" or "onnxruntime".
        batch: B.
        difference: largest difference of the queries' coordinates, of the largest coordinate.
        agreement: share of the eager model's `TOP` best items that are also the compiled one's.
        eager, compiled: seconds a call, median, taken in turns on one thread.
    """

    engine: str
    batch: int
    difference: float
    agreement: float
    eager: float
    compiled: float


class Card(Struct, frozen=True):
    """What one folder of the cache holds, and what it was made of.

    Attributes:
        bundle: digest of the bundle.
        config: fingerprint of its configuration, with the options under which it was opened.
        versions: of what wrote it.
        platform: see `platform_key`.
        files: SHA-256 and size of every other file.
        checks: what was verified.
    """

    schema: int
    bundle: str
    config: str
    versions: dict[str, str]
    platform: str
    files: dict[str, FileEntry]
    checks: list[Check]


def platform_key() -> str:
    """Names this machine's kind: native code made for one kind does not run on another.

    System, architecture, torch, its CPU capability, and a digest of the processor's features.
    """
    capability = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    features = hashlib.sha256(_features().encode()).hexdigest()[:8]
    return f"{sys.platform}-{platform.machine()}-{capability}-{features}-torch{torch.__version__}"


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
        raise ServingError(f"{bundle.path}: {bundle.config.model} counts; it has no encode")
    if onnx:
        _need("onnx", "onnxscript", "onnxruntime")
    began = time.monotonic()
    with _one_thread():
        program = _exported(bundle, model)
        contents = {PACKAGE: _compiled(bundle, program)}
        contents[CONSTANTS] = safetensors.torch.save(_rest(model, program))
        checks = _checked(bundle, model, "aotinductor", _loaded(bundle, model, contents))
        if onnx:
            contents[ONNX] = _onnx(program)
            checks += _checked(bundle, model, "onnxruntime", _onnx_session(contents[ONNX]))
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
    if (card.schema, card.bundle, card.config, card.versions) != (SCHEMA, *_identity(bundle)):
        raise ServingError(
            f"{at}: made of another bundle, under other options or by other versions; {again}"
        )
    if card.platform != platform_key() or not {PACKAGE, CONSTANTS} <= card.files.keys():
        raise ServingError(f"{at / CARD}: does not name what lies beside it; {again}")
    try:
        contents = {name: verified(at, name, card.files[name]) for name in (PACKAGE, CONSTANTS)}
    except BundleError as e:
        raise ServingError(f"refused: {e}; {again}") from e
    return _loaded(bundle, model, contents)


def _identity(bundle: Bundle) -> tuple[str, str, dict[str, str]]:
    return bundle.manifest.digest, bundle.config.fingerprint, versions()


def _features() -> str:
    """What the processor can do; compiled code uses all of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    flags = next((li for li in lines if li.lower().startswith(("flags", "features"))), "")
    return " ".join(sorted(flags.partition(":")[2].split())) or platform.processor()


class _Encode(nn.Module):
    """`encode` as a `forward`, which is what the compilers take."""

    def __init__(self, model: SequentialModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.model.encode(history, noise)


def _tensors(model: SequentialModel) -> dict[str, Tensor]:
    """Parameters and buffers, kept and not kept, by the names that `_Encode` gives them."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {f"model.{name}": tensor.detach() for name, tensor in named}


def _rest(model: SequentialModel, program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Tensors of the program that are not the model's: constants made while it runs."""
    known = _tensors(model)
    return {
        name: value.contiguous()
        for name, value in program.constants.items()
        if name not in known and isinstance(value, Tensor)
    }


def _exported(bundle: Bundle, model: SequentialModel) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=LARGEST)
    with _quiet(), torch.no_grad():
        try:
            return torch.export.export(
                _Encode(model), _inputs(bundle, model, 8), dynamic_shapes=({0: batch}, {0: batch})
            )
        except Exception as e:  # the compiler's errors have no common kind
            raise _failed(bundle, "exported", e) from e


def _compiled(bundle: Bundle, program: torch.export.ExportedProgram) -> bytes:
    """An AOTInductor package without weights: it runs on those of the model that loads it."""
    from torch._inductor import aoti_compile_and_package, cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        cpp_builder.get_cpp_compiler()
    except InvalidCxxCompiler as e:
        raise ServingError(
            f"{bundle.path}: no C++ compiler is at hand, so nothing is compiled and the model is "
            "served as it is; install g++, or name one by the variable CXX"
        ) from e
    settings = {
        "aot_inductor.package_constants_in_so": False,
        "always_keep_tensor_constants": True,
        "cpp.threads": 1,
    }
    package = io.BytesIO()
    with _quiet():
        try:
            aoti_compile_and_package(program, package_path=package, inductor_configs=settings)
        except Exception as e:
            raise _failed(bundle, "compiled", e) from e
    return package.getvalue()


def _loaded(bundle: Bundle, model: SequentialModel, contents: dict[str, bytes]) -> Encode:
    """The verified package on the tensors of `model`."""
    tensors = _tensors(model)
    length = bundle.config.length
    with _quiet():
        try:
            package = torch._inductor.aoti_load_package(io.BytesIO(contents[PACKAGE]))
            tensors |= safetensors.torch.load(contents[CONSTANTS])
            wanted = {name: tensors[name] for name in package.get_constant_fqns()}
            package.load_constants(wanted, check_full_update=True, user_managed=True)
        except Exception as e:
            raise _failed(bundle, "loaded", e) from e

    def encode(history: Tensor, noise: Tensor) -> Tensor:
        if len(history) > LARGEST or history.shape[1] != length:
            return model.encode(history, noise)
        return package(history, noise)

    encode.keeps = wanted  # type: ignore[attr-defined]  # the package has their addresses alone
    return encode


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    with _quiet():
        made = torch.onnx.export(
            program,
            input_names=["history", "noise"],
            output_names=["queries"],
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    return made.model_proto.SerializeToString()


def _onnx_session(content: bytes) -> Encode:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}

    def encode(history: Tensor, noise: Tensor) -> Tensor:
        given = {"history": history.numpy(), "noise": noise.numpy()}
        return torch.from_numpy(
            session.run(None, {name: value for name, value in given.items() if name in taken})[0]
        )

    return encode


def _need(*packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ServingError(f"{name} is missing; install it: pip install 'dimerec[onnx]'")


def _inputs(bundle: Bundle, model: SequentialModel, batch: int) -> tuple[Tensor, Tensor]:
    """Histories of every length from 1, left-padded, and noise."""
    sizes = bundle.manifest.sizes
    rng = np.random.default_rng(batch)
    history = rng.integers(1, max(2, sizes.items), (batch, sizes.length))
    lengths = 1 + np.arange(batch) * 7 % sizes.length
    history[np.arange(sizes.length) < sizes.length - lengths[:, None]] = 0
    noise = normal(0, np.arange(batch, dtype=np.uint64), (model.noise_draws, model.width))
    return torch.from_numpy(history), torch.from_numpy(noise)


def _checked(bundle: Bundle, model: SequentialModel, engine: str, encode: Encode) -> list[Check]:
    """`encode` against the model at every batch size; ServingError where it differs too much."""
    with torch.inference_mode():
        index = ExactIndex.build(model.item_vectors().float().numpy())
        checks = [_compare(bundle, model, engine, encode, index, batch) for batch in BATCHES]
    for check in checks:
        if not (check.difference <= TOLERANCE and check.agreement >= AGREEMENT):
            raise ServingError(
                f"{bundle.path}: {engine} differs from the model at batch {check.batch}: queries "
                f"by {check.difference:.1e} (at most {TOLERANCE:.0e}), the same {TOP} best items "
                f"in {check.agreement:.1%} (at least {AGREEMENT:.0%}); nothing is kept, and the "
                "model is served as it is"
            )
    return checks


def _compare(
    bundle: Bundle,
    model: SequentialModel,
    engine: str,
    encode: Encode,
    index: ExactIndex,
    batch: int,
) -> Check:
    given = _inputs(bundle, model, batch)
    eager, compiled = model.encode(*given).float(), encode(*given).float()
    if compiled.shape != eager.shape or not bool(compiled.isfinite().all()):
        difference = agreement = float("nan")
    else:
        difference = float((eager - compiled).abs().max() / eager.abs().max().clamp_min(1e-30))
        best, _ = index.search(eager.numpy(), TOP)
        found, _ = index.search(compiled.numpy(), TOP)
        same = [len(np.intersect1d(b[b > 0], f)) for b, f in zip(best, found, strict=True)]
        agreement = sum(same) / max(1, int((best > 0).sum()))
    slow, quick = _seconds(lambda: model.encode(*given), lambda: encode(*given))
    return Check(engine, batch, difference, agreement, slow, quick)


def _seconds(*calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call, taken in turns."""
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(taken[0]) < 3:
        for call, seconds in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return [float(np.median(seconds)) for seconds in taken]


def _failed(bundle: Bundle, what: str, error: Exception) -> ServingError:
    first = next((line for line in str(error).splitlines() if line.strip()), "no message")
    return ServingError(
        f"{bundle.path}: {bundle.config.model} cannot be {what} ({type(error).__name__}: "
        f"{first.strip()[:200]}); the model is served as it is"
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compile and time as a service runs: one thread a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The compilers warn of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
