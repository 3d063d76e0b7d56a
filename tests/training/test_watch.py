"""Watching a training: when it is asked, what is noted, and that nothing else changes."""

import json
from pathlib import Path

import pytest
import torch

from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.model import SequentialModel
from dimerec.training.loop import train
from tests.training.conftest import make_config


def test_it_is_asked_at_each_validation_and_the_training_is_the_same(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config()
    plain = train(dataset, config, tmp_path / "plain", progress=False)
    norms: list[float] = []

    def watch(model: SequentialModel, batches: Batches) -> dict[str, float]:
        assert model.training
        batch = batches.batch(0)  # of an earlier epoch
        loss = model.loss(batch, torch.Generator().manual_seed(0)).total
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        model.get_buffer("calls").sub_(1)  # the toy counts, and is to be left as it was
        norms.append(float(sum(p.detach().norm() for p in model.parameters())))
        return {"norm": norms[-1]}

    watched = train(dataset, config, tmp_path / "watched", progress=False, watch=watch)
    assert watched.digest == plain.digest and watched.validation == plain.validation
    log = (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in log]
    noted = [(e["step"], e["watched"]) for e in entries if "watched" in e]
    assert [step for step, _ in noted] == [10, 20, 30, 40]
    assert [found["norm"] for _, found in noted] == norms and len(set(norms)) == 4
    assert all("validation" in e for e in entries if "watched" in e)


def test_what_it_raises_ends_the_run_and_the_last_checkpoint_stands(
    dataset: Dataset, tmp_path: Path
) -> None:
    def watch(model: SequentialModel, batches: Batches) -> dict[str, float]:
        raise RuntimeError("blind")

    config = make_config()
    with pytest.raises(RuntimeError, match="blind"):
        train(dataset, config, tmp_path / "run", progress=False, watch=watch)
    again = train(dataset, config, tmp_path / "run", progress=False, resume=True)
    plain = train(dataset, config, tmp_path / "plain", progress=False)
    assert again.digest == plain.digest
