"""`dimerec index`: built, judged and used; nothing where nothing is to be gained."""

import json

import pytest
from typer.testing import CliRunner

from dimerec import Bundle, Dataset
from dimerec.cli import app
from dimerec.evaluation import fidelity
from dimerec.recommender import Query, Recommender
from dimerec.retrieval.approximate import ApproximateIndex
from tests.cli import shop


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shop_folder):
    """A run on the shop's data, and that data."""
    out = tmp_path_factory.mktemp("index") / "run"
    words = [
        *("train", shop_folder / "data", "--config", "sasrec", "--threads", "1", "--out", out),
        *("--set", "length=8", "--set", "options.width=8", "--set", "training.max_steps=2"),
        *("--set", "training.batch_size=8", "--set", "negatives.number=4"),
    ]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    return out, shop_folder / "data"


def test_few_items_need_none(trained, ask, run):
    out, _ = trained
    assert ask("index", out) == {"built": False, "items": 20, "exact_up_to": 20_000}
    assert (
        "20 items: exact search is quick enough up to 30"
        in run("index", out, "--exact-up-to", 30).stdout
    )
    assert not Bundle.open(out / "bundle").index_path.exists()


def test_what_is_built_is_used_and_judged(trained, ask, run):
    out, data = trained
    document = ask("index", out, "--data", data, "--exact-up-to", 0, "--codes", "flat")
    report = document["fidelity"]
    assert (
        document["built"]
        and report["depth"] == 100
        and report["histories"].endswith("parts of log")
    )
    assert report["recall"] == 1.0  # one cell holds all twenty
    assert [hit["n"] for hit in report["hits"]] == [20, 50]
    assert all(hit["exact"] == hit["index"] for hit in report["hits"])
    assert sum(band["items"] for band in report["bands"]) == 20
    bundle = Bundle.open(out / "bundle")
    assert json.loads((bundle.index_path / "fidelity.json").read_text()) == report
    used = bundle.recommender()._index
    assert isinstance(used, ApproximateIndex) and used.codes == "flat"
    bundle.check(bundle.recommender())
    shown = run("index", out, "--exact-up-to", 0).stdout
    assert "no real histories" in shown and "Recall at 100 against exact search: 1.0000" in shown
    assert "HR@" not in shown


def test_the_hits_are_those_of_evaluate(trained, ask):
    out, data = trained
    _, report = fidelity.build(Bundle.open(out / "bundle"), Dataset.open(data))
    metrics = ask("evaluate", out, data)["metrics"]
    assert report.hits[0].exact == pytest.approx(metrics["hr@20"])


def test_what_cannot_be_is_one_line(trained, shop_folder, run):
    out, _ = trained
    for words, message in [
        ((out, "--codes", "pq"), "--codes must be sq8 or flat, got 'pq'"),
        ((out, "--exact-up-to", 0, "--recall", 2), "recall must be in (0, 1]"),
        ((shop_folder / "counted", "--exact-up-to", 0), "it has no item vectors to index"),
    ]:
        assert message in run("index", *words, code=2).stderr


def test_filters_by_command(shop_folder, ask, run, monkeypatch):
    out = shop_folder / "counted"
    history = ",".join(shop.SKUS[:2])
    plain = ask("recommend", out, "--history", history)["recommendations"][0]["items"]
    barred = plain[0]["id"]
    words = ("recommend", out, "--history", history, "--exclude", f"{barred}, {plain[2]['id']}")
    (answer,) = ask(*words, "--category", "odd", "--diversity", 0.5)["recommendations"]
    left = [item["id"] for at, item in enumerate(plain) if at not in (0, 2)]
    assert [item["id"] for item in answer["items"]] == left
    wrong = run("recommend", out, "--history", history, "--category", "nonsense", code=2).stderr
    assert "no item has the category 'nonsense'; known are all, odd" in wrong
    asked = []
    answer = Recommender.answer
    monkeypatch.setattr(Recommender, "answer", lambda self, q: asked.extend(q) or answer(self, q))
    run(*words, "--category", "odd", "--category", "all", "--diversity", 0.5, "--keep-seen")
    assert asked == [
        Query(
            shop.SKUS[:2],
            hide_seen=False,
            exclude=[barred, plain[2]["id"]],
            categories=["odd", "all"],
            diversity=0.5,
        )
    ]
