"""Where numbers go: the metrics file, a terminal, TensorBoard, MLflow."""

import json
import os
import pty
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError
from dimerec.training import logs
from dimerec.training.loop import train
from tests.training.conftest import make_config


def steps(step: int, **losses: float) -> dict[str, Any]:
    total = sum(losses.values())
    return {
        "step": step, "losses": losses, "total": total, "targets_per_second": 1.5, "seconds": 0.1,
    }  # fmt: skip


def validation(step: int, value: float) -> dict[str, Any]:
    return {"step": step, "validation": {"ndcg@20": value}, "best": True, "seconds": 0.1}


def test_lines_past_the_resumed_step_and_half_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written = [steps(20, a=1.0), steps(30, a=0.9), validation(30, 0.5), steps(40, a=0.8)]
    sink = logs.Metrics(path, 0)
    for entry in written:
        sink.write(entry)
    sink.close()
    with path.open("ab") as f:
        f.write(b'{"step":60,"losses":{"a":0.')
    sink = logs.Metrics(path, 30)
    sink.write(steps(40, a=0.7))
    sink.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [*written[:3], steps(40, a=0.7)]


def test_a_whole_line_without_its_newline_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(msgspec.json.encode(steps(20, a=1.0)))  # killed just before the newline
    logs.Metrics(path, 40).close()
    assert path.read_bytes() == b""


def terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[int, Any]:
    """A pseudo-terminal as stderr; its reading end and the file to close."""
    master, slave = pty.openpty()
    screen = os.fdopen(slave, "w")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return master, screen


def test_a_terminal_gets_a_bar(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, screen = terminal(monkeypatch)
    train(dataset, make_config(), tmp_path / "run")
    screen.close()
    shown = b""
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    os.close(master)
    last = shown.decode().split("\r")[-1] if shown else ""
    text = shown.decode()
    assert "40/40" in text, last
    for part in ("main", "small", "targets/s", "validation ndcg@20 0.", "(best)"):
        assert part in text, part


def test_losses_on_the_bar_are_a_moving_average() -> None:
    bar = logs.Bar(100, 0)
    bar.write(steps(20, a=1.0))
    bar.write(steps(40, a=0.0))
    bar.close()
    assert bar._smooth == {"a": pytest.approx(logs.SMOOTHING)}


def test_unknown_or_missing_trackers_are_refused_before_anything_is_written(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no such tracker: 'wandb' .known: tensorboard, mlflow"):
        train(dataset, make_config(), tmp_path / "run", trackers=["wandb"])
    for name, module in (("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, module, None)  # what a failing import finds
        message = rf"{name} is not installed: pip install 'dimerec\[{name}\]'"
        with pytest.raises(ConfigError, match=message):
            train(dataset, make_config(), tmp_path / "run", trackers=[name])
    assert not (tmp_path / "run").exists()


class FakeWriter:
    """Records what `SummaryWriter` is told."""

    told: list[Any] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.told.append((Path(folder).name, purge_step))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, step))

    def close(self) -> None:
        self.told.append("closed")


def test_tensorboard_is_told_every_number(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    told: list[Any] = []
    monkeypatch.setattr(FakeWriter, "told", told)
    config = make_config(max_steps=20, validate_every=20)
    train(dataset, config, tmp_path / "run", trackers=["tensorboard"], progress=False)
    assert told[0] == ("tensorboard", 1)
    assert told[-1] == "closed"
    names = ["loss/main", "loss/small", "loss/total", "targets_per_second"]
    names += ["validation/ndcg@20", "validation/hr@20"]
    assert told[1:-1] == [(name, 20) for name in names]
    del told[:]
    run = tmp_path / "run"
    train(dataset, config, run, resume=True, trackers=["tensorboard"], progress=False)
    assert told == [("tensorboard", 21), "closed"]


def test_real_tensorboard_files_hold_the_validations(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    run = train(dataset, make_config(), tmp_path / "run", trackers=["tensorboard"], progress=False)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    got = [(e.step, e.value) for e in events.Scalars("validation/ndcg@20")]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    wanted = [(e["step"], e["validation"]["ndcg@20"]) for e in lines if "validation" in e]
    assert [s for s, _ in got] == [s for s, _ in wanted]
    assert [v for _, v in got] == pytest.approx([v for _, v in wanted])


def test_real_mlflow_goes_on_with_the_same_run(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the mlflow extra")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    config, out = make_config(), tmp_path / "run"

    def stop(entry: dict[str, Any]) -> None:
        if entry["step"] == 20:
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError):
        train(dataset, config, out, trackers=["mlflow"], progress=stop)
    run = train(dataset, config, out, resume=True, trackers=["mlflow"], progress=False)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs(["0"])
    assert found.data.params["training.learning_rate"] == "0.01"
    history = client.get_metric_history(found.info.run_id, "validation/ndcg_at_20")
    assert [m.step for m in history] == [10, 20, 30, 40] or [m.step for m in history] == [
        10, 20, 20, 30, 40,
    ]  # fmt: skip
    assert max(m.value for m in history) == pytest.approx(run.best)
