"""A small dataset, and two tiny models that `dimerec.models` finds in a folder of the tests."""

from pathlib import Path

import numpy as np
import pytest

import dimerec.models
from dimerec.config import RunConfig, convert
from dimerec.data import dataset as datasets
from dimerec.data.dataset import Dataset
from dimerec.vocabulary import Vocabulary

USERS, ITEMS = 60, 30
MODELS = Path(__file__).parent / "models"


def make_dataset(path: Path, seed: int = 0, validation: int = 10) -> Dataset:
    """Users who walk through the items by +1 or +2; the last `validation` users validate."""
    rng = np.random.default_rng(seed)
    n = rng.integers(4, 15, USERS)
    start = rng.integers(0, ITEMS, USERS)
    walks = [
        (s + np.cumsum(rng.integers(1, 3, k))) % ITEMS + 1 for s, k in zip(start, n, strict=True)
    ]
    valid = np.arange(USERS) >= USERS - validation
    return datasets.write(
        path,
        vocabulary=Vocabulary([f"i{i}" for i in range(ITEMS)]),
        users=Vocabulary(list(range(USERS))),
        offsets=np.concatenate([[0], np.cumsum(n)]),
        items=np.concatenate(walks),
        times=np.concatenate([np.arange(k) for k in n]),
        train_end=np.where(valid, 0, n),
        valid_end=n,
        card={"name": "walks", "protocol": {"name": "users-8-1-1", "seed": seed}},
    )


def make_config(**training: object) -> RunConfig:
    """Forty steps of the tiny model, validated every ten."""
    plain = {
        "model": "toy",
        "length": 8,
        "options": {"width": 8},
        "negatives": {"kind": "uniform", "number": 5},
        "training": {
            "max_steps": 40,
            "batch_size": 16,
            "learning_rate": 0.01,
            "validate_every": 10,
            "device": "cpu",
            **training,
        },
    }
    return convert(plain, RunConfig, "test")


@pytest.fixture(autouse=True)
def _tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimerec.models, "__path__", [*dimerec.models.__path__, str(MODELS)])


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "walks")
