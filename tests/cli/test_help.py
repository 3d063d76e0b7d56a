"""Every help text teaches: what the verb does, an example that works, the defaults."""

import inspect
import re
from typing import Any

import pytest
from typer.main import get_command

import dimerec
from dimerec.cli import app
from dimerec.data import splits
from tests.tools import doc_examples

ROOT: Any = get_command(app)
VERBS = sorted(ROOT.commands)


def test_the_verbs():
    wanted = {"prepare", "train", "evaluate", "recommend", "fetch", "sources", "audit"}
    assert wanted | {"models", "doctor"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_help_has_examples_that_could_be_typed(verb: str, run):
    shown = run(verb, "--help").stdout
    text = inspect.getdoc(ROOT.commands[verb].callback) or ""
    blocks = re.findall(r"^  dimerec (?:.*\\\n)*.*", text, re.MULTILINE)
    assert any(block.startswith(f"  dimerec {verb}") for block in blocks)
    for block in blocks:
        plain = re.sub(r" [<>] \S+", "", block)  # redirections are the shell's
        assert not list(doc_examples._block("bash", plain, doc_examples.ROOT)), block
    # a terminal of 80 columns breaks no line of the text
    lines = {line.strip() for line in shown.splitlines()}
    assert all(line.strip() in lines for line in text.splitlines()[1:] if line.strip())


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb: str):
    for parameter in ROOT.commands[verb].params:
        assert parameter.help, f"{verb} {parameter.name}"


def test_prepare_names_every_protocol(run):
    shown = run("prepare", "--help", env={"COLUMNS": "400"}).stdout
    assert all(name in shown for name in splits.PROTOCOLS)


@pytest.mark.parametrize(
    ("verb", "function"), [("prepare", dimerec.prepare), ("evaluate", dimerec.evaluate)]
)
def test_defaults_are_those_of_the_library(verb: str, function: Any):
    theirs = inspect.signature(function).parameters
    shared = 0
    for parameter in ROOT.commands[verb].params:
        if parameter.name in theirs and not parameter.required and parameter.name != "json":
            assert (parameter.default or None) == (theirs[parameter.name].default or None)
            shared += 1
    assert shared >= 4


def test_no_verb_is_help(run):
    assert run().stdout == run("--help").stdout
    assert "dimerec prepare ml-latest-small" in run("-h").stdout


def test_version(run):
    assert run("--version").stdout == f"dimerec {dimerec.__version__}\n"
