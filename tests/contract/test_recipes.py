"""Every shipped recipe goes from MovieLens to recommendations, as a user would take it there."""

from pathlib import Path

import numpy as np
import pytest

from dimerec import config
from dimerec.bundle import Bundle
from dimerec.data import sources
from dimerec.data.dataset import Dataset
from dimerec.data.prepare import prepare
from dimerec.evaluation.evaluator import evaluate
from dimerec.training.loop import train

SMALL = [
    "length=12",
    "training.max_steps=2",
    "training.batch_size=8",
    "training.validate_every=2",
    "training.validation_queries=20",
    "training.device=cpu",
]


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    loaded = sources.read("ml-latest-small")
    out = tmp_path_factory.mktemp("movies") / "data"
    return prepare(loaded.log, out, items=loaded.items, min_item_events=40)


@pytest.mark.parametrize("name", config.shipped())
def test_it_trains_evaluates_and_recommends(name: str, movies: Dataset, tmp_path: Path) -> None:
    run = train(movies, config.load(name, SMALL), tmp_path / "run", progress=False)
    bundle = Bundle.open(run.bundle)
    found = evaluate(bundle, movies, positions="last", device="cpu", limit=20, lists=0)
    assert np.isfinite(found.ranks).all() and (found.ranks >= 1).all()
    history = [movies.vocabulary.ids([n])[0] for n in (1, 2, 3)]
    (answer,) = bundle.recommender().recommend([history], n=5)
    assert answer.source == "model" and len(set(answer.items)) == 5
    assert not set(answer.items) & set(history)
