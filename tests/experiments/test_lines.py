"""Figures of measured curves: what is drawn is what the rows hold."""

import pytest

from dimerec.experiments import charts, lines
from dimerec.experiments.plan import Curve
from dimerec.experiments.summary import Row, Summary


def row(label: str, **metrics: list[float]) -> Row:
    named = {name.replace("__", "/").replace("_", "-"): v for name, v in metrics.items()}
    return Row(label, [0, 1], named, 10, 5.0, 1.0, ["a", "b"])


def curve(*names: str, **more: object) -> Curve:
    return Curve(**{"file": "one", "names": list(names), "x": "steps", "y": "value", **more})


def made(rows: list[Row], *curves: Curve, **more: object) -> Summary:
    plain: dict = {
        "study": "s", "dataset": "d", "budget": "smoke", "title": "T", "about": "", "terms": "",
        "note": "", "metrics": ["hr@20"], "axis": "", "seeds": [0, 1], "epochs": 1, "card": {},
        "machine": "", "rows": rows, "leads": [], "published": [], "notes": [],
        "curves": list(curves),
    }  # fmt: skip
    return Summary(**{**plain, **more})


ROW = row("A", loss_x__10=[4.0, 6.0], loss_x__2=[8.0, 12.0], hr__2=[0.1, 0.3], hr__10=[0.5, 0.5])


def test_a_line_is_the_means_over_seeds_in_the_order_of_x() -> None:
    one = lines.of(ROW, curve("loss-x"), "loss-x", "A")
    assert one == lines.Line("A", [2.0, 10.0], [10.0, 5.0])
    one = lines.of(ROW, curve("hr"), "hr", "A")
    assert one and one.y == [pytest.approx(20), pytest.approx(50)], "shares are in percent"
    one = lines.of(ROW, curve("loss-x", relative=True), "loss-x", "A")
    assert one and one.y == [1.0, 0.5]
    one = lines.of(ROW, curve("hr", over="loss-x"), "hr", "A")
    assert one and (one.x, one.y[1]) == ([10.0, 5.0], pytest.approx(50))
    assert lines.of(ROW, curve("loss"), "loss", "A") is None, "no metric begins with another"


def test_one_name_is_a_line_for_each_row_and_several_a_picture_for_each() -> None:
    other = row("B, w/o C", loss_x__2=[1.0, 1.0])
    summary = made([ROW, other, row("C")], curve("hr"), curve("loss-x", "hr", file="two"))
    found = lines.draw(summary)
    assert sorted(found) == ["one.svg", "two-a.svg", "two-b-w-o-c.svg"]
    assert found["one.svg"].count(b">A<") == 1 and b">C<" not in found["one.svg"]
    assert b">loss-x<" in found["two-a.svg"] and b">hr<" not in found["two-b-w-o-c.svg"]
    assert b"prefers-color-scheme:dark" in found["one.svg"]
    assert lines.draw(summary) == found and lines.draw(made([row("C")], curve("hr"))) == {}


def test_the_numbers_of_a_line() -> None:
    shape = row("A", loss_x__1=[3.0, 3.0], loss_x__2=[1.0, 1.0], loss_x__3=[5.0, 5.0],
                loss_x__4=[2.0, 2.0])  # fmt: skip
    text = lines.table(made([shape, row("B")], curve("loss-x")))
    assert text[-1] == "| A | loss-x | steps | 3.000 | 1.000 | 5.000 | 2.000 | 3 |"
    assert len(text) == 5 and lines.table(made([shape])) == []


def test_series_are_lines_over_the_hyper_parameter() -> None:
    import msgspec

    rows = [
        msgspec.structs.replace(row(f"{s} {x}", **{"hr@20": [0.1, 0.2]}), x=float(x), series=s)
        for s in ("one step", "all steps")
        for x in (2, 20)
    ]
    (drawn,) = charts.draw(made(rows, axis="T")).values()
    assert b"HR@20, one step" in drawn and b"HR@20, all steps" in drawn and b">20<" in drawn
    alone = [r for r in rows if r.series == "one step"]
    (drawn,) = charts.draw(made(alone, axis="T")).values()
    assert b">HR@20<" in drawn and b"one step" not in drawn
    assert charts.draw(made([row("A", **{"hr@20": [0.1, 0.1]})], axis="T")) == {}
