"""The report's figures, as plain Plotly figures (`{"data": [...], "layout": {...}}`).

Colours of text and grids are left to the page's style sheet, so that light and dark both work.
"""

from html import escape
from typing import Any

import numpy as np

from dimerec.evaluation.intervals import interval
from dimerec.experiments.demo import METRIC, SHORT, Demo
from dimerec.experiments.findings import Findings

Figure = dict[str, Any]
ACCENT, SECOND, GREY = "#6272f2", "#e8833a", "#959ba6"
MODELS = {"dimerec": ACCENT, "dimerec-none": SECOND, "sasrec": "#2aa3b5", "comirec": "#3fa66b"}
GROUPS = [
    "#4c86e0",
    "#e8833a",
    "#3fa66b",
    "#d8545b",
    "#9a6bd8",
    "#b08a4a",
    "#e58ac8",
    "#2aa3b5",
]
# between the axis and its labels
GAP = {"ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0,0,0,0)"}
CONFIG = {"displayModeBar": False, "responsive": True}


def comparison(demo: Demo) -> Figure:
    """Each row's metric with its interval over test users."""
    rows = demo.rows[::-1]
    value = [100 * r.within.value for r in rows]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": value,
        "y": [_label(r.label) for r in rows],
        "error_x": {
            "type": "data",
            "array": [100 * r.within.high - v for r, v in zip(rows, value, strict=True)],
            "arrayminus": [v - 100 * r.within.low for r, v in zip(rows, value, strict=True)],
            "thickness": 2,
            "width": 0,
            "color": "rgba(149,155,166,.6)",
        },
        "marker": {"size": 13, "color": [MODELS.get(r.recipe, GREY) for r in rows]},
        "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
    }
    x = {"title": {"text": _name(METRIC) + ", %"}, "rangemode": "tozero"}
    return _figure([dots], height=60 + 44 * len(rows), xaxis=x, yaxis={"showgrid": False})


def losses(demo: Demo, found: Findings) -> dict[str, Figure]:
    """DimeRec's loss parts, a figure each, by name."""
    curves = found.curves["dimerec"]
    return {
        name: _figure([_line(curves.steps, values, ACCENT, "%{y:.3f} at step %{x}")], height=210)
        for name, values in curves.losses.items()
    }


def validation(demo: Demo, found: Findings) -> Figure:
    """The metric on validation users, of every learned model."""
    traces = [
        _line(
            [s for s, _ in curve.validation],
            [100 * v[METRIC] for _, v in curve.validation],
            MODELS.get(recipe, GREY),
            f"{demo.row(recipe).label}: %{{y:.1f}} % at step %{{x}}",
            _label(demo.row(recipe).label),
        )
        for recipe, curve in found.curves.items()
    ]
    y = {"rangemode": "tozero", "ticksuffix": " %"}
    return _figure(traces, height=320, legend=True, xaxis={"title": {"text": "step"}}, yaxis=y)


def steps(demo: Demo, found: Findings) -> Figure:
    """The metric by number of reverse steps, with its interval, and without diffusion."""
    number = list(found.steps)
    names = [str(s) for s in number]
    within = [interval(e, METRIC) for e in found.steps.values()]
    traces = [
        {
            **_line(
                names,
                [100 * i.value for i in within],
                ACCENT,
                "%{y:.1f} % with %{x} steps",
                demo.row("dimerec").label,
            ),
            "mode": "lines+markers",
            "marker": {"size": 9},
        }
    ]
    if any(r.recipe == "dimerec-none" for r in demo.rows):
        none = demo.row("dimerec-none")
        level = [100 * none.within.value] * len(names)
        traces.append(
            _line(names, level, SECOND, f"{none.label}: %{{y:.1f}} %", _label(none.label), "dot")
        )
    x = {"title": {"text": "denoising steps"}, "type": "category"}
    y = {"rangemode": "tozero", "ticksuffix": " %"}
    return _figure(traces, height=300, legend=True, xaxis=x, yaxis=y)


