"""Measures of real runs against the functions and evaluations that they stand for."""

from pathlib import Path

import pytest

from dimerec.bundle import Bundle
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError
from dimerec.evaluation import diagnostics, probing
from dimerec.evaluation.evaluator import evaluate
from dimerec.experiments.measures import WEIGHTS, measure
from dimerec.training.run import Run
from tests.experiments.walks import tiny, walks

WHERE = "every-position"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return walks(tmp_path_factory.mktemp("walks") / "data")


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny(data, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def counted(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny(data, tmp_path_factory.mktemp("counted") / "run", "popularity")


def test_probing(data: Dataset, run: Run, counted: Run) -> None:
    found = measure("probing", run, data, WHERE, 3)
    wanted = probing.probe(Bundle.open(run.bundle), 3)
    assert found["probe-majority"] == wanted.majority.micro
    assert found["probe-majority-macro"] == wanted.majority.macro
    assert found["probe-majority-blind"] == wanted.majority.blind_micro
    assert found["probe-multilabel"] == wanted.multilabel.micro
    assert found["probe-top"] == wanted.multilabel.top
    assert measure("probing", counted, data, WHERE, 3) == {}, "nothing to probe"


def test_lists(data: Dataset, run: Run, counted: Run) -> None:
    found = measure("lists", run, data, WHERE, 3)
    told = diagnostics.diagnose(Bundle.open(run.bundle), data, seed=3).lists
    assert told and told.slates
    scored = evaluate(Bundle.open(run.bundle), data, positions=WHERE, seed=3)
    total = sum(b.queries for b in told.bands)
    whole = sum(b.queries * found.get(f"hr@20-{b.name}", 0.0) for b in told.bands) / total
    assert whole == pytest.approx(scored.metrics["hr@20"]), "the bands make up the whole"
    assert sum(found[f"shown-{b.name}"] for b in told.bands) == pytest.approx(1)
    assert found["slate@50"] == told.slates.coverage[50] >= found["slate@20"]
    assert found["gini@20"] == told.gini[20] and found["novelty@20"] == told.novelty[20]
    assert "cosine-interests" in found
    assert "cosine-interests" not in measure("lists", counted, data, WHERE, 3)


@pytest.mark.parametrize("name", ["run", "counted"])
def test_weights(data: Dataset, name: str, request: pytest.FixtureRequest) -> None:
    one: Run = request.getfixturevalue(name)
    found = measure("weights", one, data, WHERE, 3)
    scored = evaluate(Bundle.open(one.bundle), data, positions=WHERE, seed=3)
    if name == "run":  # counts have ties, which a list breaks and a rank shares
        assert found["frontier-hr@20/0"] == pytest.approx(scored.metrics["hr@20"])
    assert len(found) == 2 * len(WEIGHTS)
    assert all(0 <= found[f"frontier-hr@20/{w:g}"] <= 1 for w in WEIGHTS)
    assert found["frontier-categories/0.4"] >= found["frontier-categories/0"]


def test_without_categories_there_is_nothing_to_probe(run: Run, tmp_path: Path) -> None:
    plain = walks(tmp_path / "plain", categories=False)
    assert measure("probing", run, plain, WHERE, 0) == {}
    assert measure("weights", run, plain, WHERE, 0) == {}


def test_an_unknown_measure_is_named(data: Dataset, run: Run) -> None:
    with pytest.raises(ConfigError, match="no measure 'speed'; there is chain, gradients, lists"):
        measure("speed", run, data, WHERE, 0)
