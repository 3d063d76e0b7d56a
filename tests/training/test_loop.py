"""The training loop: what it computes, chooses, promises and refuses."""

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from dimerec import plugins, randomness
from dimerec.bundle import Bundle
from dimerec.config import NegativesConfig, RunConfig, convert
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, DataError, TrainingDiverged
from dimerec.model import SequentialModel
from dimerec.training import loop
from dimerec.training.loop import train
from dimerec.training.run import Run
from tests.training.conftest import make_config, make_dataset


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def with_model(config: RunConfig, model: str, **options: object) -> RunConfig:
    return msgspec.structs.replace(config, model=model, options=options)


def reference(dataset: Dataset, config: RunConfig, steps: int) -> dict[str, torch.Tensor]:
    """Weights after `steps` of Adam (Kingma and Ba 2015, Algorithm 1), written out by hand."""
    torch.manual_seed(randomness.key(config.seed, "init") % 2**63)
    module = plugins.load("dimerec.models", config.model)
    model = module.Model(config.model_config(), dataset.catalogue(config.length))
    batches = Batches(dataset, config, model.targets)
    training = config.training
    first = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    second = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for step in range(steps):
        rng = randomness.torch_stream(config.seed, "loss", step)
        losses = model.loss(batches.batch(step), rng)
        total = losses.parts["main"] + 0.1 * losses.parts["small"]
        parameters = dict(model.named_parameters())
        grads = torch.autograd.grad(total, list(parameters.values()))
        norm = torch.sqrt(sum((g.square().sum() for g in grads), torch.zeros(())))
        shrink = min(1.0, training.clip_norm / float(norm)) if training.clip_norm else 1.0
        for (name, p), g in zip(parameters.items(), grads, strict=True):
            g = g * shrink + training.weight_decay * p.detach()
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            m = first[name] / (1 - 0.9 ** (step + 1))
            v = second[name] / (1 - 0.999 ** (step + 1))
            p.data -= training.learning_rate * m / (v.sqrt() + 1e-8)
    return model.state_dict()


@pytest.mark.parametrize(
    "training", [{}, {"weight_decay": 0.1}, {"clip_norm": 0.5}, {"clip_norm": 100.0}]
)
def test_weights_are_those_of_adam_by_hand(
    dataset: Dataset, tmp_path: Path, training: dict[str, Any]
) -> None:
    config = make_config(max_steps=7, validate_every=7, **training)
    run = train(dataset, config, tmp_path / "run", progress=False)
    got = Bundle.open(run.bundle).model().state_dict()
    for name, wanted in reference(dataset, config, 7).items():
        torch.testing.assert_close(got[name], wanted, rtol=1e-4, atol=1e-5)


