"""A picture of a comparison: each metric's difference with its intervals, as one SVG file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimerec import files
from dimerec.errors import ConfigError
from dimerec.evaluation.comparison import Comparison

ACCENT, GREY = "#6272f2", "#959ba6"  # both stand out from white and from black
INK = "#010203"  # stands for the page's own colour of text


def draw(found: Sequence[Comparison], a: str, b: str, path: str | Path) -> None:
    """Write an SVG of the differences of `a` less `b`, in percentage points, to `path`.

    It has no background, and its text is dark on a light page and light on a dark one. A thin bar
    is the 95 % interval over users, a broad one that over users and seeds, where it is known.

    Raises:
        ConfigError: Matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ConfigError(
            "plots need Matplotlib, which is not installed: pip install 'dimerec[experiments]'"
        ) from e
    settings: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.edgecolor": GREY,
        "font.size": 10,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "dimerec",  # the same figures give the same file
    }
    out = io.BytesIO()
    with rc_context(settings):
        figure = Figure(figsize=(7, 1.2 + 0.38 * len(found)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for row, one in enumerate(found):
            gap = one.difference
            axes.plot([100 * gap.low, 100 * gap.high], [row, row], color=ACCENT, linewidth=2)
            if one.both and one.both.low is not None and one.both.high is not None:
                ends = [100 * one.both.low, 100 * one.both.high]
                axes.plot(ends, [row, row], color=ACCENT, alpha=0.3, linewidth=9)
            axes.plot([100 * gap.value], [row], "o", color=ACCENT, markersize=6)
        axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
        axes.set_yticks(range(len(found)), [one.metric.upper() for one in found])
        axes.invert_yaxis()
        axes.set_xlabel(f"{a} less {b}, percentage points")
        axes.tick_params(color=GREY)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue().decode().replace(INK, "currentColor")
    style = "svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}"
    head, mark, rest = text.partition("<defs>")
    files.write_file(Path(path), f"{head}<style>{style}</style>\n {mark}{rest}".encode())
