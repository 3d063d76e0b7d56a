"""The figure of a table: bars of the rows, or lines over a hyper-parameter."""

from statistics import mean, stdev
from typing import Any

from dimerec.evaluation.plots import ACCENT, COLOURS, GREY, svg
from dimerec.experiments.summary import Row, Summary
from dimerec.experiments.units import scale, shown


def draw(summary: Summary) -> dict[str, bytes]:
    """Files by name: "rows.svg" of the first metric, or "curve.svg" where rows are points."""
    if not summary.metrics:
        return {}
    held = [r for r in summary.rows if summary.metrics[0] in r.metrics]
    if summary.axis:
        placed = [r for r in held if r.x is not None]
        return {"curve.svg": _curve(summary, placed)} if placed else {}
    return {"rows.svg": _bars(summary.metrics[0], held)}


def _bars(metric: str, rows: list[Row]) -> bytes:
    def paint(axes: Any) -> None:
        for at, row in enumerate(rows):
            values = _values(row, metric)
            colour = ACCENT if row.label.startswith("DimeRec") else GREY
            axes.barh(at, mean(values), color=colour, height=0.6)
            if len(values) > 1:
                axes.errorbar(mean(values), at, xerr=stdev(values), color="#d9822b", capsize=3)
        axes.set_yticks(range(len(rows)), [r.label for r in rows])
        axes.invert_yaxis()
        percent = "" if scale(metric) == 1 else ", percent"
        several = any(len(_values(r, metric)) > 1 for r in rows)
        bars = "bar: mean, whisker: deviation over seeds" if several else "one seed"
        axes.set_xlabel(f"{shown(metric)}{percent} ({bars})")

    return svg(paint, (7.0, 1.2 + 0.34 * len(rows)))


def _curve(summary: Summary, rows: list[Row]) -> bytes:
    """A line for each series of rows; with one series alone, a line for each metric."""
    order = sorted(rows, key=lambda r: r.x or 0.0)
    ticks = sorted({r.x for r in order if r.x is not None})
    names = list(dict.fromkeys(r.series for r in order))
    drawn = [(m, names[0], shown(m)) for m in summary.metrics]
    if len(names) > 1:
        first = summary.metrics[0]
        drawn = [(first, name, f"{shown(first)}, {name}") for name in names]

    def paint(axes: Any) -> None:
        for (metric, series, label), colour in zip(drawn, COLOURS, strict=False):
            some = [r for r in order if r.series == series and metric in r.metrics]
            at = [ticks.index(r.x) for r in some if r.x is not None]
            values = [_values(r, metric) for r in some]
            means = [mean(v) for v in values]
            axes.plot(at, means, color=colour, marker="o", label=label)
            for x, v in zip(at, values, strict=True):
                if len(v) > 1:
                    axes.errorbar(x, mean(v), yerr=stdev(v), color=colour, capsize=3)
        axes.set_xticks(range(len(ticks)), [f"{x:g}" for x in ticks])
        axes.set_xlabel(summary.axis)
        axes.set_ylabel("percent")
        legend(axes)

    return svg(paint, (7.0, 3.8))


def legend(axes: Any) -> None:
    """The names of the lines, above the chart."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=9)


def _values(row: Row, metric: str) -> list[float]:
    return [scale(metric) * v for v in row.metrics[metric]]
