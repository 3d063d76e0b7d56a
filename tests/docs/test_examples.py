"""The long examples of the documentation, run as they are printed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dimerec import config
from tests.contract.test_dropped_in import contract
from tests.tools.doc_examples import FENCE, ROOT


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of `docs/page`, in order."""
    found = FENCE.findall((ROOT / "docs" / page).read_text("utf-8"))
    return [(language, body) for _, language, _, body in found if language in languages]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_data_goes_the_whole_way(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = []
    for language, body in blocks("own-data.md", "python", "bash"):
        program = [sys.executable, "-c"] if language == "python" else ["bash", "-e", "-c"]
        done = subprocess.run(
            [*program, body],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
        print(done.stdout)
    assert len(said) == 3, "the log, the commands, the Python"
    assert "Unknown and ignored: sku-999" in said[1]
    assert "model ['sku-999']" in said[2]
    assert "sku-006" in said[1] and "sku-006" in said[2], "the next on the shelf is recommended"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_new_model_keeps_the_contract(tmp_path: Path) -> None:
    [(_, source)] = blocks("adding-a-model.md", "python")
    done = contract(tmp_path, "decay", source)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout and "failed" not in done.stdout


def test_the_new_models_recipe_is_one() -> None:
    [(_, text)] = blocks("adding-a-model.md", "toml")
    recipe = config.convert(tomllib.loads(text), config.RunConfig, "decay.toml")
    assert recipe.model == "decay"
