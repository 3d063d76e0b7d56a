"""A prepared dataset and a counting run, made once by commands, for tests that only read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dimerec.cli import app
from tests.cli import shop


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs run in an empty folder, without the caller's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("DIMEREC_DATA", "DIMEREC_DEBUG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with log.csv.gz, items.csv, the dataset `data` and the runs `counted`, `popular`."""
    folder = tmp_path_factory.mktemp("shop")
    shop.write_log(folder / "log.csv.gz")
    shop.write_items(folder / "items.csv")
    words: list[list[object]] = [
        ["prepare", folder / "log.csv.gz", "--out", folder / "data", "--columns", shop.COLUMNS]
        + ["--items", folder / "items.csv"],
        ["train", folder / "data", "--config", "cooccurrence", "--out", folder / "counted"],
        ["train", folder / "data", "--config", "popularity", "--out", folder / "popular"],
    ]
    for line in words:
        result = CliRunner().invoke(app, list(map(str, line)))
        assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a verb inside this process; exit code 0 unless `code` says otherwise."""

    def run(*words: object, code: int = 0, **more: Any) -> Result:
        result = CliRunner().invoke(app, list(map(str, words)), **more)
        assert result.exit_code == code, f"{result.exit_code}: {result.output} {result.exception!r}"
        return result

    return run


@pytest.fixture
def ask(run: Callable[..., Result]) -> Callable[..., Any]:
    """Run a verb with --json inside this process: its document."""
    return lambda *words, **more: json.loads(run(*words, "--json", **more).stdout)
