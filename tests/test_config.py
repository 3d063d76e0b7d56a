"""Strict configuration: what loads, what is refused and in which words, what the print covers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from dimerec import config
from dimerec.config import NegativesConfig, RunConfig, Struct, TrainingConfig
from dimerec.errors import ConfigError


class Deep(Struct, frozen=True):
    share: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.5
    sizes: list[Annotated[int, Meta(ge=1, le=9)]] = []
    maybe: Annotated[int, Meta(ge=2)] | None = None


def refused(tree: dict[str, Any], kind: type = RunConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        config.convert(tree, kind, "mine.toml")
    text = str(caught.value)
    assert text.startswith("mine.toml: ")
    assert "\n" not in text
    return text.removeprefix("mine.toml: ")


OF_NEGATIVES = "kind, number, private, exclude"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"training": {"max_steps": 0}}, "training.max_steps = 0: must be an integer >= 1"),
        ({"training": {"max_steps": 1.5}}, "training.max_steps = 1.5: must be an integer >= 1"),
        ({"training": {"max_steps": "9"}}, "training.max_steps = '9': must be an integer >= 1"),
        ({"seed": True}, "seed = True: must be an integer >= 0"),
        ({"seed": -1}, "seed = -1: must be an integer >= 0"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate = 0: must be a number > 0"),
        ({"negatives": 3}, f"negatives = 3: must be a table of settings: {OF_NEGATIVES}"),
        ({"model": 3}, "model = 3: Expected `str`, got `int`"),
        (
            {"negatives": {"kind": "some"}},
            "negatives.kind = 'some': must be one of 'in-batch', 'log-uniform', 'none', 'uniform'",
        ),
        (
            {"training": {"metric": "auc"}},
            "training.metric = 'auc': must be text matching ^(hr|ndcg|mrr)@[1-9][0-9]*$",
        ),
        (
            {"negatives": {"kind": "in-batch", "private": True}},
            "negatives: in-batch negatives are shared: private must be false",
        ),
        (
            {"training": {"weight_decay": float("inf")}},
            "training.weight_decay = inf: must be a finite number",
        ),
        (
            {"options": {"a": [{"b": float("nan")}]}},
            "options.a.0.b = nan: must be a finite number",
        ),
    ],
)
def test_a_bad_value_is_named_with_all_that_is_allowed(tree: dict[str, Any], message: str):
    assert refused({"model": "m", **tree}) == message


def test_both_ends_of_a_range_and_places_in_lists_are_named():
    assert refused({"share": 1}, Deep) == "share = 1: must be a number >= 0 and < 1"
    assert refused({"share": -0.5}, Deep) == "share = -0.5: must be a number >= 0 and < 1"
    assert refused({"sizes": [3, 0]}, Deep) == "sizes.1 = 0: must be an integer >= 1 and <= 9"
    assert refused({"maybe": 1}, Deep).startswith("maybe = 1: ")


def test_unknown_and_missing_keys_are_named_with_the_known_ones():
    assert refused({"model": "m", "sed": 1}) == (
        "unknown key `sed` (known: model, about, seed, length, options, negatives, training)"
    )
    nested = refused({"model": "m", "negatives": {"knd": "none"}})
    assert nested == "negatives: unknown key `knd` (known: kind, number, private, exclude)"
    assert refused({}) == "missing key `model`"


@given(st.integers())
def test_a_bound_is_the_bound(value: int):
    try:
        assert config.convert({"max_steps": value}, TrainingConfig, "t").max_steps == value >= 1
    except ConfigError as e:
        assert value < 1
        assert f"max_steps = {value}:" in str(e)


def test_configurations_are_frozen():
    for name in RunConfig.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(RunConfig(model="m"), name, 1)


# Overrides


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("seed=3", {"seed": 3}),
        (" seed = 3 ", {"seed": 3}),
        ("training.learning_rate=1e-3", {"training": {"learning_rate": 0.001}}),
        ("training.metric=hr@10", {"training": {"metric": "hr@10"}}),
        ('about="a = b"', {"about": "a = b"}),
        ("about=a = b", {"about": "a = b"}),
        ("about=", {"about": ""}),
        ("options.widths=[1, 2]", {"options": {"widths": [1, 2]}}),
        ("negatives.private=true", {"negatives": {"private": True}}),
    ],
)
def test_overrides_are_read_as_toml_or_else_as_text(item: str, expected: dict[str, Any]):
    tree: dict[str, Any] = {}
    config.override(tree, item)
    assert tree == expected


def test_an_override_changes_one_value_only():
    tree: dict[str, Any] = {"training": {"max_steps": 5, "batch_size": 7}}
    config.override(tree, "training.max_steps=6")
    assert tree == {"training": {"max_steps": 6, "batch_size": 7}}


@pytest.mark.parametrize("item", ["seed", "=3", " = 3", "a..b=1", ".a=1", "a.=1", "", "seed.x=1"])
def test_overrides_that_make_no_sense_are_refused(item: str):
    with pytest.raises(ConfigError) as caught:
        config.override({"seed": 0}, item)
    assert repr(item) in str(caught.value)


# Loading


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_file_is_loaded_with_overrides_in_order(tmp_path: Path):
    path = write(tmp_path / "r.toml", 'model = "popularity"\nseed = 1\n[training]\nmax_steps = 5\n')
    loaded = config.load(path, ["seed=2", "seed=3", "negatives.kind=uniform"])
    assert (loaded.model, loaded.seed, loaded.training.max_steps) == ("popularity", 3, 5)
    assert loaded.negatives == NegativesConfig(kind="uniform")
    assert loaded.training.batch_size == TrainingConfig().batch_size
    assert config.load(str(path)).seed == 1


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("model = \n", [], ["r.toml", "not valid TOML", "line 1"]),
        ('model = "nobody"', [], ["nobody", "known:", "popularity"]),
        ('model = "popularity"', ["max_steps=3"], ["r.toml", "`max_steps`"]),
        ('model = "popularity"', ["training.max_steps=x"], ["training.max_steps = 'x'"]),
        ('model = "dimerec"\n[options]\nnonsense = 1', [], ["options of dimerec", "`nonsense`"]),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, text: str, overrides: list[str], words: list[str]
):
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path / "r.toml", text), overrides)
    for word in words:
        assert word in str(caught.value)


def test_a_name_that_is_neither_file_nor_recipe(tmp_path: Path):
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for name in ("no-such-recipe", tmp_path / "none.toml", tmp_path, binary):
        with pytest.raises(ConfigError) as caught:
            config.load(name)
        assert repr(str(name)) in str(caught.value)
        for recipe in config.shipped():
            assert recipe in str(caught.value)


# The fingerprint


def test_the_fingerprint_covers_everything_but_the_description():
    one = RunConfig(model="m", about="a")
    assert one.fingerprint == RunConfig(model="m", about="b").fingerprint
    others = [
        RunConfig(model="n"),
        RunConfig(model="m", seed=1),
        RunConfig(model="m", length=51),
        RunConfig(model="m", options={"a": 1}),
        RunConfig(model="m", negatives=NegativesConfig(number=2)),
        RunConfig(model="m", training=TrainingConfig(batch_size=255)),
    ]
    assert len({one.fingerprint, *(o.fingerprint for o in others)}) == 7


def test_the_fingerprint_does_not_depend_on_key_order_or_process():
    one = RunConfig(model="m", options={"a": 1, "b": {"c": 2, "d": 3}})
    other = RunConfig(model="m", options={"b": {"d": 3, "c": 2}, "a": 1})
    assert one.fingerprint == other.fingerprint
    code = (
        "from dimerec.config import RunConfig;"
        "print(RunConfig(model='m', options={'a': 1, 'b': {'c': 2, 'd': 3}}).fingerprint)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == one.fingerprint
    assert len(one.fingerprint) == 64


def test_a_configuration_survives_json():
    one = RunConfig(model="m", options={"a": [1, 2.5, "x", True]})
    plain = json.loads(msgspec.json.encode(one))
    assert config.convert(plain, RunConfig, "json") == one
    assert config.convert(plain, RunConfig, "json").fingerprint == one.fingerprint
