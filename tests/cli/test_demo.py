"""`dimerec demo`: what it prints for people and for programs; the slow test runs it whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dimerec.cli import demo as verb
from dimerec.experiments import demo as demos
from dimerec.experiments.demo import Demo, Settings

RECIPES = {"dimerec": "DimeRec", "dimerec-none": "DimeRec (x_t = 0)", "sasrec": "SASRec"}
SMALL = Settings(
    positions="last",
    min_item_events=80,
    recipes={**RECIPES, "popularity": "Popularity"},
    changes=(
        "length=8",
        "options.width=8",
        "training.max_steps=2",
        "training.batch_size=2",
        "training.validation_queries=20",
        "negatives.kind=none",
    ),
    lists=20,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return demos.run(tmp_path_factory.mktemp("demo") / "out", seed=5, settings=SMALL)


@pytest.fixture
def asked(done: Demo, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The training is done once; what the verb asks for is kept."""
    given: dict[str, Any] = {}

    def run(out: Path, *, progress: Any, **how: Any) -> Demo:
        given.update(how, out=out)
        progress(("sasrec", 1, 2, "training"))
        progress(("sasrec", 2, 2, "training"))
        progress(("sasrec", 2, 2, "done"))
        return done

    monkeypatch.setattr(demos, "run", run)
    return given


def test_the_document_is_all_of_the_output(run, asked: dict, done: Demo):
    result = run("demo", "--json", "--seed", 5, "--out", "here")
    told = json.loads(result.stdout)
    assert told == json.loads(msgspec.json.encode(done.document()))
    assert told == json.loads((done.out / "demo.json").read_text())
    assert [r["label"] for r in told["rows"]] == list(SMALL.recipes.values())
    assert asked["seed"] == 5 and asked["out"] == Path("here")
    assert asked["settings"] == Settings() and asked["jobs"] == verb._cores()
    lines = result.stderr.splitlines()
    assert lines == ["SASRec: training", "SASRec: done", "report: writing", "report: done"]


def test_people_get_a_table_lists_the_report_and_what_to_type_next(run, asked: dict, done: Demo):
    told = run("demo").stdout
    for row in done.rows:
        line = next(x for x in told.splitlines() if x.strip().startswith(row.label + "  "))
        values = [f"{100 * row.metrics[m]:.1f}" for m in verb.COLUMNS]
        assert line.split()[-len(values) :] == values
    assert "HR@20" in told and "seed 5 for training" in " ".join(told.split())
    assert "watched last" in told and "(19" in told  # titles carry their year
    assert str(done.report) in told and done.report.stat().st_size > 1_000_000
    assert f"dimerec recommend {done.out}/runs/dimerec/bundle --history" in told


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with verb._progress({"a": "First", "b": "Second"}) as told:
        told(("a", 0, 4, "training"))
        told(("a", 4, 4, "done"))
        told(("report", 1, 1, "done"))
    shown = capfd.readouterr().err
    assert "First" in shown and "4/4" in shown and "waiting" in shown and "Report" in shown


def test_a_folder_of_something_else_is_left_alone(run, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    result = run("demo", "--out", "mine", code=2)
    assert result.stderr.count("\n") == 1 and "give another --out" in result.stderr
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo(tmp_path: Path):
    command = [sys.executable, "-c", "from dimerec.cli import main; main()", "demo", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    shown = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    hits = {row["recipe"]: row["metrics"]["hr@20"] for row in told["rows"]}
    assert len(hits) == 6 and min(hits, key=hits.__getitem__) == "popularity"
    # every learned model finds the next film far more often than the popular films do
    assert all(hit > 1.5 * hits["popularity"] for name, hit in hits.items() if name != "popularity")
    assert (tmp_path / "demo" / "report.html").stat().st_size > 1_000_000
