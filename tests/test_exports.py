"""The public names: sorted, all there, and the same objects as at home."""

import ast
import importlib
from operator import attrgetter
from pathlib import Path

import pytest

import dimerec


def test_the_names_are_sorted_and_unique():
    assert dimerec.__all__ == sorted(set(dimerec.__all__))


@pytest.mark.parametrize("name", dimerec.__all__)
def test_a_public_name_is_there_documented_and_at_home(name: str):
    value = getattr(dimerec, name)
    assert value.__doc__
    home = importlib.import_module(value.__module__)
    assert getattr(home, value.__name__) is value


def test_every_error_is_public():
    from dimerec import errors

    classes = {n for n, v in vars(errors).items() if isinstance(v, type)}
    assert classes <= set(dimerec.__all__)


def test_type_checkers_see_the_same_names_from_the_same_homes():
    source = Path(str(dimerec.__file__)).read_text("utf-8")
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dimerec")
        for alias in node.names
    }
    assert sorted(seen) == dimerec.__all__
    for name, (module, original) in seen.items():
        assert getattr(importlib.import_module(str(module)), original) is getattr(dimerec, name)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        attrgetter("nonsense")(dimerec)
    assert set(dir(dimerec)) == {*dimerec.__all__, "__version__"}


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("dimerec") == dimerec.__version__
