"""Every equation and algorithm of the paper has exactly one home, and the page that says so."""

from pathlib import Path

import pytest

from tests.tools import paper_map


def test_each_equation_has_exactly_one_home():
    assert paper_map.problems(paper_map.homes(paper_map.ROOT / "src")) == []


def test_the_page_is_what_the_docstrings_say():
    expected = paper_map.render(paper_map.homes(paper_map.ROOT / "src"))
    assert paper_map.PAGE.read_text("utf-8") == expected, "run `make docs`"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Eq. 16", [("Eq. 16", "")]),
        ("Eqs. 1-3 (a note)", [("Eq. 1", "a note"), ("Eq. 2", "a note"), ("Eq. 3", "a note")]),
        ("Alg. 1 lines 5-7", [("Alg. 1", "lines 5-7")]),
        ("Eqs. 5-6; Alg. 2.", [("Eq. 5", ""), ("Eq. 6", ""), ("Alg. 2", "")]),
    ],
)
def test_claims_are_read(text, expected):
    assert list(paper_map.claims(text)) == expected


@pytest.mark.parametrize("text", ["Equation 16", "Eqs. 16", "Eq. 1-3", "Eq 16", ""])
def test_claims_that_cannot_be_read_are_refused(text):
    with pytest.raises(ValueError):
        list(paper_map.claims(text))


def test_doubles_gaps_and_strangers_are_found(tmp_path: Path):
    (tmp_path / "a.py").write_text('"""Implements: Eqs. 1-10"""\n')
    (tmp_path / "b.py").write_text(
        'class C:\n    def f(self):\n        """Words.\n\n        Implements: Eq. 1; Eq. 99\n        """\n'
    )
    found = paper_map.homes(tmp_path)
    assert found[-1].name == "C.f"
    wrong = paper_map.problems(found)
    assert "Eq. 1 has 2 homes: a.py:module, b.py:C.f" in wrong
    assert "Eq. 10 is listed as an exception, but lives in a.py:module" in wrong
    assert "Eq. 23 (the whole loss) has no home" in wrong
    assert "Eq. 99 is not in the paper, but b.py:C.f implements it" in wrong
