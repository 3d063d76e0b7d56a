"""Run: the finished (or cleanly interrupted) run folder and its summary, `run.json`."""

from pathlib import Path
from typing import Literal

import msgspec

from dimerec import files
from dimerec.config import Struct
from dimerec.errors import DataError


class Run(Struct, frozen=True):
    """What became of a run. `run.json` holds every field but `path`.

    Attributes:
        path: the run folder.
        model, seed: from the configuration.
        config, dataset: the configuration's fingerprint and the dataset's digest.
        stopped: "finished" (all steps), "early" (patience ran out) or "interrupted".
        weights: which weights the bundle holds: those of the "best" validation or the "current"
            ones, where there was no validation (or, for a counting model, nothing to choose).
        steps: optimiser steps done; 0 for a counting model.
        best_step: step of the bundle's weights.
        metric: the validation metric that chose them.
        best: its value; None without a validation.
        validation: all validation metrics of the bundle's weights.
        digest: SHA-256 of the bundle's weights file.
        parameters: trained numbers in the model.
        targets: training targets seen, repeats counted.
        targets_per_second: over the training steps, validations aside.
        seconds, cpu_seconds: wall and process time of the training steps.
        validation_seconds: wall time of the validations.
        device, threads, versions: where the numbers came from.
    """

    path: Path
    model: str
    seed: int
    config: str
    dataset: str
    stopped: Literal["finished", "early", "interrupted"]
    weights: Literal["best", "current"]
    steps: int
    best_step: int
    metric: str
    best: float | None
    validation: dict[str, float]
    digest: str
    parameters: int
    targets: int
    targets_per_second: float
    seconds: float
    cpu_seconds: float
    validation_seconds: float
    device: str
    threads: int
    versions: dict[str, str]

    @property
    def bundle(self) -> Path:
        """The served directory of this run."""
        return self.path / "bundle"

    def write(self) -> None:
        """Write `run.json` into the run folder."""
        plain = msgspec.structs.asdict(self)
        del plain["path"]
        content = msgspec.json.format(msgspec.json.encode(plain))
        files.write_file(self.path / "run.json", content)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in a folder; DataError when there is none or it never ended."""
        path = Path(path)
        try:
            plain = msgspec.json.decode((path / "run.json").read_bytes())
            return msgspec.convert({**plain, "path": path}, cls)
        except (OSError, TypeError, msgspec.DecodeError) as e:
            raise DataError(f"{path}: no run that ended is there ({e})") from e
