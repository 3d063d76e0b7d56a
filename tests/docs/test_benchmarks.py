"""Figures of benchmarks in the documentation are those of the result files."""

import json
from pathlib import Path

from tests.tools import cost_page

ROOT = Path(__file__).parents[2]
LINKS = {"compiled": "compiled", "compiled, one step": "one step", "Algorithm 2": "literal"}


def read(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def test_the_links_table_is_that_of_the_last_run():
    (row,) = [r for r in read("link")["rows"] if (r["items"], r["length"]) == (1_000_000, 10)]
    page = (ROOT / "docs" / "export.md").read_text("utf-8")
    for label, link in LINKS.items():
        found = row["links"][link]
        times = [found[name] for name in ("p50_us", "p99_us", "p99_quiet_us")]
        assert f"| {label} | {' | '.join(f'{t:,.0f}' for t in times)} |" in page
    median = row["links"]["compiled"]["p50_us"] / 1000
    assert f"takes {median:.2f} ms on one core" in (ROOT / "README.md").read_text("utf-8")
    assert f"{row['faster']:.1f} times" in page and f"recall@100 {row['recall@100']:.3f}" in page


def test_the_services_rate_is_that_of_the_last_run():
    result = read("serving")
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    peak = result["peak"]
    assert f"{peak['rate']:,.0f} requests a second (p50 {peak['p50_ms']:.1f} ms)" in page
    for row in result["beyond"]:
        assert f"{row['over']['goodput']:,.0f} at {row['times']} times" in page
        assert not row["over"]["refused_without_retry_after"]
        assert set(row["over"]["statuses"]) <= {"200", "503"}


def test_the_cost_page_is_that_of_the_last_run():
    assert cost_page.PAGE.read_text("utf-8") == cost_page.rendered(), "run `make docs`"
    result = cost_page.result()
    steps = [row for row in result["rows"] if row["moved"] == "T"]
    assert [row["value"] for row in steps] == [1, 5, 20, 50, 100]
    picture = cost_page.FIGURE.read_text("utf-8")
    assert all(f"{letter}, {text}" in picture for letter, text in cost_page.MEANING.items())


def test_how_fast_models_train_is_that_of_the_last_run():
    found = read("models")["targets_per_cpu_second"]
    assert set(found) == {"sasrec", "dreamrec", "diffurec"}
    for name, one in found.items():
        page = " ".join((ROOT / "docs" / "models" / f"{name}.md").read_text("utf-8").split())
        assert f"{one['here']:,.0f} targets a second of training, {one['ratio']:.2f} times" in page
        assert f"({one['ratio_plain_adam']:.2f} times beside" in page
        loss = one["loss"]
        told = f"{loss['here']:.4f} here and {loss['reference']:.4f} there"
        assert f"After {loss['steps']} steps" in page and told in page
        assert one["ratio"] >= one["promised"]
        assert abs(loss["reference_is_higher_by"]) < 0.05
