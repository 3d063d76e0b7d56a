"""The checker of the documentation's examples finds what would not work, and nothing else."""

from pathlib import Path

import pytest

from tests.tools import doc_examples


def found(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "Makefile").write_text("install: x\ntest: install\n")
    page = tmp_path / "README.md"
    page.write_text(text)
    return doc_examples.check(page, tmp_path)


def block(language: str, *lines: str) -> str:
    return "\n".join(["Words.", "", f"```{language}", *lines, "```", ""])


@pytest.mark.parametrize(
    "text",
    [
        block("python", "import dimerec", "from dimerec import DataError", "dimerec.ConfigError"),
        block("toml", 'model = "dimerec"'),
        block("text", "dimerec nonsense", "x = = 1"),
        block("python sketch", "f(x) -> y"),
        block("console", "$ make install PYTHON=python3.12", "dimerec nonsense is output here"),
        block("bash", "make -j2 install test  # both"),
        block("bash", "OMP_NUM_THREADS=1 dimerec --version && dimerec --help"),
        block("bash", "dimerec prepare log.csv --out data/mine \\", "  --protocol leave-one-out"),
        block(
            "bash",
            "dimerec train data/mine --out runs/mine --set seed=1 --set training.max_steps=9",
        ),
        "[here](README.md#part) and [there](https://example.org/nowhere) and [mail](mailto:a@b.c)",
    ],
)
def test_good_examples_pass(tmp_path: Path, text: str):
    assert found(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (block("python", "x = = 1"), "line 3: does not compile"),
        (block("python", "from dimerec import Nonsense"), "dimerec has no Nonsense"),
        (block("python", "import dimerec", "dimerec.nonsense()"), "dimerec has no nonsense"),
        (block("python", "from dimerec.nowhere import x"), "dimerec.nowhere has no x"),
        (block("toml", "model ="), "not TOML"),
        (block("bash", "make nonsense"), "make has no target nonsense"),
        (block("bash", "dimerec nonsense"), "no command nonsense"),
        (block("console", "$ dimerec train d --nonsense"), "no option --nonsense"),
        (block("bash", "dimerec train a b c d --out x"), "arguments, but at most"),
        (block("bash", "dimerec prepare --out x"), "missing argument"),
        (block("bash", "dimerec prepare log.csv --out"), "--out needs a value"),
        (block("bash", "ls | dimerec 'train"), "No closing quotation"),
        ("[gone](docs/gone.md)", "link to docs/gone.md"),
    ],
)
def test_bad_examples_are_named(tmp_path: Path, text: str, problem: str):
    problems = found(tmp_path, text)
    assert len(problems) == 1
    assert problems[0].startswith("README.md: ")
    assert problem in problems[0]


def test_the_projects_own_pages_are_found():
    names = {p.name for p in doc_examples.pages()}
    assert {"README.md", "CONTRIBUTING.md", "architecture.md", "paper-map.md"} <= names
