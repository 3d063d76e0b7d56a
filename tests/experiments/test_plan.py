"""Experiment files are read strictly, and a result is tied to all it depends on."""

from pathlib import Path

import msgspec
import pytest

from dimerec.errors import ConfigError
from dimerec.experiments.plan import Plan, fingerprint, load, recipe

ROOT = Path(__file__).parents[2]
PLAN = """
title = "Toy"
about = "Two rows."
epochs = 2
seeds = [0, 1]
set = ["length=5"]

[data]
source = "ml-latest-small"

[[runs]]
label = "Popularity"
config = "popularity"

[[runs]]
label = "SASRec"
config = "sasrec"
set = ["options.width=8"]

[[runs.variants]]
label = "again"
options = { width = 8 }
"""


def written(folder: Path, text: str = PLAN) -> Plan:
    (folder / "toy.toml").write_text(text)
    return load(folder / "toy.toml")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_experiment_file_loads(path: Path) -> None:
    plan = load(path)
    assert len(plan.seeds) >= 3 and plan.about.strip()
    diffuses = any(r.config == "dimerec" for r in plan.runs)
    assert not diffuses or any(r.config == "dimerec-none" for r in plan.runs), (
        "x_t = 0 must stand in every comparison"
    )


def test_a_recipe_is_the_config_under_the_plans_budget(tmp_path: Path) -> None:
    plan = written(tmp_path)
    config = recipe(plan, plan.runs[1], 1)
    assert (config.length, config.seed, config.options["width"]) == (5, 1, 8)
    assert config.training.epochs == 2 and config.training.max_steps > 10**6


def test_fingerprints_tell_apart_what_matters(tmp_path: Path) -> None:
    plan = written(tmp_path)
    marks = {fingerprint(plan, run, seed) for run in plan.runs for seed in plan.seeds}
    for changed in (
        {"epochs": 3},
        {"set": ["length=6"]},
        {"data": msgspec.structs.replace(plan.data, positions="last")},
    ):
        other = msgspec.structs.replace(plan, **changed)
        marks |= {fingerprint(other, run, seed) for run in plan.runs for seed in plan.seeds}
    assert len(marks) == 16
    renamed = msgspec.structs.replace(plan, title="Other", about="x")
    assert fingerprint(renamed, plan.runs[0], 0) == fingerprint(plan, plan.runs[0], 0)


PUBLISHED = """
[[runs.published]]
source = "a paper"
metrics = { "hr@20" = 0.5 }
"""


def test_what_others_published_is_no_part_of_a_result(tmp_path: Path) -> None:
    plan, held = written(tmp_path), written(tmp_path, PLAN + PUBLISHED)
    assert held.runs[1].published[0].metrics == {"hr@20": 0.5}
    assert held.runs[1].published[0].tolerance == 0.05
    assert fingerprint(held, held.runs[1], 0) == fingerprint(plan, plan.runs[1], 0)


def test_a_run_may_have_a_budget_of_its_own(tmp_path: Path) -> None:
    text = PLAN.replace('config = "sasrec"', 'config = "sasrec"\nepochs = 5')
    plan, own = written(tmp_path), written(tmp_path, text)
    assert [recipe(own, run, 0).training.epochs for run in own.runs] == [2, 5]
    assert fingerprint(own, own.runs[1], 0) != fingerprint(plan, plan.runs[1], 0)
    same = msgspec.structs.replace(own.runs[1], epochs=2)
    assert fingerprint(own, same, 0) == fingerprint(plan, plan.runs[1], 0)


def test_a_run_may_have_fewer_seeds_than_its_plan(tmp_path: Path) -> None:
    plan = written(
        tmp_path, PLAN.replace('config = "popularity"', 'config = "popularity"\nseeds = [1]')
    )
    trainings = [(run.label, seed) for run, seed in plan.trainings]
    assert trainings == [("SASRec", 0), ("Popularity", 1), ("SASRec", 1)]
    assert fingerprint(plan, plan.runs[0], 1) == fingerprint(written(tmp_path), plan.runs[0], 1)


@pytest.mark.parametrize("name", ["hr@5", "recall@20", "hr"])
def test_a_published_metric_that_no_result_has_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"'SASRec' has a published '{name}'.*10, 20, 50"):
        written(tmp_path, PLAN + PUBLISHED.replace("hr@20", name))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epochs = 0", "epochs"),
        ("epochs = 2", "epoch = 2", "epoch"),
        ('config = "sasrec"', 'config = "sasreck"', "sasreck"),
        ("options.width=8", "options.widht=8", "widht"),
        ('label = "SASRec"', 'label = "Popularity"', "two rows are labelled 'Popularity'"),
        (
            'config = "popularity"',
            'config = "popularity"\nseeds = [1, 7]',
            "'Popularity' has seed 7",
        ),
        ("title", "= title", "no readable experiment"),
    ],
)
def test_slips_are_found_before_anything_runs(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, PLAN.replace(old, new))


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing.toml"):
        load(tmp_path / "nothing.toml")