def chain(found: Findings) -> Figure:
    """The metric along one chain of all steps, retrieving with either vector."""
    times = found.chain.times
    traces = [
        _line(times, [100 * v for v in values], colour, "t = %{x}: %{y:.1f} %", name, dash)
        for name, values, colour, dash in (
            ("the prediction x̂<sub>0</sub>", found.chain.clean, ACCENT, "solid"),
            ("the noisy x<sub>t</sub>", found.chain.noisy, GREY, "dash"),
        )
    ]
    x = {"title": {"text": "t, from pure noise to the end"}, "autorange": "reversed"}
    y = {"rangemode": "tozero", "ticksuffix": " %"}
    return _figure(traces, height=300, legend=True, xaxis=x, yaxis=y)


def categories(demo: Demo) -> Figure:
    """Mean number of genres in a list of 20 and of 100."""
    rows = demo.rows[::-1]
    traces = []
    for n, colour, hole in ((SHORT, ACCENT, "circle"), (100, GREY, "circle-open")):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"top {n}",
                "x": [r.metrics.get(f"categories@{n}") for r in rows],
                "y": [_label(r.label) for r in rows],
                "marker": {
                    "size": 12,
                    "color": colour,
                    "symbol": hole,
                    "line": {"width": 2.5, "color": colour},
                },
                "hovertemplate": f"%{{y}}: %{{x:.1f}} genres in the top {n}<extra></extra>",
            }
        )
    x = {"title": {"text": "genres in a list, mean"}, "rangemode": "tozero"}
    height = 90 + 40 * len(rows)
    return _figure(traces, height=height, legend=True, xaxis=x, yaxis={"showgrid": False})


def map_of_items(demo: Demo, found: Findings) -> Figure:
    """The plane of item vectors, by group, with one user's interests and generated vectors."""
    plane, shown = found.map, found.showcase
    known = demo.dataset.metadata()
    groups = np.array(found.groups)
    names = sorted({g for g in found.groups if g}, key=lambda g: (-found.groups.count(g), g))
    colours = dict(zip(names, GROUPS, strict=False)) | {"": GREY}
    traces = []
    for name in [*names, ""] if "" in found.groups else names:
        at = np.flatnonzero(groups == name)
        items = [known[n - 1] for n in plane.numbers[at]]
        texts = [f"{escape(i.title or '')}<br>{escape(', '.join(i.categories))}" for i in items]
        look = {"size": 6, "color": colours[name], "opacity": 0.75}
        traces.append(_dots(name or "other", plane.points[at], look, texts))
    rings = {"size": 10, "symbol": "circle-open", "color": ACCENT, "line": {"width": 1.6}}
    crosses = {"size": 8, "symbol": "x", "color": ACCENT}
    diamonds = {"size": 17, "symbol": "diamond", "color": SECOND}
    diamonds["line"] = {"width": 1.4, "color": "#ffffff"}
    watched = plane.points[np.isin(plane.numbers, shown.history)]
    traces += [
        _dots("watched", watched, rings),
        _dots("generated vectors", plane.place(found.generated), crosses),
        _dots("interests", plane.place(found.interests), diamonds),
    ]
    bare = {"showticklabels": False, "zeroline": False, "showgrid": False}
    return _figure(traces, height=620, legend=True, xaxis=bare, yaxis={**bare, "scaleanchor": "x"})


def _dots(
    name: str, points: np.ndarray, marker: dict[str, Any], texts: list[str] | None = None
) -> dict[str, Any]:
    """Points that show `texts` under the pointer, or let the pointer through."""
    shown = {"hoverinfo": "skip"}
    if texts is not None:
        shown = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(name),
        "x": points[:, 0].round(4).tolist(),
        "y": points[:, 1].round(4).tolist(),
        "marker": marker,
        **shown,
    }


def _line(
    x: list[Any], y: list[float], colour: str, hover: str, name: str = "", dash: str = "solid"
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2.5, "dash": dash},
        "hovertemplate": hover + "<extra></extra>",
    }


def _figure(data: list[dict[str, Any]], height: int, legend: bool = False, **axes: Any) -> Figure:
    axis = {"automargin": True, "zeroline": False, "fixedrange": True, **GAP}
    layout = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "hoverlabel": {"bgcolor": "#20242c", "bordercolor": "#20242c", "font": {"color": "#fff"}},
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis, **axes.get("xaxis", {})},
        "yaxis": {**axis, **axes.get("yaxis", {})},
    }
    return {"data": data, "layout": layout}


def _label(text: str) -> str:
    """A row's label with its formula set as one."""
    return escape(text).replace("x_t", "x<sub>t</sub>")


def _name(metric: str) -> str:
    return metric.upper()
