"""A study's summary and page, from real runs: every number is that of a row, marks follow means."""

from pathlib import Path
from statistics import mean

import msgspec
import pytest

from dimerec.errors import DataError
from dimerec.evaluation import comparison, statistics
from dimerec.evaluation.metrics import per_query
from dimerec.experiments import charts, pages, runner, summary
from dimerec.experiments.plan import Plan
from dimerec.experiments.study import StudyData
from dimerec.experiments.summary import Summary, places

Done = tuple[Path, Plan, list[runner.Result]]
NAMES = ("toy", "latest-small", "smoke")


@pytest.fixture(scope="module")
def made(done: Done) -> Summary:
    folder, plan, results = done
    data = StudyData(data=plan.data, epochs={"smoke": 1}, note="It is small.")
    return summary.make(NAMES, "little.", data, plan, results, folder / "work", {})


def test_rows_hold_every_seed(made: Summary, done: Done) -> None:
    _, _, results = done
    for row in made.rows:
        for at, seed in enumerate(row.seeds):
            (one,) = [r for r in results if (r.label, r.seed) == (row.label, seed)]
            assert {m: v[at] for m, v in row.metrics.items()} == one.metrics
            assert row.weights[at] == one.training["digest"]


def test_leads_are_those_of_the_ranks(made: Summary, done: Done) -> None:
    folder, plan, _ = done
    assert [lead.metric for lead in made.leads] == list(plan.metrics)
    sides = {}
    for run in plan.runs:
        places_ = [runner.ranks_folder(folder / "work", plan, run, s, run.label) for s in (0, 1)]
        sides[run.label] = [comparison.read(p) for p in places_]
    raw = []
    for lead in made.leads:
        best, second = sides[lead.best], sides[lead.second]
        a, b = ([per_query(e.ranks, lead.metric) for e in side] for side in (best, second))
        assert lead.difference == pytest.approx(mean(map(float, map(sum, a))) / len(a[0])
                                                - mean(map(float, map(sum, b))) / len(b[0]))  # fmt: skip
        assert lead.difference >= 0 and lead.low <= lead.difference <= lead.high
        import numpy as np

        found = statistics.over_users_and_seeds(np.array(a), np.array(b), best[0].users)
        raw.append(found.p)
    assert [lead.p for lead in made.leads] == pytest.approx(statistics.holm(raw))


def test_best_and_second_are_marked_from_the_numbers(made: Summary) -> None:
    best, second = places(made.rows, "hr@20")
    means = {r.label: mean(r.metrics["hr@20"]) for r in made.rows}
    assert means[best] == max(means.values()) and best != second
    page = pages.page(made)
    row = next(line for line in page.splitlines() if line.startswith(f"| {best} |"))
    assert f"**{100 * means[best]:.2f}" in row.split("|")[2]
    other = next(line for line in page.splitlines() if line.startswith(f"| {second} |"))
    assert "**" not in other.split("|")[2]


def test_nobody_is_best_where_all_are_equal(made: Summary) -> None:
    rows = [msgspec.structs.replace(r, metrics={"hr@20": [0.5, 0.25]}) for r in made.rows]
    assert len(rows) > 1 and places(rows, "hr@20") == ("", "")
    assert places(rows[:1], "hr@20") == (rows[0].label, "")


def test_the_least_unequal_is_best(made: Summary) -> None:
    rows = [
        msgspec.structs.replace(r, metrics={"gini@20": [0.9 - 0.1 * at]})
        for at, r in enumerate(made.rows)
    ]
    assert places(rows, "gini@20")[0] == rows[-1].label


def test_a_star_needs_a_small_p(made: Summary) -> None:
    best, _ = places(made.rows, "hr@20")
    row = next(r for r in made.rows if r.label == best)
    for p, star in ((0.2, False), (0.01, True)):
        leads = [msgspec.structs.replace(lead, p=p) for lead in made.leads]
        shown = pages.cell(row, "hr@20", msgspec.structs.replace(made, leads=leads))
        assert shown.endswith("\\*") == star


