"""Studies: every shipped one resolves, and shared runs are one run."""

from pathlib import Path

import pytest

from dimerec import config
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


@pytest.mark.parametrize("name", [n for n in study.names() if n != "table1"])
def test_dimerec_never_stands_without_its_row_without_diffusion(name: str) -> None:
    for dataset, data in load(name).datasets.items():
        for budget in data.epochs:
            plan = resolve(load(name), dataset, budget)
            assert "none" in [config.load(r.config).options.get("space") for r in plan.runs]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("table2", "SASRec"), ("table3", "Self-attentive (ComiRec-SA)"), ("table5", "T = 20"),
        ("ablation", "DimeRec"), ("figure5", "DimeRec"), ("beyond", "Mult-VAE"),
        ("frontier", "DimeRec"), ("table8", "x_t = 0, mu = 1"),
    ],
)  # fmt: skip
def test_tables_share_their_runs_with_table_1(name: str, label: str) -> None:
    shared = {"T = 20": "DimeRec", "Self-attentive (ComiRec-SA)": "DimeRec"}
    whole = (shared | {"x_t = 0, mu = 1": "DimeRec, x_t = 0"}).get(label, label)
    ours, theirs = (resolve(load(n), "ml-1m", "paper") for n in (name, "table1"))
    one = next(r for r in ours.runs if r.label == label)
    other = next(r for r in theirs.runs if r.label == whole)
    assert trained(ours, one, 1) == trained(theirs, other, 1)


def test_a_watched_run_is_a_run_of_its_own() -> None:
    plan = resolve(load("figure4"), "latest-small", "smoke")
    import msgspec

    blind = msgspec.structs.replace(plan, measures=["losses"])
    assert trained(plan, plan.runs[0], 0) != trained(blind, plan.runs[0], 0)


BASE = """
title = "Mine"
about = "Two rows of table 1, one of my own."
base = "table1"
budgets = ["smoke"]
datasets = ["latest-small"]
rows = ["SASRec", "GRU4Rec"]
metrics = ["hr@20"]

[published.SASRec]
ML-10M = { "hr@20" = 0.5 }

[[runs]]
label = "Popularity"
config = "popularity"
"""


def test_what_a_study_does_not_say_is_its_base_s(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(BASE)
    mine = load(str(tmp_path / "mine.toml"))
    theirs = load("table1")
    assert list(mine.budgets) == ["smoke"] and list(mine.datasets) == ["latest-small"]
    assert mine.datasets["latest-small"].epochs == {"smoke": 6}
    assert [r.label for r in mine.runs] == ["SASRec", "GRU4Rec", "Popularity"]
    assert mine.runs[0].published == {"ML-10M": {"hr@20": 0.5}} and not mine.runs[1].published
    assert mine.runs[0].set == theirs.runs[0].set
    (tmp_path / "mine.toml").write_text(BASE.replace('rows = ["SASRec", "GRU4Rec"]\n', "")
                                        .replace("[published.SASRec]", "[published.Popularity]"))  # fmt: skip
    assert [r.label for r in load(str(tmp_path / "mine.toml")).runs] == ["Popularity"]
    for old, new, said in (
        ('"GRU4Rec"]', '"GRU5Rec"]', "there is no 'GRU5Rec' among SASRec"),
        ('["latest-small"]', '["ml-20m"]', "there is no 'ml-20m' among latest-small"),
        ("published.SASRec", "published.MIND", "there is no 'MIND' among SASRec, GRU4Rec"),
    ):
        (tmp_path / "mine.toml").write_text(BASE.replace(old, new))
        with pytest.raises(ConfigError, match=said):
            load(str(tmp_path / "mine.toml"))


def test_the_strong_budget_takes_the_strong_recipes() -> None:
    plan = resolve(load("table1"), "ml-1m", "strong")
    by_label = {r.label: r for r in plan.runs}
    assert "DimeRec, paper recipe" not in by_label and by_label["MIND"].config == "mind-strong"
    assert by_label["Mult-VAE"].config == "multvae-strong"
    for label in ("SASRec", "GRU4Rec", "MIND", "ComiRec-SA", "ComiRec-DR", "DimeRec"):
        found = recipe(plan, by_label[label], 0)
        assert (found.negatives.kind, found.negatives.number) == ("log-uniform", 1024)
        softmax = found.options["softmax"]
        tuned = {"DimeRec": 0.104, "ComiRec-DR": 0.0485}.get(label, 0.07)
        assert softmax == {"unit": True, "temperature": tuned, "logq": True}
    none, whole = (recipe(plan, by_label[n], 0) for n in ("DimeRec, x_t = 0", "DimeRec"))
    assert none.options["space"] == "none" and none.training == whole.training
    assert (none.options["gem"], none.options["softmax"]) == (
        whole.options["gem"], whole.options["softmax"],
    )  # fmt: skip
