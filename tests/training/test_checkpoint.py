"""The checkpoint's promise: killed anywhere, a run goes on bit for bit; and its refusals."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch

from dimerec import files
from dimerec.config import RunConfig
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, DimeRecError
from dimerec.training import checkpoint, logs, loop
from dimerec.training.run import Run
from tests.training.conftest import make_config, make_dataset

ROOT = Path(__file__).parents[2]


def entries(out: Path) -> list[dict[str, object]]:
    """metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if "second" not in k} for e in lines]


def same(one: Path, other: Path) -> None:
    """Both run folders hold the same numbers, bit for bit."""
    a, b = (json.loads((p / "checkpoint/checkpoint.json").read_bytes()) for p in (one, other))
    for key in ("step", "validations", "best", "targets", "files"):
        assert a[key] == b[key], key
    assert Run.open(one).digest == Run.open(other).digest
    assert entries(one) == entries(other)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        import dimerec.models
        from tests.training.conftest import MODELS

        patch.setattr(dimerec.models, "__path__", [*dimerec.models.__path__, str(MODELS)])
        out = tmp_path_factory.mktemp("whole") / "run"
        loop.train(dataset, make_config(), out, progress=False)
    return out


def test_a_run_killed_anywhere_goes_on_bit_for_bit(
    dataset: Dataset, whole: Path, tmp_path: Path
) -> None:
    draw = random.Random()
    # Validations, and with them checkpoints, come every ten steps. Each of these is ahead of any
    # checkpoint that the attempt before it can have left, so every one must hit.
    placed = [
        f"step:{draw.randrange(9)}",
        f"write:{draw.randint(1, 2)}",
        f"step:{draw.randrange(10, 20)}",
        f"written:{draw.randint(1, 3)}",
        f"step:{draw.randrange(30, 40)}",
        f"write:{draw.randint(1, 3)}",
    ]
    anywhere = [f"after:{draw.uniform(0, 0.3):.3f}" for _ in range(2)]
    kills = [*placed, *anywhere]
    command = [sys.executable, "-m", "tests.training.killed"]
    done = subprocess.run(
        [*command, str(dataset.path), str(tmp_path / "run"), *kills],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (kills, done.stderr)
    hit = done.stdout.split()
    assert [k for k in placed if k not in hit] == [], (kills, hit)
    same(tmp_path / "run", whole)
    left = {p.name for p in (tmp_path / "run" / "checkpoint").iterdir()}
    assert left == {"checkpoint.json", "state-00000040.safetensors"}, kills


def test_the_state_holds_all_moments_and_the_best_weights_match_the_bundle(whole: Path) -> None:
    state = safetensors.torch.load_file(whole / "checkpoint/state-00000040.safetensors")
    for name in ("table.weight", "mix.weight", "mix.bias"):
        moments = {k for k in state if k.startswith(f"optimizer.{name}/")}
        assert moments == {f"optimizer.{name}/{k}" for k in ("step", "exp_avg", "exp_avg_sq")}
        assert state[f"optimizer.{name}/step"].item() == 40
    assert state["model.calls"].item() == 40
    run = Run.open(whole)
    (best,) = (whole / "best").iterdir()
    assert best.name == f"weights-{run.best_step:08d}.safetensors"
    stored = safetensors.torch.load_file(best)
    served = safetensors.torch.load_file(run.bundle / "weights.safetensors")
    assert served["calls"].item() == run.best_step
    for name, tensor in served.items():
        assert torch.equal(stored[f"model.{name}"], tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed 0 -> 1"),
        ({"options": {"width": 6}}, "options.width 8 -> 6"),
        ({"options": {}}, "options.width 8 -> 'unset'"),
    ],
)
def test_resume_refuses_another_configuration(
    dataset: Dataset, whole: Path, change: dict[str, object], message: str
) -> None:
    config = msgspec.structs.replace(make_config(), **change)
    with pytest.raises(ConfigError, match=message):
        loop.train(dataset, config, whole, resume=True, progress=False)


def test_resume_refuses_another_dataset_and_takes_another_description(
    dataset: Dataset, whole: Path, tmp_path: Path
) -> None:
    other = make_dataset(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match=f"dataset digest .* -> {other.digest[:12]}"):
        loop.train(other, make_config(), whole, resume=True, progress=False)
    config = msgspec.structs.replace(make_config(), about="the same, described")
    assert loop.train(dataset, config, whole, resume=True, progress=False).steps == 40


def test_resuming_a_finished_run_changes_nothing(dataset: Dataset, whole: Path) -> None:
    before, lines = Run.open(whole), (whole / "metrics.jsonl").read_bytes()
    again = loop.train(dataset, make_config(), whole, resume=True, progress=False)
    assert again == before
    assert (whole / "metrics.jsonl").read_bytes() == lines


def test_other_threads_or_versions_are_reported(
    dataset: Dataset, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = checkpoint.read(whole, make_config(), dataset.digest)
    assert not caplog.records
    state.threads, state.versions = 7, {**state.versions, "torch": "0.1"}
    checkpoint.note(whole, state)
    checkpoint.read(whole, make_config(), dataset.digest)
    assert "other threads (1, was 7)" in caplog.text
    assert "other versions" in caplog.text
    state.threads, state.versions = torch.get_num_threads(), checkpoint.versions()
    checkpoint.note(whole, state)


def interrupted_run(dataset: Dataset, out: Path, config: RunConfig, monkeypatch, call: int):
    """Train with the `call`-th file write from now failing for want of space."""
    write, count = files.write_file, 0

    def full(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count >= call:
            path.with_name(f".{path.name}.part").write_bytes(content[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_file", full)
        loop.train(dataset, config, out, progress=False)


@pytest.mark.parametrize("call", [4, 5, 6, 7])
def test_a_full_disk_is_one_clear_error_and_the_earlier_checkpoint_stands(
    dataset: Dataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    # Writes: config.json; step 0: state, json; step 10: state, best, json; step 20: state, ...
    out = tmp_path / "run"
    with pytest.raises(DimeRecError) as caught:
        interrupted_run(dataset, out, make_config(), monkeypatch, call)
    step = 10 if call < 7 else 20
    for part in (f"{out}", f"the checkpoint of step {step}", "No space left", "--resume"):
        assert part in str(caught.value)
    assert checkpoint.read(out, make_config(), dataset.digest).step == step - 10
    loop.train(dataset, make_config(), out, resume=True, progress=False)
    same(out, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_is_one_clear_error(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: logs.Metrics, path: Path, step: int) -> None:
        self._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115, PTH123

    monkeypatch.setattr(logs.Metrics, "__init__", full)
    with pytest.raises(DimeRecError, match=r"cannot write the run's logs .No space left"):
        loop.train(dataset, make_config(), tmp_path / "run", progress=False)


def test_a_corrupt_or_missing_state_is_named(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    file = out / "checkpoint/state-00000040.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DimeRecError, match=r"state-00000040.safetensors: corrupt"):
        loop.train(dataset, make_config(), out, resume=True, progress=False)
    file.unlink()
    with pytest.raises(DimeRecError, match=r"state-00000040.safetensors: cannot be read"):
        loop.train(dataset, make_config(), out, resume=True, progress=False)
    (out / "checkpoint/checkpoint.json").write_text('{"step": ')
    with pytest.raises(DimeRecError, match=r"checkpoint.json: not a checkpoint"):
        loop.train(dataset, make_config(), out, resume=True, progress=False)
