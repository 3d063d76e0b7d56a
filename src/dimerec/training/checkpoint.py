"""The exact state of a run on disk, so that a killed run goes on bit for bit. Never served.

`RUN/checkpoint/checkpoint.json` names every file that belongs to it (the state of its step, and
the best weights so far in `RUN/best/`) with their SHA-256. It is replaced last and atomically:
a kill at any moment leaves either the earlier checkpoint whole or the new one. No generator is
stored, because every random number is a pure function of (seed, step).
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from dimerec import files
from dimerec.config import RunConfig
from dimerec.errors import ConfigError, DimeRecError

log = logging.getLogger(__name__)
SCHEMA = 1


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Metrics of the validation split after `step` optimiser steps."""

    step: int
    metrics: dict[str, float]


class State(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a run knows besides tensors; the content of `checkpoint.json`.

    Attributes:
        schema: version of this layout.
        config, dataset: the run's settings and the dataset's digest; a resumed run must match.
        step: optimiser steps done.
        validations: all of them, oldest first.
        best: index into `validations` of the best one; -1 before the first.
        targets: training targets seen.
        seconds, cpu_seconds: wall and process time of the training steps alone.
        validation_seconds: wall time of validations.
        threads: torch threads of the run.
        versions: of what decides the arithmetic.
        files: path under the run folder -> SHA-256.
    """

    schema: int = SCHEMA
    config: dict[str, Any]
    dataset: str
    step: int = 0
    validations: list[Validation] = []
    best: int = -1
    targets: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    validation_seconds: float = 0.0
    threads: int
    versions: dict[str, str]
    files: dict[str, str] = {}


def new_state(config: RunConfig, dataset: str) -> State:
    """State of a run before its first step; `dataset` is the dataset's digest."""
    return State(
        config=msgspec.to_builtins(config),
        dataset=dataset,
        threads=torch.get_num_threads(),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions that decide the numbers of a run."""
    return {
        "dimerec": metadata.version("dimerec"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def save(out: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the checkpoint of `state.step`; new best weights too when the last validation is best.

    Raises:
        DimeRecError: the disk refused; the earlier checkpoint is intact.
    """
    name = f"checkpoint/state-{state.step:08d}.safetensors"
    best = _best_name(state)
    with writing(out, f"the checkpoint of step {state.step}"):
        contents = {name: {**_copy(model), **_moments(model, optimizer)}}
        if best and best not in state.files:
            contents[best] = _copy(model)
        kept = {best: state.files[best]} if best in state.files else {}
        for path, tensors in contents.items():
            raw = safetensors.torch.save(tensors)
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            files.write_file(out / path, raw)
            kept[path] = hashlib.sha256(raw).hexdigest()
        note(out, msgspec.structs.replace(state, files=kept))
    state.files = kept
    keep = {out / path for path in kept} | {_json(out)}
    for folder in ("checkpoint", "best"):
        for file in (out / folder).glob("*"):
            if file not in keep:
                file.unlink(missing_ok=True)


def note(out: Path, state: State) -> None:
    """Write `checkpoint.json` alone; all there is of a counting model, which is counted again."""
    with writing(out, f"the checkpoint of step {state.step}"):
        _json(out).parent.mkdir(exist_ok=True)
        files.write_file(_json(out), msgspec.json.format(msgspec.json.encode(state)))


def exists(out: Path) -> bool:
    """Whether the run folder holds a checkpoint."""
    return _json(out).is_file()


def read(out: Path, config: RunConfig, dataset: str) -> State:
    """The state stored in a run folder, if it belongs to this configuration and data.

    Raises:
        ConfigError: the run was started with another configuration or dataset; says what differs.
        DimeRecError: the checkpoint cannot be read.
    """
    try:
        state = msgspec.json.decode(_json(out).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError) as e:
        raise DimeRecError(f"{_json(out)}: not a checkpoint ({e}); start anew elsewhere") from e
    if state.schema != SCHEMA:
        raise DimeRecError(
            f"{_json(out)}: layout {state.schema}, this version reads {SCHEMA}; start anew"
        )
    differing = differences(state.config, msgspec.to_builtins(config))
    if state.dataset != dataset:
        differing.append(f"dataset digest {state.dataset[:12]} -> {dataset[:12]}")
    if differing:
        raise ConfigError(
            f"{out}: cannot resume, this run was started otherwise: {'; '.join(differing)}. "
            "Give the same settings and data, or another --out"
        )
    for what, was, now in (
        ("threads", state.threads, torch.get_num_threads()),
        ("versions", state.versions, versions()),
    ):
        if was != now:
            log.warning(
                "resuming with other %s (%s, was %s): not bit for bit the same", what, now, was
            )
    return state


def restore(
    out: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> None:
    """Load the weights and moments of `state.step` into `model` and `optimizer`.

    Raises:
        DimeRecError: a file is missing or corrupt.
    """
    tensors = _load(out, state, f"checkpoint/state-{state.step:08d}.safetensors")
    _set_weights(out, model, tensors)
    if optimizer is None:
        return
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}/"
        moments = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        if moments:
            optimizer.state[parameter] = {k: t.to(parameter.device) for k, t in moments.items()}


def restore_best(out: Path, state: State, model: nn.Module) -> bool:
    """Load the best weights so far into `model`; False when there was no validation yet."""
    name = _best_name(state)
    if not name:
        return False
    _set_weights(out, model, _load(out, state, name))
    return True


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key old -> new` of every setting in which two plain configurations differ."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key, "unset"), new.get(key, "unset")
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b and f"{prefix}{key}" != "about":
            found.append(f"{prefix}{key} {a!r} -> {b!r}")
    return found


@contextmanager
def writing(out: Path, what: str) -> Iterator[None]:
    """Turn a disk's refusal inside the block into one clear DimeRecError."""
    try:
        yield
    except OSError as e:
        hint = "the run goes on from its last checkpoint with --resume" if exists(out) else ""
        raise DimeRecError(
            f"{out}: cannot write {what} ({e.strerror or e}); make room there"
            + (f", then {hint}" if hint else "")
        ) from e


def _json(out: Path) -> Path:
    return out / "checkpoint" / "checkpoint.json"


def _best_name(state: State) -> str:
    if state.best < 0:
        return ""
    return f"best/weights-{state.validations[state.best].step:08d}.safetensors"


def _copy(model: nn.Module) -> dict[str, Tensor]:
    # Copies, because safetensors refuses tensors that share memory (tied weights).
    return {
        f"model.{n}": t.detach().to("cpu", copy=True).contiguous()
        for n, t in model.state_dict().items()
    }


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}/{key}": value.detach().to("cpu", copy=True).contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load(out: Path, state: State, name: str) -> dict[str, Tensor]:
    try:
        raw = (out / name).read_bytes()
    except OSError as e:
        raise DimeRecError(f"{out / name}: cannot be read ({e.strerror}); start anew") from e
    if hashlib.sha256(raw).hexdigest() != state.files.get(name):
        raise DimeRecError(f"{out / name}: corrupt (its SHA-256 is not the recorded one)")
    return safetensors.torch.load(raw)


def _set_weights(out: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    weights = {k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as e:
        raise DimeRecError(f"{out}: the stored weights do not fit this model ({e})") from e
