"""Every study but table 1 from the command to its page, with tiny settings, on real data."""

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from dimerec.cli import app
from dimerec.experiments import reproduce, study, summary
from dimerec.experiments.plan import trained
from dimerec.experiments.study import Study, load, resolve

TINY = ["options.width=8", "length=10", "training.batch_size=256", "training.validation_queries=50"]
OF_THE_DATA = {"min_item_events": 40}


def tiny(name: str) -> Study:
    """The shipped study with one pass over few items."""
    whole = load(name)
    data = whole.datasets["latest-small"]
    small = msgspec.structs.replace(
        data,
        set=["training.validate_every=20"],
        epochs={"smoke": 1},
        data=msgspec.structs.replace(data.data, **OF_THE_DATA),
    )
    smoke = whole.budgets["smoke"]
    return msgspec.structs.replace(
        whole,
        datasets={**whole.datasets, "latest-small": small},
        budgets={"smoke": msgspec.structs.replace(smoke, seeds=1, set=[*smoke.set])},
        runs=[
            msgspec.structs.replace(
                r, epochs={}, set=[*r.set, *_fitting(r.config.removesuffix("-strong"))]
            )
            for r in whole.runs
        ],
    )


def _fitting(config: str) -> list[str]:
    if config == "multvae":
        return ["options.latent=8", "options.hidden=8", *TINY[1:]]
    if config in ("sknn", "itemknn", "cooccurrence", "popularity"):
        return TINY[1:]
    if config in ("diffrec", "tdiffrec"):
        return ["options.dims=[8]", *TINY[1:]]
    few = ["options.layers=1"] if config == "diffurec" else []
    steps = ["options.schedule.steps=20"] if config == "dreamrec" else []
    return [*TINY, *few, *steps]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduced")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in study.names() if n != "table1"])
def test_from_the_command_to_the_page(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "load", tiny)
    words = ["reproduce", name, "--dataset", "latest-small", "--budget", "smoke", "--jobs", "2"]
    words += ["--results", str(place / "results"), "--work", str(place / "work")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    out = place / "results" / name / "latest-small-smoke"
    made = summary.read(out / "results.json")
    plan = resolve(tiny(name), "latest-small", "smoke")
    labels = [
        v for r in plan.runs for v in (r.label, *(f"{r.label}, {v.label}" for v in r.variants))
    ]
    assert [row.label for row in made.rows] == labels
    assert made.metrics == list(plan.metrics), "every column has a number"
    page = (out / "README.md").read_text()
    assert all(f"| {label} |" in page for label in labels)
    pictures = sorted(p.name for p in out.glob("*.svg"))
    assert all(f"]({picture})" in page for picture in pictures)
    for picture in pictures:
        assert ET.parse(out / picture).getroot().tag.endswith("svg")
    for curve in plan.curves:
        assert any(p.startswith(curve.file) for p in pictures), curve.file
    assert bool(plan.curves) == ("The figures below in numbers" in page)

    again = CliRunner().invoke(app, words, catch_exceptions=False)
    assert f"0 of {len(plan.runs)} runs to do" in " ".join(again.output.split())
    assert summary.read(out / "results.json") == made
    assert (out / "README.md").read_text() == page


def test_a_tiny_study_is_the_study() -> None:
    """What the test above changes is size alone."""
    for name in study.names():
        whole, small = (
            resolve(load(name), "latest-small", "smoke"),
            resolve(tiny(name), "latest-small", "smoke"),
        )
        assert [r.label for r in whole.runs] == [r.label for r in small.runs]
        assert (whole.measures, whole.curves, whole.metrics) == (
            small.measures,
            small.curves,
            small.metrics,
        )


@pytest.mark.slow
def test_a_failed_row_does_not_lose_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(name: str) -> Study:
        one = tiny(name)
        rows = [r for r in one.runs if r.label in ("SASRec", "ComiRec-SA")]
        return msgspec.structs.replace(one, runs=rows)

    monkeypatch.setattr(reproduce, "load", two)
    plan = resolve(two("table2"), "latest-small", "smoke")
    (tmp_path / "w" / "runs").mkdir(parents=True)
    (tmp_path / "w" / "runs" / trained(plan, plan.runs[1], 0)).write_text("in the way")
    words = ["reproduce", "table2", "--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    made = summary.read(tmp_path / "r" / "table2" / "latest-small-smoke" / "results.json")
    assert [row.label for row in made.rows] == ["SASRec"] and "not run: ComiRec-SA" in made.notes


def test_a_broken_summary_is_said_before_anything_runs(tmp_path: Path) -> None:
    """Not after hours of runs, when the page is made."""
    file = tmp_path / "r" / "table2" / "latest-small-smoke" / "results.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"rows": ')
    words = ["reproduce", "table2", "--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    done = CliRunner().invoke(app, words)
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and "no summary of results" in said and "delete it" in said
    assert not (tmp_path / "w").exists()
