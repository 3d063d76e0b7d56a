"""The demo, small but whole: real data, real models, the page that comes of it."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from dimerec.bundle import Bundle
from dimerec.errors import ConfigError
from dimerec.evaluation import metrics
from dimerec.evaluation.evaluator import evaluate
from dimerec.evaluation.ranking import best
from dimerec.experiments import demo as demos
from dimerec.experiments import report
from dimerec.experiments.demo import Demo
from dimerec.experiments.findings import Findings
from tests.experiments.conftest import SMALL


@pytest.fixture(scope="module")
def page(demo: Demo, found: Findings) -> str:
    return report.write(demo, found).read_text("utf-8")


def test_the_document_holds_what_the_evaluation_says(demo: Demo):
    written = json.loads((demo.out / "demo.json").read_text())
    assert written == json.loads(msgspec.json.encode(demo.document()))
    assert [r["recipe"] for r in written["rows"]] == list(SMALL.recipes)
    for row in written["rows"]:
        bundle = Bundle.open(demo.out / "runs" / row["recipe"] / "bundle")
        again = evaluate(
            bundle, demo.dataset, positions="last-20-percent", seed=3, device="cpu", lists=40
        )
        queries = demo.dataset.queries("test", "last-20-percent", 40)
        top = best(bundle.model(), queries, 20, length=12, seed=3)
        genres = [item.categories for item in demo.dataset.metadata()]
        expected = {**again.metrics, "categories@20": metrics.categories(top, genres)}
        assert row["metrics"] == pytest.approx(expected, abs=1e-12)
        assert row["interval"]["value"] == pytest.approx(again.metrics["hr@20"])
        assert row["weights"] == bundle.weights_digest
        assert row["interval"]["low"] <= row["interval"]["value"] <= row["interval"]["high"]


def test_every_model_stands_in_it_with_one_budget(demo: Demo):
    assert {"dimerec", "dimerec-none", "popularity", "cooccurrence", "comirec", "sasrec"} == {
        r.recipe for r in demo.rows
    }
    learned = [r for r in demo.rows if r.learned]
    assert {r.run.steps for r in learned} == {4} and len(learned) == 4
    assert len({r.run.targets for r in learned}) == 1
    assert len({r.run.digest for r in demo.rows}) == 6
    first = demo.rows[0]
    assert first.gap.value == first.gap.low == first.gap.high == 0
    for row in demo.rows[1:]:
        gap = row.metrics["hr@20"] - first.metrics["hr@20"]
        assert row.gap.value == pytest.approx(gap, abs=1e-9)


def test_the_protocol_in_words_names_every_number(demo: Demo):
    words, card = demo.protocol(), demo.dataset.card
    assert demo.document()["protocol"]["words"] == words
    sizes = [
        f"{card.events:,}",
        f"{card.users:,}",
        f"{card.items:,}",
        f"{demo.rows[0].evaluation.card.queries:,}",
    ]
    sizes += [f"{card.splits[p].users} for" for p in ("train", "valid", "test")]
    assert all(
        n in words for n in [*sizes, "4 steps", "4 windows", "seed 3", "last-20-percent", "kept"]
    )


def test_progress_is_told_from_the_start_to_the_end_of_each_model(demo: Demo, told: list):
    for name in SMALL.recipes:
        mine = [note[1:] for note in told if note[0] == name]
        assert mine[0][0] == 0 and mine[0][2] == "training"
        assert [what for _, _, what in mine][-2:] == ["scoring", "done"]
        assert [step for step, _, _ in mine] == sorted(step for step, _, _ in mine)


class _Reader(HTMLParser):
    """Everything in a page that could fetch something, its style, its visible text, its figures."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.figures: dict[str, str] = {}
        self.wanted: list[str] = []
        self.open: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        names = ("src", "srcset", "data", "poster", "action")
        self.fetched += [given[n] for n in names if given.get(n)]
        if tag in ("link", "base", "iframe", "object", "embed", "img"):
            self.fetched.append(tag)
        if "style" in given:
            self.styles.append(given["style"])
        if given.get("class") == "plot":
            self.wanted.append(given["data-figure"])
        if tag not in ("meta", "br", "hr"):
            self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        tag, given = self.open[-1] if self.open else ("", {})
        if tag == "style":
            self.styles.append(data)
        elif tag == "script" and given.get("type") == "application/json":
            self.figures[given["id"]] = data
        elif tag != "script":
            self.texts.append(data)


@pytest.fixture(scope="module")
def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_fetches_nothing(page: str, read: _Reader):
    assert not read.fetched
    style = " ".join(read.styles)
    assert "@import" not in style and "url(" not in style
    scripts = re.findall(r"<script([^>]*)>", page)
    assert all("src" not in attributes for attributes in scripts)
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1


def test_every_figure_of_the_page_is_there_and_one_that_plotly_knows(read: _Reader):
    import plotly.graph_objects as go

    assert read.wanted == list(read.figures) and len(read.wanted) >= 9
    for text in read.figures.values():
        figure = json.loads(text)
        assert figure.pop("config")["responsive"]
        known = go.Figure(figure)  # an unknown property is an error
        traces: Any = known.data
        for trace in traces:
            assert len(trace.x) == len(trace.y) > 0


def test_the_page_holds_the_table_and_the_card(demo: Demo, read: _Reader):
    shown = " ".join(" ".join(read.texts).split())
    for row in demo.rows:
        for name in report.COLUMNS:
            assert f"{100 * row.metrics[name]:.1f}" in shown
        assert row.run.digest[:10] in shown
    card = demo.rows[0].evaluation.card
    for part in (card.digest, card.protocol.name, card.versions["torch"], "training 3", card.ties):
        assert part in shown


def test_titles_are_text_and_no_markup(demo: Demo, found: Findings):
    bad = "</script><img src=x onerror=alert(1)> & <b>"
    shown = found.showcase
    lists = {m: [replace(i, title=bad) for i in items] for m, items in shown.lists.items()}
    page = report.html(demo, replace(found, showcase=replace(shown, lists=lists)))
    reader = _Reader()
    reader.feed(page)
    assert not reader.fetched and not reader.open
    assert bad in "".join(reader.texts)


def test_a_demo_replaces_an_earlier_one_and_nothing_else(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not the folder of an earlier demo"):
        demos.run(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me" and (tmp_path / "data").is_dir()
    file = tmp_path / "mine.txt"
    with pytest.raises(ConfigError, match="mine.txt"):
        demos.run(file)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / "data" / "old").write_text("")
    (tmp_path / ".report.html.k1ll3d").write_text("")
    demos._clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"dimerec\[plots\]"):
        report.require()


def test_the_same_seed_gives_the_same_table_for_any_threads(demo: Demo, tmp_path: Path):
    some = msgspec.structs.replace(SMALL, recipes={"dimerec": "DimeRec"})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    again = demos.run(tmp_path / "again", seed=3, settings=some)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    other = demos.run(tmp_path / "other", seed=4, settings=some)
    assert again.rows[0].metrics == demo.rows[0].metrics
    assert again.rows[0].run.digest == demo.rows[0].run.digest != other.rows[0].run.digest
    assert np.array_equal(again.rows[0].evaluation.users, other.rows[0].evaluation.users)
