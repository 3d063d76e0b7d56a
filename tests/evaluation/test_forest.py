"""The picture of a comparison: what it shows, and how it fits light and dark pages."""

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dimerec.errors import ConfigError
from dimerec.evaluation import forest
from dimerec.evaluation.comparison import compare
from dimerec.evaluation.plots import ACCENT, GREY, INK
from tests.evaluation.test_comparison import side


def test_it_is_an_svg_without_a_background(tmp_path: Path):
    found = compare(side(0.5, 2), side(0.4, 2))
    forest.draw(found, "first & best", "second", tmp_path / "gap.svg")
    text = (tmp_path / "gap.svg").read_text("utf-8")
    root = ET.fromstring(text)
    words = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "HR@20" in words and "first & best less second, percentage points" in words
    assert "prefers-color-scheme:dark" in text and INK not in text
    inks = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
    assert inks <= {ACCENT, GREY}  # nothing drawn in plain black or white
    forest.draw(found, "first & best", "second", tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text("utf-8") == text


def test_each_interval_is_where_it_should_be(tmp_path: Path):
    """The horizontal bars, measured in the file, are in proportion to the intervals."""
    found = compare(side(0.5), side(0.4))
    forest.draw(found, "a", "b", tmp_path / "gap.svg")
    text = (tmp_path / "gap.svg").read_text("utf-8")
    bars = re.findall(
        r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2 \n" clip-path="[^"]*" '
        rf'style="fill: none; stroke: {ACCENT}',
        text,
    )
    assert len(bars) == len(found)
    drawn = [float(x2) - float(x1) for x1, _, x2 in bars]
    wide = [o.difference.high - o.difference.low for o in found]
    assert drawn == pytest.approx([w * drawn[0] / wide[0] for w in wide], rel=1e-3)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"dimerec\[experiments\]"):
        forest.draw([], "a", "b", tmp_path / "gap.svg")