def test_the_seed_alone_decides_the_weights(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(max_steps=10)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    one = train(dataset, config, tmp_path / "one", progress=False)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    before = torch.random.get_rng_state()
    two = train(dataset, config, tmp_path / "two", progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.digest == two.digest
    other = msgspec.structs.replace(config, seed=1)
    assert train(dataset, other, tmp_path / "three", progress=False).digest != one.digest


def test_a_run_says_what_it_did(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(max_steps=50, validate_every=25)
    seen: list[dict[str, Any]] = []
    run = train(dataset, config, tmp_path / "run", progress=seen.append)
    assert run == Run.open(tmp_path / "run")
    lines = entries(run.path)
    assert seen == lines
    assert [(e["step"], "validation" in e) for e in lines] == [
        (20, False), (25, False), (25, True), (40, False), (50, False), (50, True),
    ]  # fmt: skip
    for entry in lines:
        if "losses" in entry:
            total = entry["losses"]["main"] + 0.1 * entry["losses"]["small"]
            assert entry["total"] == pytest.approx(total, rel=1e-5)
            assert entry["targets_per_second"] > 0
    validations = {e["step"]: e["validation"] for e in lines if "validation" in e}
    assert validations[50]["ndcg@20"] > validations[25]["ndcg@20"] > 0
    assert lines[0]["losses"]["main"] > lines[-2]["losses"]["main"]
    assert (run.stopped, run.weights, run.steps, run.best_step) == ("finished", "best", 50, 50)
    assert run.best == validations[50]["ndcg@20"]
    assert run.validation == validations[50]
    batches = Batches(dataset, config, "all")
    assert run.targets == sum(int((batches.batch(s).targets > 0).sum()) for s in range(50))
    assert run.targets_per_second == pytest.approx(run.targets / run.seconds)
    assert run.dataset == dataset.digest and run.config == config.fingerprint
    assert run.parameters == 31 * 8 + 8 * 8 + 8
    stored = convert(json.loads((run.path / "config.json").read_bytes()), RunConfig, "stored")
    assert stored == config
    bundle = Bundle.open(run.bundle)
    assert bundle.weights_digest == run.digest
    assert bundle.manifest.origin.digest == dataset.digest


def test_the_best_weights_are_kept_and_patience_ends_the_run(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(learning_rate=0.3, validate_every=5, max_steps=400, patience=3)
    run = train(dataset, config, tmp_path / "run", progress=False)
    values = [e["validation"]["ndcg@20"] for e in entries(run.path) if "validation" in e]
    best = int(np.argmax(values))
    assert run.stopped == "early"
    assert len(values) == best + 1 + 3
    assert (run.best, run.best_step, run.steps) == (values[best], 5 * (best + 1), 5 * len(values))
    state = Bundle.open(run.bundle).model().state_dict()
    assert state["calls"] == run.best_step
    again = train(dataset, config, run.path, resume=True, progress=False)
    assert again == run


def stop_at(step: int, number: signal.Signals) -> Callable[[dict[str, Any]], None]:
    def report(entry: dict[str, Any]) -> None:
        if entry["step"] == step and "losses" in entry:
            os.kill(os.getpid(), number)

    return report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_usable_and_goes_on_bit_for_bit(
    dataset: Dataset, tmp_path: Path, number: signal.Signals
) -> None:
    config = make_config(validate_every=15)
    whole = train(dataset, config, tmp_path / "whole", progress=False)
    handler = signal.getsignal(number)
    out = tmp_path / "run"
    run = train(dataset, config, out, progress=stop_at(20, number))
    assert signal.getsignal(number) is handler
    # noticed after step 21, whose line and checkpoint are written at once
    assert (run.stopped, run.weights, run.steps, run.best_step) == ("interrupted", "best", 21, 15)
    answer = Bundle.open(run.bundle).recommender().recommend([["i3", "i4"]], n=3)
    assert len(answer[0].items) == 3
    again = train(dataset, config, out, resume=True, progress=False)
    assert (again.stopped, again.digest, again.best) == ("finished", whole.digest, whole.best)
    state = "checkpoint/state-00000040.safetensors"
    assert (out / state).read_bytes() == (whole.path / state).read_bytes()


def test_before_the_first_validation_the_current_weights_are_bundled(
    dataset: Dataset, tmp_path: Path
) -> None:
    report = stop_at(20, signal.SIGINT)
    run = train(dataset, make_config(validate_every=30), tmp_path / "run", progress=report)
    assert (run.weights, run.steps, run.best_step, run.best) == ("current", 21, 21, None)
    assert Bundle.open(run.bundle).model().state_dict()["calls"] == 21


def test_a_second_ctrl_c_stops_at_once(dataset: Dataset, tmp_path: Path) -> None:
    def report(entry: dict[str, Any]) -> None:
        if entry["step"] == 20:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(dataset, make_config(), tmp_path / "run", progress=report)
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(DataError, match="no run that ended"):
        Run.open(tmp_path / "run")
    assert train(dataset, make_config(), tmp_path / "run", resume=True, progress=False).steps == 40


def test_a_loss_that_is_not_finite_is_named(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = train(dataset, make_config(), tmp_path / "whole", progress=False)
    config = make_config(learning_rate=0.05)
    config = with_model(config, "toy", width=8, explode_below=4.0)
    with pytest.raises(TrainingDiverged) as caught:
        train(dataset, config, out, progress=False)
    message = str(caught.value)
    state = json.loads((out / "checkpoint/checkpoint.json").read_bytes())
    assert "the loss part small is inf at step" in message
    assert f"the last good checkpoint is of step {state['step']}" in message
    step = int(message.split("at step ")[1].split(";")[0])
    assert 0 <= step - 1 - state["step"] < 10
    assert whole.stopped == "finished"


def test_weights_that_are_not_finite_are_never_stored(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = make_config(learning_rate=1e38, validate_every=1)
    with pytest.raises(TrainingDiverged, match=r"at step \d+; the last good checkpoint is of"):
        train(dataset, config, out, progress=False)
    import safetensors.torch

    (file,) = (out / "checkpoint").glob("*.safetensors")
    for tensor in safetensors.torch.load_file(file).values():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all()


def test_an_existing_folder_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = make_config(max_steps=2, validate_every=2)
    train(dataset, config, out, progress=False)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=r"run: exists already; .*--resume, or .* --out"):
        train(dataset, config, out, progress=False)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    for resume in (False, True):
        with pytest.raises(ConfigError, match="another --out"):
            train(dataset, config, other, resume=resume, progress=False)
    assert [p.name for p in other.iterdir()] == ["cat.jpg"]
    with pytest.raises(ConfigError, match="is a file"):
        train(dataset, config, other / "cat.jpg", progress=False)


def test_resume_without_a_run_starts_one(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(max_steps=2, validate_every=2)
    fresh = train(dataset, config, tmp_path / "deep" / "one", resume=True, progress=False)
    plain = train(dataset, config, tmp_path / "two", progress=False)
    assert fresh.digest == plain.digest


def test_a_counting_model_counts_once_and_resumes_by_counting_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = with_model(make_config(), "tally")
    run = train(dataset, config, tmp_path / "run", progress=False)
    got = Bundle.open(run.bundle).model().state_dict()["counts"]
    wanted = np.zeros(31)
    for row, end in enumerate(dataset.train_end):
        for item in dataset.items[dataset.offsets[row] :][1 : int(end)]:
            wanted[item] += 1
    np.testing.assert_array_equal(got.numpy(), wanted)
    assert (run.steps, run.targets, run.weights) == (0, wanted.sum(), "current")
    assert run.best is not None
    lines = entries(run.path)
    again = train(dataset, config, run.path, resume=True, progress=False)
    assert (again.digest, again.best, again.targets) == (run.digest, run.best, run.targets)
    assert [e["validation"] for e in entries(run.path)] == [e["validation"] for e in lines]
    other = make_dataset(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="dataset digest"):
        train(other, config, run.path, resume=True, progress=False)


def test_without_validation_queries_the_last_weights_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make_dataset(tmp_path / "data", validation=0)
    run = train(dataset, make_config(), tmp_path / "run", progress=False)
    assert "has no validation queries" in caplog.text
    assert (run.weights, run.best, run.best_step, run.validation) == ("current", None, 40, {})
    assert Bundle.open(run.bundle).model().state_dict()["calls"] == 40


def test_bfloat16_runs_the_forward_pass_narrow_and_keeps_wide_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugins.load("dimerec.models", "toy")
    kinds: set[torch.dtype] = set()
    states = module.Model._states

    def spy(self: SequentialModel, hidden: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            kinds.add(self.mix(hidden).dtype)  # pyright: ignore
        return states(self, hidden, history)

    monkeypatch.setattr(module.Model, "_states", spy)
    narrow = make_config(precision="bfloat16")
    run = train(dataset, narrow, tmp_path / "narrow", progress=False)
    assert kinds == {torch.bfloat16}
    assert Bundle.open(run.bundle).model().state_dict()["mix.weight"].dtype == torch.float32
    kinds.clear()
    wide = train(dataset, make_config(), tmp_path / "wide", progress=False)
    assert kinds == {torch.float32}
    assert wide.digest != run.digest
    assert run.best == pytest.approx(wide.best, rel=0.2)


def test_torchs_settings_are_put_back(dataset: Dataset, tmp_path: Path) -> None:
    def look(entry: dict[str, Any]) -> None:
        during.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))

    during: list[tuple[int, bool]] = []
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    config = make_config(max_steps=2, validate_every=2)
    run = train(dataset, config, tmp_path / "run", threads=2, progress=look)
    assert set(during) == {(2, True)}
    assert run.threads == 2
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(
    dataset: Dataset, tmp_path: Path, device: str
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=f"training.device is {device}, which is not there"):
        train(dataset, make_config(device=device), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_learns_what_the_cpu_learns(dataset: Dataset, tmp_path: Path) -> None:
    config = with_model(make_config(), "sasrec")
    there = msgspec.structs.replace(config.training, device="auto")
    cpu = train(dataset, config, tmp_path / "cpu", progress=False)
    config = msgspec.structs.replace(config, training=there)
    cuda = train(dataset, config, tmp_path / "cuda", progress=False)
    assert cuda.device == torch.cuda.get_device_name()
    assert cuda.best == pytest.approx(cpu.best, rel=0.1)


@pytest.mark.parametrize("name", [n for n in plugins.names("dimerec.models")])
def test_every_shipped_model_trains_and_resumes_bit_for_bit(
    dataset: Dataset, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 5)
    short = {"steps": 3} if name in ("diffurec", "dreamrec") else {}  # the reverse chain
    config = with_model(make_config(max_steps=14, validate_every=7), name, **short)
    if getattr(config.model_config(), "without_negatives", ""):
        with pytest.raises(ConfigError, match="negatives.kind = 'uniform': must be 'none'"):
            train(dataset, config, tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
        config = msgspec.structs.replace(config, negatives=NegativesConfig())
    whole = train(dataset, config, tmp_path / "whole", progress=False)
    run = train(dataset, config, tmp_path / "run", progress=stop_at(10, signal.SIGINT))
    if run.steps:
        assert (run.stopped, run.steps) == ("interrupted", 11)
    again = train(dataset, config, tmp_path / "run", resume=True, progress=False)
    assert again.digest == whole.digest
    assert again.best == whole.best != 0


def test_plain_lines_go_to_the_log(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dimerec"):
        train(dataset, make_config(), tmp_path / "run", progress=True)
    lines = [r.getMessage() for r in caplog.records if r.name == "dimerec.training.logs"]
    assert sum("validation" in line for line in lines) == 4
    assert any("targets/s" in line and "main" in line for line in lines)


def test_epochs_end_the_run_when_they_come_first(dataset: Dataset, tmp_path: Path) -> None:
    steps = Batches(dataset, make_config(), "all").steps_per_epoch
    assert 1 < 2 * steps < 40
    run = train(dataset, make_config(epochs=2), tmp_path / "two", progress=False)
    assert (run.stopped, run.steps) == ("finished", 2 * steps)
    assert entries(run.path)[-1]["step"] == 2 * steps
    assert "validation" in entries(run.path)[-1]
    run = train(dataset, make_config(epochs=2, max_steps=3), tmp_path / "three", progress=False)
    assert (run.stopped, run.steps) == ("finished", 3)
