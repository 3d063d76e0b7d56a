"""The figures of a study: bars of the rows, or lines over a hyper-parameter."""

from statistics import mean, stdev
from typing import Any

from dimerec.evaluation.plots import ACCENT, COLOURS, GREY, svg
from dimerec.experiments.summary import Row, Summary, percent


def draw(summary: Summary) -> dict[str, bytes]:
    """Files by name: "metric.svg" with the first metric's values."""
    shown = [r for r in summary.rows if summary.metrics[0] in r.metrics]
    if summary.axis:
        return {"curve.svg": _curve(summary, [r for r in shown if r.x is not None])}
    return {"rows.svg": _bars(summary.metrics[0], shown)}


def _bars(metric: str, rows: list[Row]) -> bytes:
    def paint(axes: Any) -> None:
        for at, row in enumerate(rows):
            values = percent(row, metric)
            error = stdev(values) if len(values) > 1 else 0.0
            colour = ACCENT if row.label.startswith("DimeRec") else GREY
            axes.barh(at, mean(values), color=colour, height=0.6)
            axes.errorbar(mean(values), at, xerr=error, color="#d9822b", capsize=3)
        axes.set_yticks(range(len(rows)), [r.label for r in rows])
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric.upper()}, percent (bar: mean, whisker: deviation over seeds)")

    return svg(paint, (7.0, 1.2 + 0.34 * len(rows)))


def _curve(summary: Summary, rows: list[Row]) -> bytes:
    def paint(axes: Any) -> None:
        order = sorted(rows, key=lambda r: r.x or 0.0)
        at = list(range(len(order)))
        for metric, colour in zip(summary.metrics, COLOURS, strict=False):
            values = [percent(r, metric) for r in order]
            means = [mean(v) for v in values]
            errors = [stdev(v) if len(v) > 1 else 0.0 for v in values]
            axes.errorbar(at, means, yerr=errors, color=colour, marker="o", capsize=3)
            axes.annotate(metric.upper(), (at[-1], means[-1]), (6, 0), textcoords="offset points")
        axes.set_xticks(at, [f"{r.x:g}" for r in order])
        axes.set_xlabel(summary.axis)
        axes.set_ylabel("percent")
        axes.margins(x=0.12)

    return svg(paint, (7.0, 3.6))
