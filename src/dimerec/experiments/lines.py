"""Figures of what is measured along something, and what they say in numbers."""

import re
from statistics import mean
from typing import Any

from dimerec.config import Struct
from dimerec.evaluation.plots import COLOURS, GREY, svg
from dimerec.experiments.charts import legend
from dimerec.experiments.plan import Curve
from dimerec.experiments.summary import Row, Summary
from dimerec.experiments.units import scale


class Line(Struct, frozen=True):
    """A line of a figure: means over seeds."""

    label: str
    x: list[float]
    y: list[float]


def draw(summary: Summary) -> dict[str, bytes]:
    """Files by name; a curve that no row has is left out."""
    found: dict[str, bytes] = {}
    for curve in summary.curves:
        if len(curve.names) == 1:
            lines = [line for r in summary.rows if (line := of(r, curve, curve.names[0], r.label))]
            if lines:
                found[f"{curve.file}.svg"] = _picture(curve, lines, "")
            continue
        for row in summary.rows:
            lines = [line for n in curve.names if (line := of(row, curve, n, _plain(n)))]
            if lines:
                tail = re.sub(r"\W+", "-", row.label.lower()).strip("-")
                found[f"{curve.file}-{tail}.svg"] = _picture(curve, lines, row.label)
    return found


def of(row: Row, curve: Curve, name: str, label: str) -> Line | None:
    """The line of one metric of a row, in the figure's units; None where the row has none."""
    y = points(row, name)
    x = points(row, curve.over) if curve.over else {at: at for at in y}
    at = sorted(set(x) & set(y))
    if not at:
        return None
    size = scale(name)
    values = [size * y[a] for a in at]
    if curve.relative and values[0]:
        values = [v / values[0] for v in values]
    return Line(label, [x[a] for a in at], values)


def points(row: Row, name: str) -> dict[float, float]:
    """Of the metrics "name/X" of a row: the mean over seeds, by X."""
    pairs = [(m.partition("/"), v) for m, v in row.metrics.items()]
    return {float(x): mean(v) for (m, slash, x), v in pairs if slash and m == name}


def table(summary: Summary) -> list[str]:
    """Every line in five numbers, Markdown; nothing without curves."""
    lines = []
    for curve in summary.curves:
        for row in summary.rows:
            for name in curve.names:
                one = of(row, curve, name, row.label)
                if one is None:
                    continue
                low, high = min(one.y), max(one.y)
                ends = [f"{v:.3f}" for v in (one.y[0], low, high, one.y[-1])]
                where = f"{one.x[one.y.index(high)]:g}"
                head = f"| {row.label} | {_plain(name)} | {curve.x} |"
                lines.append(f"{head} {' | '.join(ends)} | {where} |")
    if not lines:
        return []
    head = "| row | line | along | first | lowest | highest | last | highest at |"
    rule = "| --- | --- | --- |" + " ---: |" * 5
    return ["The figures below in numbers:", "", head, rule, *lines]


def _picture(curve: Curve, lines: list[Line], title: str) -> bytes:
    def paint(axes: Any) -> None:
        for line, colour in zip(lines, COLOURS * 3, strict=False):
            axes.plot(line.x, line.y, color=colour, marker="o", markersize=3, label=line.label)
        axes.set_xlabel(curve.x if not title else f"{curve.x} ({title})")
        axes.set_ylabel(curve.y)
        if all(name.startswith("cosine") for name in curve.names):
            axes.set_ylim(-1, 1)
            axes.axhline(0, color=GREY, linewidth=0.8)
        else:
            axes.set_ylim(bottom=0)
        legend(axes)

    return svg(paint, (7.0, 3.4 + 0.12 * len(lines)))


def _plain(name: str) -> str:
    return NAMES.get(name, name)


NAMES = {
    "loss-gem": "L_gem",
    "loss-recon": "L_recon",
    "loss-ssm": "L_ssm",
    "cosine-gem-recon": "L_gem and L_recon",
    "cosine-gem-ssm": "L_gem and L_ssm",
    "cosine-recon-ssm": "L_recon and L_ssm",
    "cosine-items-recon-ssm": "L_recon and L_ssm, item vectors alone",
    "chain-noisy": "retrieved with x_t",
    "chain-clean": "retrieved with x_0-hat",
}