def test_the_page_says_how_it_was_made(made: Summary) -> None:
    page = pages.page(made, ["rows.svg"])
    for text in (
        "dimerec reproduce toy --dataset latest-small --budget smoke",
        made.card["digest"][:12],
        "It is small.",
        "little.",
        "| *Oracle* (by definition) | *100.00* |",
        "- No diffusion: x_t = 0.",
        "![Toy, rows](rows.svg)",
    ):
        assert text in page


def test_written_and_read_it_is_the_same(made: Summary, tmp_path: Path) -> None:
    summary.write(made, tmp_path / "deep" / "results.json")
    assert summary.read(tmp_path / "deep" / "results.json") == made
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json: no summary"):
        summary.read(tmp_path / "x.json")


def test_without_ranks_there_are_no_leads_and_missing_rows_are_said(
    done: Done, tmp_path: Path
) -> None:
    _, plan, results = done
    data = StudyData(data=plan.data, epochs={"smoke": 1})
    some = [r for r in results if r.label == "Popularity" and r.seed == 0]
    made = summary.make(NAMES, "", data, plan, some, tmp_path, {})
    assert made.leads == []
    assert "Popularity: 1 of 2 seeds" in made.notes and "not run: No diffusion" in made.notes
    with pytest.raises(DataError, match="no result yet"):
        summary.make(NAMES, "", data, plan, [], tmp_path, {})


def test_leads_outlive_the_ranks_while_the_numbers_are_theirs(
    made: Summary, done: Done, tmp_path: Path
) -> None:
    _, plan, results = done
    data = StudyData(data=plan.data, epochs={"smoke": 1})
    again = summary.make(NAMES, "", data, plan, results, tmp_path, {}, before=made)
    assert again.leads == made.leads and made.leads
    first = made.rows[0]
    other = msgspec.structs.replace(first, weights=["another", *first.weights[1:]])
    for was in (
        msgspec.structs.replace(made, rows=[other, *made.rows[1:]]),
        msgspec.structs.replace(made, rows=made.rows[1:]),
        msgspec.structs.replace(made, leads=made.leads[:1]),
    ):
        assert summary.make(NAMES, "", data, plan, results, tmp_path, {}, before=was).leads == []


def test_a_row_behind_the_two_best_may_change(made: Summary, done: Done, tmp_path: Path) -> None:
    _, plan, results = done
    third = msgspec.structs.replace(made.rows[0], label="Another", weights=["another"])
    was = msgspec.structs.replace(made, rows=[*made.rows, third])
    data = StudyData(data=plan.data, epochs={"smoke": 1})
    again = summary.make(NAMES, "", data, plan, results, tmp_path, {}, before=was)
    assert again.leads == made.leads


def test_whiskers_are_of_several_seeds(made: Summary) -> None:
    (bars,) = charts.draw(made).values()
    assert b"LineCollection" in bars and b"deviation over seeds" in bars
    alone = [
        msgspec.structs.replace(r, seeds=[0], metrics={m: v[:1] for m, v in r.metrics.items()})
        for r in made.rows
    ]
    for rows, axis in ((alone, ""), ([msgspec.structs.replace(r, x=1.0) for r in alone], "T")):
        (drawn,) = charts.draw(msgspec.structs.replace(made, rows=rows, axis=axis)).values()
        assert b"LineCollection" not in drawn and b"deviation" not in drawn


def test_charts_are_pictures_with_every_row(made: Summary) -> None:
    (bars,) = charts.draw(made).values()
    assert bars.startswith(b"<?xml") and all(r.label.encode() in bars for r in made.rows)
    rows = [msgspec.structs.replace(r, x=float(n)) for n, r in enumerate(made.rows)]
    (curve,) = charts.draw(msgspec.structs.replace(made, rows=rows, axis="T")).values()
    assert (
        b"HR@20" in curve
        and curve == charts.draw(msgspec.structs.replace(made, rows=rows, axis="T"))["curve.svg"]
    )
