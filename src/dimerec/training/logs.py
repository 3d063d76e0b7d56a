"""Where the numbers of a run go: `metrics.jsonl`, the terminal, TensorBoard, MLflow.

An entry is one plain dictionary, the same for every sink. Of a stretch of steps: `step`, `steps`
(of the whole run), `losses` (named, mean since the last entry), `total`, `targets_per_second`,
`seconds`. Of a validation: `step`, `validation` (metric -> value), `best`, `seconds`.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from dimerec import files
from dimerec.errors import ConfigError

log = logging.getLogger(__name__)
Entry = dict[str, Any]
TRACKERS = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}
SMOOTHING = 0.9


def require(trackers: Iterable[str]) -> None:
    """Import what the named trackers need.

    Raises:
        ConfigError: no such tracker, or its extra is not installed.
    """
    for name in trackers:
        if name not in TRACKERS:
            raise ConfigError(f"no such tracker: {name!r} (known: {', '.join(TRACKERS)})")
        try:
            importlib.import_module(TRACKERS[name])
        except ImportError as e:
            message = f"{name} is not installed: pip install 'dimerec[{name}]'"
            raise ConfigError(message) from e


class Sink(Protocol):
    """Takes entries; `close` is called once at the end."""

    def write(self, entry: Entry) -> None: ...
    def tick(self, step: int) -> None: ...
    def close(self) -> None: ...


class Quiet:
    """A sink that does nothing; the others override what concerns them."""

    def write(self, entry: Entry) -> None: ...
    def tick(self, step: int) -> None: ...
    def close(self) -> None: ...


class Metrics(Quiet):
    """`metrics.jsonl`, one object a line; entries past `step` (of a killed run) are cut."""

    def __init__(self, path: Path, step: int) -> None:
        if path.exists():
            files.write_file(path, b"".join(_upto(path, step)))
        self._file = path.open("ab", buffering=0)

    def write(self, entry: Entry) -> None:
        self._file.write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        self._file.close()


class Lines(Quiet):
    """Plain log lines: every validation, and in between at most one every ten seconds."""

    def __init__(self, steps: int) -> None:
        self._steps, self._next = steps, 0.0

    def write(self, entry: Entry) -> None:
        if "validation" in entry:
            log.info("step %d/%d  %s", entry["step"], self._steps, _validation(entry))
        elif entry["seconds"] >= self._next:
            self._next = entry["seconds"] + 10
            rate = entry["targets_per_second"]
            log.info(
                "step %d/%d  %s  %.0f targets/s",
                entry["step"], self._steps, _losses(entry["losses"]), rate,
            )  # fmt: skip


class Bar(Quiet):
    """A progress bar on the terminal: step, smoothed losses, targets/s, last validation."""

    def __init__(self, steps: int, step: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[validation]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", total=steps, completed=step, losses="", validation="")
        self._smooth: dict[str, float] = {}
        self._bar.start()

    def tick(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def write(self, entry: Entry) -> None:
        if "validation" in entry:
            self._bar.update(self._task, validation=_validation(entry))
            return
        for name, value in entry["losses"].items():
            old = self._smooth.setdefault(name, value)
            self._smooth[name] = SMOOTHING * old + (1 - SMOOTHING) * value
        rate = f"{entry['targets_per_second']:,.0f} targets/s"
        self._bar.update(self._task, losses=f"{_losses(self._smooth)}  {rate}")

    def close(self) -> None:
        self._bar.stop()


class Calling(Quiet):
    """Hands every entry to a function."""

    def __init__(self, function: Callable[[Entry], object]) -> None:
        self._function = function

    def write(self, entry: Entry) -> None:
        self._function(entry)


class TensorBoard(Quiet):
    """Event files under `RUN/tensorboard`; events past the resumed step are purged."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, entry: Entry) -> None:
        for name, value in _scalars(entry).items():
            self._writer.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        self._writer.close()


class MLflow(Quiet):
    """One MLflow run, where MLFLOW_TRACKING_URI says; a resumed run goes on under its id."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        self._mlflow, memo = mlflow, out / "mlflow_run_id"
        known = memo.read_text() if memo.exists() else None
        run = mlflow.start_run(run_id=known, run_name=None if known else out.name)
        if not known:
            memo.write_text(run.info.run_id)
            mlflow.log_params(_flat(settings))

    def write(self, entry: Entry) -> None:
        # MLflow allows no "@" in names.
        scalars = {n.replace("@", "_at_"): v for n, v in _scalars(entry).items()}
        self._mlflow.log_metrics(scalars, step=entry["step"])

    def close(self) -> None:
        self._mlflow.end_run()


class Sinks(Quiet):
    """All sinks of a run as one."""

    def __init__(
        self,
        out: Path,
        *,
        step: int,
        steps: int,
        settings: dict[str, Any],
        trackers: Collection[str] = (),
        progress: bool | Callable[[Entry], object] = True,
    ) -> None:
        self._sinks: list[Sink] = []
        if "tensorboard" in trackers:
            self._sinks.append(TensorBoard(out, step))
        if "mlflow" in trackers:
            self._sinks.append(MLflow(out, settings))
        self._sinks.append(Metrics(out / "metrics.jsonl", step))
        if callable(progress):
            self._sinks.append(Calling(progress))
        elif progress and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._sinks.append(Bar(steps, step))
        elif progress:
            self._sinks.append(Lines(steps))

    def write(self, entry: Entry) -> None:
        for sink in self._sinks:
            sink.write(entry)

    def tick(self, step: int) -> None:
        for sink in self._sinks:
            sink.tick(step)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def _upto(path: Path, step: int) -> Iterable[bytes]:
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return  # the line a kill cut short is the last one
        if line.endswith(b"\n") and entry["step"] <= step:
            yield line


def _scalars(entry: Entry) -> dict[str, float]:
    if "validation" in entry:
        return {f"validation/{n}": v for n, v in entry["validation"].items()}
    losses = {f"loss/{n}": v for n, v in entry["losses"].items()}
    return {
        **losses,
        "loss/total": entry["total"],
        "targets_per_second": entry["targets_per_second"],
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for key, value in settings.items():
        inner = (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
        out |= inner
    return out


def _losses(losses: dict[str, float]) -> str:
    return " ".join(f"{n} {v:.4f}" for n, v in losses.items())


def _validation(entry: Entry) -> str:
    values = " ".join(f"{n} {v:.4f}" for n, v in entry["validation"].items())
    return f"validation {values}" + (" (best)" if entry["best"] else "")
