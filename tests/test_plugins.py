"""A file in a package is found by its own name, and only by that."""

import sys
from pathlib import Path

import pytest

from dimerec import plugins
from dimerec.errors import ConfigError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "shelf_of_plugins"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "zeta.py").write_text("VALUE = 26\n")
    (folder / "alpha.py").write_text("raise RuntimeError('imported')\n")
    (folder / "_private.py").write_text("VALUE = 0\n")
    (folder / "notes.txt").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.startswith(folder.name)]:
        monkeypatch.delitem(sys.modules, name)
    return folder.name


def test_names_are_sorted_files_and_importing_none_of_them(package: str):
    assert plugins.names(package) == ["alpha", "zeta"]
    assert f"{package}.alpha" not in sys.modules


def test_a_new_file_is_found(package: str, tmp_path: Path):
    plugins.names(package)
    (tmp_path / package / "later.py").write_text("VALUE = 1\n")
    assert "later" in plugins.names(package)


def test_a_name_gives_its_module(package: str):
    assert plugins.load(package, "zeta").VALUE == 26


@pytest.mark.parametrize("name", ["nobody", "_private", "../zeta", "zeta.VALUE", "", "os"])
def test_other_names_are_refused_with_the_known_ones(package: str, name: str):
    with pytest.raises(ConfigError, match="known: alpha, zeta") as caught:
        plugins.load(package, name)
    assert repr(name) in str(caught.value)


def test_a_module_that_breaks_shows_its_own_error(package: str):
    with pytest.raises(RuntimeError, match="imported"):
        plugins.load(package, "alpha")
