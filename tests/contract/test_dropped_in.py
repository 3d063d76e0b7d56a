"""A new file in `models/` is found, listed and tested with no other edit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dimerec

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NEW = '''"""The mean of the history's vectors."""

import torch
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss


class Config(Struct):
    """Nothing to choose."""


class Model(SequentialModel):
    """One query: the mean."""

    targets = "last"

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.width = 16
        self.items = ItemEmbedding(catalogue.size, 16)
        self.out = torch.nn.Linear(16, 16)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        at = torch.zeros_like(batch.targets, dtype=torch.bool)
        at[:, -1] = batch.targets[:, -1] > 0
        queries = self.encode(batch.history, batch.history)[at[:, -1]]
        candidates = Candidates.of(batch, at, SoftmaxConfig(), self.items)
        return LossParts({"softmax": softmax_loss(candidates, queries)}, {"softmax": 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        count = (history > 0).sum(1).clamp_min(1).view(-1, 1, 1)
        return self.out(self.items(history).sum(1, keepdim=True) / count)

    def item_vectors(self) -> Tensor:
        return self.items.table()
'''
BROKEN = NEW.replace(
    "self.items(history).sum(1, keepdim=True) / count", "self.items(history)[:, :1]"
)


def contract(tmp_path: Path, name: str, source: str) -> subprocess.CompletedProcess[str]:
    """The contract suite over a copy of the package with one more file."""
    package = tmp_path / "src" / "dimerec"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(dimerec.__file__).parent, package, ignore=ignore)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (package / "models" / f"{name}.py").write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", name]
        + ["tests/contract/test_models.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )


def test_a_good_one_passes(tmp_path: Path) -> None:
    done = contract(tmp_path, "dropped_mean", NEW)
    assert done.returncode == 0, done.stdout
    assert "11 passed" in done.stdout, done.stdout


def test_a_bad_one_is_caught(tmp_path: Path) -> None:
    """It reads the oldest column, which padding moves."""
    done = contract(tmp_path, "dropped_bad", BROKEN)
    assert done.returncode == 1, done.stdout
    assert "test_padding_changes_nothing[dropped_bad]" in done.stdout
