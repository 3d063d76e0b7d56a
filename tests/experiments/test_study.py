"""Studies: every shipped one resolves, and shared runs are one run."""

import pytest

from dimerec.errors import ConfigError
from dimerec.experiments import study
from dimerec.experiments.measures import MEASURES
from dimerec.experiments.plan import fingerprint, recipe, trained
from dimerec.experiments.study import load, resolve

CASES = [
    (name, dataset, budget)
    for name in study.names()
    for dataset, data in load(name).datasets.items()
    for budget in data.epochs
]


@pytest.mark.parametrize(("name", "dataset", "budget"), CASES)
def test_every_shipped_study_resolves(name: str, dataset: str, budget: str) -> None:
    plan = resolve(load(name), dataset, budget)
    assert plan.runs and plan.seeds == list(range(load(name).budgets[budget].seeds))
    assert set(plan.measures) <= MEASURES.keys()
    marks = {fingerprint(plan, run, 0) for run in plan.runs}
    assert len(marks) == len(plan.runs), "two rows are the same run"


def test_the_papers_recipe_is_what_its_budget_gives() -> None:
    plan = resolve(load("table1"), "yoochoose", "paper")
    for run in plan.runs:
        config = recipe(plan, run, 0)
        assert (config.training.learning_rate, config.training.batch_size) == (0.005, 256)
        assert config.negatives.kind == "none" or config.negatives.number == 10
    labels = [r.label for r in plan.runs]
    for name in ("SASRec", "GRU4Rec", "MIND", "ComiRec-SA", "Mult-VAE", "DreamRec", "DiffuRec"):
        assert name in labels
    assert {"DimeRec", "DimeRec, x_t = 0"} <= set(labels)


def test_the_papers_numbers_stand_beside_those_of_their_dataset() -> None:
    one = resolve(load("table1"), "yoochoose", "paper")
    other = resolve(load("table1"), "ml-1m", "paper")
    ours = {p.label: p.metrics["hr@20"] for p in one.published}
    theirs = {p.label: p.metrics["hr@20"] for p in other.published}
    assert ours["DimeRec"] == 0.0648 and theirs["DimeRec"] == 0.2758
    assert ours["DreamRec"] == 0.0345 and theirs["DreamRec"] == 0.0026


def test_a_measure_or_a_variant_is_scored_anew_but_not_trained_anew() -> None:
    import msgspec

    plan = resolve(load("table1"), "latest-small", "smoke")
    more = msgspec.structs.replace(plan, measures=["probing"])
    run = plan.runs[0]
    assert fingerprint(plan, run, 0) != fingerprint(more, run, 0)
    assert trained(plan, run, 0) == trained(more, run, 0) == fingerprint(plan, run, 0)


def test_what_is_not_there_is_named() -> None:
    one = load("table1")
    with pytest.raises(ConfigError, match="no dataset 'amazon'; there is latest-small, yoochoose"):
        resolve(one, "amazon", "smoke")
    with pytest.raises(ConfigError, match="no budget 'rich'; there is smoke, paper"):
        resolve(one, "ml-1m", "rich")
    with pytest.raises(ConfigError, match="no budget for yoochoose 'smoke'; there is paper"):
        resolve(one, "yoochoose", "smoke")
    with pytest.raises(ConfigError, match="table9: no such study, nor a readable file"):
        load("table9")
