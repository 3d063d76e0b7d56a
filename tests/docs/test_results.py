"""The results page is what the result files say, and the README quotes nothing else."""

import re
from pathlib import Path
from statistics import mean

import msgspec
import pytest

from dimerec import config
from dimerec.experiments import plan as plans
from dimerec.experiments import reproduce, runner, summary, tables
from dimerec.experiments.plan import load
from tests.tools import model_results, result_index

ROOT = Path(__file__).parents[2]
PLANS = {path: load(path) for path in sorted((ROOT / "experiments").glob("*.toml"))}
RESULTS = {path: ROOT / "results" / f"{path.stem}.jsonl" for path in PLANS}


def test_the_page_is_fresh() -> None:
    found = {path: runner.current(plan, RESULTS[path]) for path, plan in PLANS.items()}
    page = (ROOT / "docs" / "results.md").read_text()
    assert page == tables.page(PLANS, found), "run `make docs`"


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_every_run_has_its_result_and_the_page_says_which_have_fewer_seeds(path: Path) -> None:
    plan = PLANS[path]
    left = runner.pending(plan, runner.read(RESULTS[path]))
    assert not left, [(run.label, seed) for run, seed in left]
    page = (ROOT / "docs" / "results.md").read_text()
    section = page.partition(f"## {plan.title}\n")[2].partition("\n## ")[0]
    told: dict[str, str] = {}
    for count, labels in re.findall(r"(?m)^- (\d+) of \d+ seeds: (.*)\.$", section):
        told |= dict.fromkeys(labels.split("; "), count)
    fewer = {label: str(len(run.seeds)) for run in plan.runs if run.seeds for label in run.labels}
    assert told == fewer


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_what_is_not_reached_has_an_explanation_and_nothing_else_has(path: Path) -> None:
    found = tables.by_label(PLANS[path], runner.current(PLANS[path], RESULTS[path]))
    for run in PLANS[path].runs:
        for target in run.published:
            missed = [
                metric
                for metric, theirs in target.metrics.items()
                if abs(mean(r.metrics[metric] for r in found[run.label]) / theirs - 1)
                > target.tolerance
            ]
            assert bool(missed) is bool(target.explained), (run.label, target.source, missed)


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_rows_of_one_plan_share_data_and_protocol(path: Path) -> None:
    cards = [r.card for r in runner.current(PLANS[path], RESULTS[path])]
    for name in ("digest", "split", "positions", "queries", "hide_seen", "candidates", "ties"):
        assert len({str(card[name]) for card in cards}) == 1, name


@pytest.mark.parametrize("source", ["ml-1m", "yoochoose-1-64"])
@pytest.mark.parametrize("name", config.shipped())
def test_every_shipped_recipe_is_measured_as_it_is_shipped(name: str, source: str) -> None:
    """Whatever table it is in: all but what data and budget say is the recipe's own."""
    assert any(
        as_shipped(plans.recipe(place.plan, run, 0)) == as_shipped(config.load(name))
        for _, place, run, _ in model_results.rows()
        if run.config == name and place.plan.data.source == source
    ), f"no row of {name} on {source} is without changes: add one to experiments/paper/related.toml"


def as_shipped(recipe: config.RunConfig) -> config.RunConfig:
    same = {"batch_size": 1, "epochs": 1, "max_steps": 1, "validate_every": 1}
    training = msgspec.structs.replace(recipe.training, **same, validation_queries=1, metric="")
    return msgspec.structs.replace(recipe, training=training, length=1, seed=0, about="")


@pytest.mark.parametrize("page", sorted(model_results.PAGES.glob("*.md")), ids=lambda p: p.stem)
def test_a_models_page_has_its_results(page: Path) -> None:
    assert page.read_text("utf-8") == model_results.rendered(page), "run `make docs`"


def test_the_index_of_the_studies_is_fresh() -> None:
    assert result_index.PAGE.read_text("utf-8") == result_index.rendered(), "run `make docs`"


def test_the_readme_quotes_the_page() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    rows = [
        line
        for line in (ROOT / "README.md").read_text().partition("## Results")[2].splitlines()
        if line.startswith("| ") and "±" in line
    ]
    assert len(rows) >= 8
    for row in rows:
        assert row in page, f"not in docs/results.md: {row}"


STUDIES = sorted((ROOT / "results").glob("*/*/results.json"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda p: p.parent.parent.name + "-" + p.parent.name)
def test_a_studys_page_is_what_its_rows_say(file: Path, tmp_path: Path) -> None:
    made = summary.read(file)
    rows = {(r.label, r.seed): r for r in runner.read(file.parent / "results.jsonl")}
    seen = set()
    for row in made.rows:
        for at, seed in enumerate(row.seeds):
            one = rows[row.label, seed]
            seen.add((row.label, seed))
            assert {m: v[at] for m, v in row.metrics.items()}.items() <= one.metrics.items()
            assert row.weights[at] == one.training["digest"]
    assert seen == set(rows), "rows that the summary leaves out"
    reproduce.render(made, tmp_path)
    page = (file.parent / "README.md").read_text()
    assert page == (tmp_path / "README.md").read_text(), "run `dimerec reproduce NAME .. --show`"


def test_the_verdicts_quote_the_pages() -> None:
    quoted = [
        line
        for line in (ROOT / "docs" / "verdicts.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    known = "\n".join((f.parent / "README.md").read_text() for f in STUDIES)
    assert quoted
    for line in quoted:
        assert line in known, f"on no page of a study: {line}"
