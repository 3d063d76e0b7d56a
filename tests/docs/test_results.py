"""The results page is what the result files say, and the README quotes nothing else."""

from pathlib import Path

import pytest

from dimerec.experiments import runner, tables
from dimerec.experiments.plan import load

ROOT = Path(__file__).parents[2]
PLANS = {path: load(path) for path in sorted((ROOT / "experiments").glob("*.toml"))}
RESULTS = {path: ROOT / "results" / f"{path.stem}.jsonl" for path in PLANS}


def test_the_page_is_fresh() -> None:
    found = {path: runner.current(plan, RESULTS[path]) for path, plan in PLANS.items()}
    page = (ROOT / "docs" / "results.md").read_text()
    assert page == tables.page(PLANS, found), "run `make docs`"


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_every_run_of_every_plan_has_its_result(path: Path) -> None:
    left = runner.pending(PLANS[path], runner.read(RESULTS[path]))
    assert not left, [(run.label, seed) for run, seed in left]


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_rows_of_one_plan_share_data_and_protocol(path: Path) -> None:
    cards = [r.card for r in runner.current(PLANS[path], RESULTS[path])]
    for name in ("digest", "split", "positions", "queries", "hide_seen", "candidates", "ties"):
        assert len({str(card[name]) for card in cards}) == 1, name


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
