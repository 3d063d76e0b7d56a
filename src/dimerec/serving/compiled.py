"""Compiled: `encode` as native code of this platform, running on the weights of a model."""

import hashlib
import io
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dimerec.errors import ServingError
from dimerec.model import SequentialModel
from dimerec.randomness import normal

Encode = Callable[[Tensor, Tensor], Tensor]

PACKAGE, CONSTANTS = "encode.pt2", "constants.safetensors"
LARGEST = 1024  # histories the compiled code takes at once
STEPS = 64  # of a reverse chain: it is unrolled, and the compiler takes minutes for so many


def platform_key() -> str:
    """Names this machine's kind: native code made for one kind does not run on another.

    System, architecture, torch, its CPU capability, and a digest of the processor's features.
    """
    capability = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    features = hashlib.sha256(_features().encode()).hexdigest()[:8]
    return f"{sys.platform}-{platform.machine()}-{capability}-{features}-torch{torch.__version__}"


def check_compiler() -> None:
    """ServingError where the C++ compiler that PyTorch would take is not at hand."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    name = os.environ.get("CXX", usual)
    if shutil.which(name) is None:
        raise ServingError(
            f"cannot be compiled, for there is no C++ compiler {name}: install {usual}, or name "
            "another by the variable CXX"
        )


def exported(model: SequentialModel, length: int) -> torch.export.ExportedProgram:
    """The graph of `encode` for histories of `length` items and any batch up to `LARGEST`.

    Raises:
        ServingError: a model that cannot be traced, or a chain of more than `STEPS` steps.
    """
    steps = model.sampling.get("steps", 1)
    if steps > STEPS:
        raise ServingError(
            f"cannot be compiled, for its {steps} reverse steps would be unrolled; at most {STEPS} "
            "can, so train it with fewer"
        )
    batch = torch.export.Dim("batch", min=1, max=LARGEST)
    with quiet(), torch.no_grad(), _Biases():
        try:
            return torch.export.export(
                _Encode(model), inputs(model, length, 8), dynamic_shapes=({0: batch}, {0: batch})
            )
        except Exception as e:  # the compiler's errors have no common kind
            raise failed("exported", e) from e


def native(model: SequentialModel, program: torch.export.ExportedProgram) -> dict[str, bytes]:
    """Two files: native code of the program that `exported` made of `model`, and its constants.

    There are no weights in them: `attach` lets the code run on those of a model.

    Raises:
        ServingError: a program that cannot be compiled.
    """
    from torch._inductor import aoti_compile_and_package

    settings = {
        "aot_inductor.package_constants_in_so": False,
        "always_keep_tensor_constants": True,
        "cpp.threads": 1,
    }
    package = io.BytesIO()
    with quiet():
        try:
            aoti_compile_and_package(program, package_path=package, inductor_configs=settings)
        except Exception as e:
            raise failed("compiled", e) from e
    rest = safetensors.torch.save(_rest(model, program))
    return {PACKAGE: package.getvalue(), CONSTANTS: rest}


def attach(model: SequentialModel, length: int, contents: dict[str, bytes]) -> Encode:
    """What `native` made, running on the tensors of `model`, in place.

    Raises:
        ServingError: it is for another model, or cannot run here.
    """
    from torch._inductor import aoti_load_package

    tensors = _tensors(model)
    with quiet():
        try:
            package = aoti_load_package(io.BytesIO(contents[PACKAGE]))
            tensors |= safetensors.torch.load(contents[CONSTANTS])
            wanted = {name: tensors[name] for name in package.get_constant_fqns()}
            package.load_constants(wanted, check_full_update=True, user_managed=True)
        except Exception as e:
            raise failed("loaded", e) from e
    return _Attached(package, wanted, model, length)


def inputs(model: SequentialModel, length: int, batch: int) -> tuple[Tensor, Tensor]:
    """Histories of every length from 1, left-padded, and noise."""
    size = len(model.item_vectors())
    rng = np.random.default_rng(batch)
    history = rng.integers(1, max(2, size), (batch, length))
    lengths = 1 + np.arange(batch) * 7 % length
    history[np.arange(length) < length - lengths[:, None]] = 0
    noise = normal(0, np.arange(batch, dtype=np.uint64), (model.noise_draws, model.width))
    return torch.from_numpy(history), torch.from_numpy(noise)


class _Attached:
    """A package and the tensors it runs on, of which it knows the addresses alone."""

    def __init__(
        self, package: Any, tensors: dict[str, Tensor], model: SequentialModel, length: int
    ) -> None:
        self._package, self._tensors, self._model, self._length = package, tensors, model, length

    def __call__(self, history: Tensor, noise: Tensor) -> Tensor:
        if len(history) > LARGEST or history.shape[1] != self._length:
            return self._model.encode(history, noise)
        # Called itself, a package parses the description of its arguments anew, 17 us each time.
        return self._package.loader.run([history, noise])[0]


class _Biases(TorchFunctionMode):
    """Linear layers add their biases along with what comes after, not by a copy beforehand."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = F.linear(input, weight)
    return y if bias is None else (y.unsqueeze(0) + bias).squeeze(0)


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


def _features() -> str:
    """What the processor can do; compiled code uses all of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    flags = next((li for li in lines if li.lower().startswith(("flags", "features"))), "")
    return " ".join(sorted(flags.partition(":")[2].split())) or platform.processor()


def failed(what: str, error: Exception) -> ServingError:
    """A compiler's error in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # some are coloured
    first = next((line for line in plain.splitlines() if line.strip()), "no message")
    return ServingError(f"cannot be {what} ({type(error).__name__}: {first.strip()[:200]})")


@contextmanager
def quiet() -> Iterator[None]:
    """The compilers warn of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
