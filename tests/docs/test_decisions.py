"""The pages of decisions say what the recipes do, and the index names them all."""

import re
import tomllib
from functools import reduce
from pathlib import Path

import msgspec
import pytest

from dimerec import config
from tests.tools.doc_examples import ROOT

PAGES = sorted((ROOT / "docs" / "decisions").glob("*.md"))
CODE = re.compile(r"`([^`]+)`")


def claims(text: str) -> list[tuple[str, str, str]]:
    """(recipe, field, value) of every table whose first column is called field."""
    out: list[tuple[str, str, str]] = []
    recipes: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            recipes = []
        elif cells[0] == "field":
            recipes = CODE.findall(line)
        elif recipes and (field := CODE.fullmatch(cells[0])):
            values = [CODE.fullmatch(cell) for cell in cells[1:]]
            pairs = zip(recipes, values, strict=True)
            out += [(recipe, field[1], value[1]) for recipe, value in pairs if value]
    return out


def setting(recipe: str, field: str) -> object:
    """What `recipe` sets `field` to, defaults included."""
    loaded = config.load(recipe)
    tree = msgspec.to_builtins(loaded) | {"options": msgspec.to_builtins(loaded.model_config())}
    return reduce(lambda part, name: part[name], field.split("."), tree)


def wrong(text: str) -> list[tuple[str, str, str]]:
    return [
        (recipe, field, value)
        for recipe, field, value in claims(text)
        if setting(recipe, field) != tomllib.loads(f"x = {value}")["x"]
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_fields_stand_as_the_recipes_have_them(page: Path) -> None:
    assert wrong(page.read_text("utf-8")) == []


def test_the_tables_are_found_and_a_false_one_is_named() -> None:
    assert sum(len(claims(page.read_text("utf-8"))) for page in PAGES) > 50
    table = "| field | `dimerec` |\n| --- | --- |\n| `options.steps` | `%d` |\n"
    assert wrong(table % 1) == []
    assert wrong(table % 20) == [("dimerec", "options.steps", "20")]
    with pytest.raises(KeyError):
        wrong(table.replace("steps", "nonsense") % 1)


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text("utf-8")
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert named == {page.name for page in PAGES} - {"README.md"}


def test_each_page_has_what_it_must() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        if page.stem not in ("README", "slips"):
            assert "**Why.**" in text, page.stem
            assert len(text.splitlines()) <= 80, f"{page.stem} is no short page"
