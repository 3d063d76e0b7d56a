"""Every model has a page that names all its options, with the defaults that the code has."""

import re
from fractions import Fraction
from functools import reduce
from typing import Any

import msgspec
import pytest

from dimerec import plugins
from tests.tools.doc_examples import ROOT

PAGES = {page.stem: page.read_text() for page in (ROOT / "docs" / "models").glob("*.md")}
PARTS = ("Equations", "Options", "What differs", "Cost", "Results")
CODE = re.compile(r"`([^`]+)`")


def config(name: str) -> type[msgspec.Struct]:
    """The options' struct of a model."""
    return plugins.load("dimerec.models", name).Config


def rows(text: str) -> list[tuple[list[str], str]]:
    """(options of the first cell, default in the second) of every row of the table of options."""
    lines = text.split("\n## Options\n")[1].split("\n## ")[0].splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert not cells or cells[0][1].strip() == "default"
    found = [(CODE.findall(row[0]), row[1].strip()) for row in cells[2:]]
    return [(names, default) for names, default in found if names and default]


def default(name: str, option: str) -> Any:
    """What the model has where a recipe says nothing."""
    tree = msgspec.to_builtins(config(name)())
    return reduce(lambda part, key: part[key], option.split("."), tree)


def same(value: Any, written: str) -> bool:
    """Whether a page says this value; words after it may explain it."""
    word = re.split(r"[ :]", written.replace("`", ""))[0]
    if isinstance(value, bool | str):
        return word == str(value).lower()
    return abs(float(Fraction(word)) - value) < 1e-3 * abs(value) if value else float(word) == 0


def wrong(name: str, text: str) -> list[str]:
    """Defaults that the page has otherwise than the code."""
    out = []
    for names, written in rows(text):
        values = [default(name, option) for option in whole(names)]
        if isinstance(values[0], dict):
            continue  # a struct in words
        if isinstance(values[0], tuple | list):
            (values,) = values
        shown = written.split(", ")
        if len(shown) != len(values) or not all(map(same, values, shown)):
            out.append(f"{', '.join(names)}: {written}, and the code has {values}")
    return out


def whole(names: list[str]) -> list[str]:
    """`a.b`, `c` are a.b and a.c."""
    part = names[0].rpartition(".")[0]
    return [n if "." in n or not part else f"{part}.{n}" for n in names]


def test_there_is_a_page_for_every_model() -> None:
    assert sorted(PAGES) == sorted(plugins.names("dimerec.models"))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_has_its_parts_and_every_option(name: str) -> None:
    assert [part for part in PARTS if f"\n## {part}\n" not in PAGES[name]] == []
    named = {option.split(".")[0] for names, _ in rows(PAGES[name]) for option in names}
    assert {field.name for field in msgspec.structs.fields(config(name))} <= named


@pytest.mark.parametrize("name", sorted(PAGES))
def test_defaults_are_those_of_the_code(name: str) -> None:
    assert wrong(name, PAGES[name]) == []


def test_a_wrong_default_is_seen() -> None:
    page = PAGES["diffrec"]
    for right, spoiled in (
        ("| 200, 600 |", "| 200 |"),
        ("| 40 |", "| 41 |"),
        ("| true |", "| 1 |"),
    ):
        assert right in page
        assert len(wrong("diffrec", page.replace(right, spoiled, 1))) == 1
