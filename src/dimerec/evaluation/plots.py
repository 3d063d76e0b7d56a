"""A chart as one SVG that looks right on a light and on a dark page."""

import io
from collections.abc import Callable
from typing import Any

from dimerec.errors import ConfigError

ACCENT, GREY = "#6272f2", "#959ba6"  # both stand out from white and from black
COLOURS = (ACCENT, "#d9822b", "#2a9d74", "#c2528b", "#959ba6", "#7a5cc4", "#b8a12c", "#3f9cc9")
INK = "#010203"  # stands for the page's own colour of text


def svg(paint: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    """An SVG file: `paint` is given a Matplotlib `Axes`; `size` is in inches.

    It has no background, and its text is dark on a light page and light on a dark one. The same
    chart gives the same bytes.

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
        "legend.frameon": False,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "dimerec",
    }
    out = io.BytesIO()
    with rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        paint(axes)
        axes.tick_params(color=GREY)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue().decode().replace(INK, "currentColor")
    style = "svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}"
    head, mark, rest = text.partition("<defs>")
    return f"{head}<style>{style}</style>\n {mark}{rest}".encode()
