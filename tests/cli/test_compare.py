"""`dimerec compare` on evaluations that commands wrote."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scores(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`counted` and `popular` as scored by `evaluate --out`, and `popular` on the last item."""
    from typer.testing import CliRunner

    from dimerec.cli import app

    folder = tmp_path_factory.mktemp("scores")
    lines = [
        ["counted", "--out", "counted"],
        ["popular", "--out", "popular"],
        ["popular", "--positions", "last", "--out", "last"],
    ]
    for run, *options in lines:
        words = ["evaluate", str(shop_folder / run), str(shop_folder / "data"), *options]
        words[-1] = str(folder / words[-1])
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.stderr
    return folder


def test_for_people(run, scores: Path):
    shown = run("compare", scores / "counted", scores / "popular", "--plot", "gap.svg").stdout
    assert "a: cooccurrence, training seeds 0" in shown
    assert "another training may turn it" in shown
    assert Path("gap.svg").read_text("utf-8").startswith("<?xml")


def test_for_programs(ask, scores: Path):
    found = ask("compare", scores / "counted", scores / "popular", "--metrics", "mrr@10, ndcg@10")
    assert found["a"]["model"] == "cooccurrence" and found["b"]["training_seeds"] == [0]
    first, second = found["metrics"]
    assert (first["metric"], second["metric"]) == ("mrr@10", "ndcg@10")
    assert first["a"] > first["b"] and 0 < first["users"]["p"] <= first["holm"] <= 1


def test_what_cannot_be_compared_is_refused(run, scores: Path):
    refused = run("compare", scores / "last", scores / "popular", code=2)
    assert "positions (last and every-position)" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "no evaluation.json" in run("compare", ".", scores / "popular", code=2).stderr
    wrong = run("compare", scores / "last", scores / "last", "--metrics", "best", code=2).stderr
    assert "no metric 'best'" in wrong
