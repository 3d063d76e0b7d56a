"""The rendered page: our figures beside published ones, computed by hand."""

from pathlib import Path

import msgspec
import pytest

from dimerec import config
from dimerec.errors import ConfigError
from dimerec.experiments import tables
from dimerec.experiments.plan import DataPlan, Plan, RunPlan, Target
from dimerec.experiments.runner import Result

CARD = {"digest": "0" * 64, "queries": 5, "candidates": "full catalogue: 9 items"}
TRAINING = {"device": "cpu", "threads": 1, "targets_per_second": 10.0, "cpu_seconds": 2.0}


def result(label: str, seed: int, **metrics: float) -> Result:
    values = {name.replace("_", "@"): value for name, value in metrics.items()}
    return Result("0", label, seed, values, {}, CARD, TRAINING)


def plan(*targets: Target, **changes: object) -> Plan:
    run = RunPlan("SASRec", "sasrec", published=list(targets))
    whole = Plan(
        title="Toy",
        about="A row.",
        data=DataPlan("ml-latest-small"),
        epochs=2,
        seeds=[0, 1],
        metrics=("hr@20",),
        runs=[run, RunPlan("Popularity", "popularity")],
    )
    return msgspec.structs.replace(whole, **changes)


def test_ours_beside_theirs_by_hand() -> None:
    """The mean of 20 and 22 is 21; 21 / 20 - 1 = 5 %, and 21 / 30 - 1 = -30 %."""
    targets = (
        Target("A", {"hr@20": 0.2}, tolerance=0.06, explained="not printed: it is reached"),
        Target("B", {"hr@20": 0.3, "ndcg@10": 0.105}, explained="half of the passes"),
    )
    found = [
        result("SASRec", 0, hr_20=0.20, ndcg_10=0.1),
        result("SASRec", 1, hr_20=0.22, ndcg_10=0.1),
        result("Popularity", 0, hr_20=0.1, ndcg_10=0.1),
    ]
    page = tables.section(plan(*targets), found, Path("toy.toml"))
    assert "| SASRec | HR@20 | 21.00 ± 1.41 | 20.00 | +5.0 % | yes (± 6 %) | A |" in page
    assert "| SASRec | HR@20 | 21.00 ± 1.41 | 30.00 | -30.0 % | no (± 5 %) | B |" in page
    assert "| SASRec | NDCG@10 | 10.00 ± 0.00 | 10.50 | -4.8 % | yes (± 5 %) | B |" in page
    assert "- 1 of 2 seeds: Popularity." in page
    assert page.endswith(
        "What was tested where a figure is not reached:\n\n- SASRec, beside B: half of the passes.\n"
    )


def test_an_overview_counts_what_is_reached_by_hand() -> None:
    """21 beside 20 and 30: one of two within 6 %, and -30 % is the largest difference."""
    one = plan(Target("A", {"hr@20": 0.2}, 0.06), Target("B", {"hr@20": 0.2, "ndcg@10": 0.3}, 0.06))
    found = [result("SASRec", s, hr_20=0.21, ndcg_10=0.21) for s in (0, 1)]
    page = tables.page({Path("toy.toml"): one}, {Path("toy.toml"): found})
    assert "| [Toy](#toy) | SASRec | 2 | 1 of 1 | +5.0 % | A |" in page
    assert "| [Toy](#toy) | SASRec | 2 | 1 of 2 | -30.0 % | B |" in page
    assert page.index("## Published figures") < page.index("## Toy")
    bare = tables.page({Path("toy.toml"): plan()}, {Path("toy.toml"): found})
    assert "Published figures" not in bare


def test_a_row_without_results_is_held_against_nothing() -> None:
    page = tables.section(
        plan(Target("A", {"hr@20": 0.2})), [result("Popularity", 0, hr_20=0.1)], Path("toy.toml")
    )
    assert "published figures" not in page
    assert "- 0 of 2 seeds: SASRec." in page


def test_a_plan_without_published_figures_has_no_such_table() -> None:
    page = tables.section(plan(), [result("SASRec", 0, hr_20=0.1)], Path("toy.toml"))
    assert "published" not in page


def test_a_budget_of_its_own_is_told() -> None:
    runs = [RunPlan("SASRec", "sasrec", epochs=7)]
    page = tables.section(plan(runs=runs), [result("SASRec", 0, hr_20=0.1)], Path("toy.toml"))
    assert "Budget: 2 passes" in page and "- 7 passes: SASRec." in page


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_a_tolerance_is_a_share(tolerance: float) -> None:
    tree = {"source": "A", "metrics": {}, "tolerance": tolerance}
    with pytest.raises(ConfigError, match=f"tolerance = {tolerance}: must be a number > 0 and < 1"):
        config.convert(tree, Target, "here")
