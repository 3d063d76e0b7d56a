"""Curves of real runs: gradients against a slow way, losses against the log, chains against
evaluations."""

import json
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.bundle import Bundle
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.errors import DataError
from dimerec.evaluation.evaluator import evaluate
from dimerec.experiments import curves
from dimerec.experiments.curves import BATCHES, watch
from dimerec.model import LossParts, SequentialModel
from dimerec.randomness import torch_stream
from dimerec.training.run import Run
from tests.experiments.walks import tiny, walks

WHERE = "every-position"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return walks(tmp_path_factory.mktemp("walks") / "data")


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    changes = ("options.schedule.steps=6", "options.samples=3")
    return tiny(data, tmp_path_factory.mktemp("run") / "run", "dimerec", *changes)


@pytest.fixture(scope="module")
def none(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny(data, tmp_path_factory.mktemp("none") / "run", "dimerec-none")


def entries(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_cosines_by_plain_backward_passes(data: Dataset, run: Run) -> None:
    bundle = Bundle.open(run.bundle)
    model = bundle.model().requires_grad_(True)
    batches = Batches(data, bundle.config, model.targets)
    found = watch(model, batches)
    gradients: dict[str, dict[str, Tensor]] = {}
    for part in ("gem", "recon", "ssm"):
        model.zero_grad(set_to_none=True)
        for step in range(BATCHES):
            losses = model.loss(batches.batch(step), torch_stream(0, "watch", step))
            losses.parts[part].backward()
        gradients[part] = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
    assert not any(name.startswith("dam") for name in gradients["gem"])
    for one, other in (("gem", "recon"), ("gem", "ssm"), ("recon", "ssm")):
        shared = sorted(gradients[one].keys() & gradients[other].keys())
        flat = [torch.cat([gradients[p][n].flatten() for n in shared]) for p in (one, other)]
        wanted = float(torch.cosine_similarity(*flat, dim=0))
        assert found[f"cosine-{one}-{other}"] == pytest.approx(wanted, abs=1e-5)
        items = [gradients[p]["items.weight"].flatten() for p in (one, other)]
        wanted = float(torch.cosine_similarity(*items, dim=0))
        assert found[f"cosine-items-{one}-{other}"] == pytest.approx(wanted, abs=1e-5)
    assert len({round(v, 4) for v in found.values()}) == len(found) == 6
    assert watch(model, batches) == found, "the same batches and the same noise each time"


class Pulls(SequentialModel):
    """Losses that pull one weight up, down, and another weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        self.calls += 1
        parts = {
            "up": self.a.sum(),
            "more": 2 * self.a.sum() + self.b.sum(),
            "down": -self.a.sum(),
            "apart": self.b.sum(),
            "fixed": torch.ones(()),
        }
        return LossParts(parts, dict.fromkeys(parts, 1.0))

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        raise NotImplementedError


def test_cosines_of_known_pulls(data: Dataset, run: Run) -> None:
    batches = Batches(data, Bundle.open(run.bundle).config, "all")
    model = Pulls()
    found = watch(model, batches)
    assert model.calls == 0, "left as it was"
    assert found["cosine-up-down"] == pytest.approx(-1)
    assert found["cosine-up-more"] == pytest.approx(1), "over the weight that both depend on"
    assert found["cosine-up-apart"] == 0, "no weight in common"
    assert not any("fixed" in name for name in found)


def test_what_was_watched_is_a_curve_with_its_mean(data: Dataset, run: Run) -> None:
    found = curves.gradients(run, data, WHERE, 0)
    log = {e["step"]: e["watched"] for e in entries(run) if "watched" in e}
    assert sorted(log) == [20, 40, 60]
    for name in log[20]:
        values = [log[step][name] for step in log]
        assert [found[f"{name}/{step}"] for step in log] == values
        assert found[name] == pytest.approx(mean(values))


def test_a_run_that_was_not_watched_says_so(data: Dataset, run: Run, tmp_path: Path) -> None:
    import msgspec

    (tmp_path / "metrics.jsonl").write_text('{"step":1,"validation":{},"best":true}\n')
    blind = msgspec.structs.replace(run, path=tmp_path)
    with pytest.raises(DataError, match="without watching"):
        curves.gradients(blind, data, WHERE, 0)


def test_losses_are_those_of_the_log(
    data: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [e for e in entries(run) if "losses" in e]
    assert [e["step"] for e in log] == [20, 40, 60]
    found = curves.losses(run, data, WHERE, 0)
    assert found == {f"loss-{n}/{e['step']}": v for e in log for n, v in e["losses"].items()}
    monkeypatch.setattr(curves, "POINTS", 2)
    fewer = curves.losses(run, data, WHERE, 0)
    assert sorted({int(name.partition("/")[2]) for name in fewer}) == [40, 60]
    first = mean(e["losses"]["recon"] for e in log[:2])
    assert fewer["loss-recon/40"] == pytest.approx(first)


def test_the_chain_ends_where_the_model_recommends(data: Dataset, run: Run) -> None:
    found = curves.chain(run, data, WHERE, 5)
    assert sorted(found) == sorted(
        [f"chain-noisy/{n}" for n in range(6)] + [f"chain-clean/{n}" for n in range(1, 7)]
    )
    whole = Bundle.open(run.bundle).with_options({"steps": 6})
    scored = evaluate(whole, data, positions=WHERE, seed=5, device="cpu", lists=0)
    assert found["chain-clean/6"] == pytest.approx(scored.metrics["hr@50"])


def test_steps_are_evaluations_with_so_many_steps(data: Dataset, run: Run) -> None:
    found = curves.steps(run, data, WHERE, 5)
    numbers = [1, 2, 5]
    assert sorted(found) == sorted(
        [f"steps-hr@50/{n}" for n in numbers] + [f"microseconds/{n}" for n in numbers]
    )
    for n in numbers:
        bundle = Bundle.open(run.bundle).with_options({"steps": n})
        scored = evaluate(bundle, data, positions=WHERE, seed=5, device="cpu", lists=0)
        assert found[f"steps-hr@50/{n}"] == scored.metrics["hr@50"]
    assert 0 < found["microseconds/1"] < found["microseconds/5"]


def test_without_diffusion_there_is_no_chain(data: Dataset, none: Run, tmp_path: Path) -> None:
    assert curves.chain(none, data, WHERE, 0) == {} == curves.steps(none, data, WHERE, 0)
    counted = tiny(data, tmp_path / "run", "popularity")
    assert curves.chain(counted, data, WHERE, 0) == {}
    assert curves.losses(counted, data, WHERE, 0) == {}
