"""`dimerec diagnose`, of a counting and of a tiny learned run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dimerec.cli import app


@pytest.fixture(scope="module")
def learned(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "run"
    words = ["train", shop_folder / "data", "--config", "comirec", "--threads", "1"]
    words += ["--set", "length=8", "--set", "options.width=8", "--set", "training.batch_size=8"]
    words += ["--set", "negatives.number=4", "--set", "training.max_steps=5", "--out", folder]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    return folder


def test_for_people(run, shop_folder: Path, learned: Path):
    shown = run("diagnose", learned, shop_folder / "data").stdout
    for word in (
        "uniformity",
        "alignment",
        "4 interests",
        "Gini",
        "novelty",
        "head",
        "slate of 20",
    ):
        assert word in shown
    alone = run("diagnose", learned).stdout
    assert "uniformity" in alone and "Gini" not in alone and "alignment" not in alone
    assert "no vectors" in run("diagnose", shop_folder / "popular", shop_folder / "data").stdout


def test_for_programs(ask, shop_folder: Path, learned: Path):
    found = ask("diagnose", learned, shop_folder / "data", "--positions", "last")
    assert found["probing"] is None
    lists, vectors = found["diagnosis"]["lists"], found["diagnosis"]["vectors"]
    assert lists["queries"] == sum(b["queries"] for b in lists["bands"]) > 0
    assert vectors["items"] == 20 and vectors["uniformity"] < 0
    evaluated = ask("evaluate", learned, shop_folder / "data", "--positions", "last")
    assert lists["coverage"]["10"] == evaluated["metrics"]["coverage@10"]


def test_probing(ask, run, shop_folder: Path, learned: Path):
    found = ask("diagnose", learned, "--probe")["probing"]
    assert found["train"] + found["test"] == 20
    assert "blind" in run("diagnose", learned, "--probe").stdout
    refused = run("diagnose", shop_folder / "popular", "--probe", code=2).stderr
    assert "no item vectors" in refused
