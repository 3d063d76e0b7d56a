"""A picture of a comparison: each metric's difference with its intervals, as one SVG file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimerec import files
from dimerec.evaluation.comparison import Comparison
from dimerec.evaluation.plots import ACCENT, GREY, svg


def draw(found: Sequence[Comparison], a: str, b: str, path: str | Path) -> None:
    """Write an SVG of the differences of `a` less `b`, in percentage points, to `path`.

    A thin bar is the 95 % interval over users, a broad one that over users and seeds, where it is
    known.

    Raises:
        ConfigError: Matplotlib is not installed.
    """

    def paint(axes: Any) -> None:
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

    files.write_file(Path(path), svg(paint, (7.0, 1.2 + 0.38 * len(found))))
