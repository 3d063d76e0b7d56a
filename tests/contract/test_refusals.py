"""A wrong setting fails when the recipe is loaded, for every model that has it, and the message
says which, what it was and what is allowed. Settings are found by themselves in each `Config`."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.inspect import (
    BoolType,
    FloatType,
    IntType,
    LiteralType,
    StructType,
    VarTupleType,
)

from dimerec import config, plugins
from dimerec.diffusion.schedule import ScheduleConfig
from dimerec.errors import ConfigError
from dimerec.nn.guidance import GuidanceConfig
from dimerec.nn.transformer import TransformerConfig

RECIPES = {config.load(name).model: name for name in reversed(config.shipped())}
MODELS = plugins.names("dimerec.models")
KINDS = "'dynamic-routing', 'mlp', 'rule', 'self-attentive', 'transformer'"
HEADS = "which can be 1, 2, 4, 8, 16, 32, 64"
# How many settings each model has at least: what is found must not shrink unseen.
LEAST = {"dimerec": 25, "comirec": 15, "sasrec": 10, "popularity": 0}


def refused(model: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(RECIPES[model], overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def settings(struct: StructType, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a struct and of the structs in it, by its dotted key; those too, and the
    whole under the empty key."""
    yield path, struct
    for field in struct.fields:
        name = f"{path}.{field.encode_name}".removeprefix(".")
        if isinstance(field.type, StructType):
            yield from settings(field.type, name)
        else:
            yield name, field.type


def of(model: str) -> dict[str, Any]:
    info = msgspec.inspect.type_info(plugins.load("dimerec.models", model).Config)
    assert isinstance(info, StructType)
    return dict(settings(info))


SETTINGS = [(model, key) for model in MODELS for key in of(model)]


def wrong(kind: Any) -> Iterator[tuple[Any, str]]:
    """Values that a setting of this type cannot have, and what is said to be allowed."""
    if isinstance(kind, LiteralType):
        yield "astrology", f"must be one of {', '.join(map(repr, sorted(kind.values)))}"
    elif isinstance(kind, BoolType):
        yield 2, "must be true or false"
    elif isinstance(kind, VarTupleType):
        least = f"of at least {kind.min_length}, each an integer >= 1"
        yield from [([], f"must be a list {least}"), (3, f"must be a list {least}")]
    else:
        assert isinstance(kind, IntType | FloatType), f"{kind}: say what is wrong with it"
        low = kind.ge if kind.ge is not None else kind.gt
        assert low is not None, "a number without a lower bound"
        said = "an integer" if isinstance(kind, IntType) else "a number"
        said += f" >= {low:g}" if kind.ge is not None else f" > {low:g}"
        if kind.le is not None:
            said += f" and <= {kind.le:g}"
        if kind.lt is not None:
            said += f" and < {kind.lt:g}"
        values: list[Any] = [low - 1, "'much'"] + ([low] if kind.ge is None else [])
        if (high := kind.lt if kind.lt is not None else kind.le) is not None:
            values += [high + 1] + ([high] if kind.lt is not None else [])
        for value in values:
            yield value, f"must be {said}"


@pytest.mark.parametrize("model", MODELS)
def test_settings_are_found(model: str) -> None:
    assert model in RECIPES
    assert len(of(model)) > LEAST.get(model, 2)


@pytest.mark.parametrize(("model", "key"), SETTINGS)
def test_a_value_out_of_range_is_named_with_all_that_is_allowed(model: str, key: str) -> None:
    kind = of(model)[key]
    if isinstance(kind, StructType):
        known = ", ".join(field.encode_name for field in kind.fields)
        place = f"{key}: " if key else ""
        said = f"options of {model}: {place}unknown key `widht` (known: {known})"
        assert refused(model, f"options.{key}.widht=1".replace("..", ".")) == said
        return
    for value, allowed in wrong(kind):
        shown = "'astrology'" if value == "astrology" else value
        said = f"options of {model}: {key} = {shown}: {allowed}"
        assert refused(model, f"options.{key}={value}") == said


def having(struct: type, *keys: str) -> list[str]:
    """Models whose `Config` holds `struct` and has `keys`."""
    found = []
    for model in MODELS:
        held = {kind.cls for kind in of(model).values() if isinstance(kind, StructType)}
        if struct in held and set(keys) <= of(model).keys():
            found.append(model)
    return found


def test_who_has_what() -> None:
    """The tables below hold those that are meant, and whoever joins them."""
    assert {"dimerec", "comirec"} <= set(having(GuidanceConfig))
    assert {"dimerec", "dreamrec", "diffurec"} <= set(having(ScheduleConfig, "steps"))
    assert {"sasrec", "dreamrec"} <= set(having(TransformerConfig, "transformer.heads"))
    assert {"bert4rec", "diffurec"} <= {m for m in MODELS if "heads" in of(m)}


@pytest.mark.parametrize("model", having(GuidanceConfig))
def test_the_guidance(model: str) -> None:
    said = f"options of {model}: guidance.kind = 'astrology': must be one of {KINDS}"
    assert refused(model, "options.guidance.kind=astrology") == said
    said = f"options of {model}: guidance.interests = 0: must be an integer >= 1"
    assert refused(model, "options.guidance.interests=0") == said


@pytest.mark.parametrize(
    ("model", "key"),
    [(model, key) for model, key in SETTINGS if key.split(".")[-1] in ("dropout", "item_dropout")],
)
def test_dropout_of_two(model: str, key: str) -> None:
    said = f"options of {model}: {key} = 2: must be a number >= 0 and < 1"
    assert refused(model, f"options.{key}=2") == said


@pytest.mark.parametrize(
    ("model", "key"), [(model, key) for model, key in SETTINGS if key.split(".")[-1] == "heads"]
)
def test_heads_that_do_not_divide_the_width(model: str, key: str) -> None:
    overrides = ["options.width=64", f"options.{key}=3"]
    if key.startswith("guidance."):
        config.load(RECIPES[model], overrides)  # who has no transformer has no heads
        overrides.append("options.guidance.kind=transformer")
    said = f"options of {model}: width = 64 must be divisible by {key} = 3, {HEADS}"
    assert refused(model, *overrides) == said


@pytest.mark.parametrize("model", having(ScheduleConfig, "steps"))
def test_more_steps_than_the_schedule_has(model: str) -> None:
    least = of(model)["steps"].ge
    total = "options.schedule.steps=20"
    config.load(RECIPES[model], [total, "options.steps=20"])
    said = f"options of {model}: steps = 21 must be in {least}..T = 20 (schedule.steps)"
    assert refused(model, total, "options.steps=21") == said
    said = f"options of {model}: schedule.steps = 0: must be an integer >= 1"
    assert refused(model, "options.schedule.steps=0") == said


def test_other_steps_than_there_are() -> None:
    config.load("dimerec", ["options.rollout=0"])
    said = "options of dimerec: rollout = 30 must be in 0..T = 20 (schedule.steps)"
    assert refused("dimerec", "options.rollout=30") == said
    said = "options of diffrec: corrupted = 41 must be in 0..T = 40 (steps)"
    assert refused("diffrec", "options.corrupted=41") == said


# Negatives that would be drawn, and left alone.

TAKES_NONE = [
    ("dreamrec", [], "squared error compares with the target alone"),
    ("diffrec", [], "loss = 'squared' compares with all items; loss = 'softmax' takes negatives"),
    ("diffrec", ["options.predict=window"], "predict = 'window' compares with all items"),
    ("multvae", ["options.predict=window"], "predict = 'window' compares with all items"),
]


@pytest.mark.parametrize(("model", "overrides", "why"), TAKES_NONE)
@pytest.mark.parametrize("kind", ["uniform", "log-uniform", "in-batch"])
def test_a_loss_without_negatives_takes_none(
    model: str, overrides: list[str], why: str, kind: str
) -> None:
    config.load(RECIPES[model], [*overrides, "negatives.kind=none"])
    said = f"negatives.kind = '{kind}': must be 'none' for {model}, whose {why}"
    assert refused(model, *overrides, f"negatives.kind={kind}") == said


@pytest.mark.parametrize("model", MODELS)
def test_shared_negatives_cannot_be_masked_by_each_rows_window(model: str) -> None:
    recipe = RECIPES[model]
    wanted = ["negatives.exclude=window", "negatives.private=false"]
    said = (
        f'{recipe}: negatives: exclude = "window" needs private = true: shared negatives are '
        'masked by "target" only'
    )
    for kind in ("uniform", "log-uniform"):
        assert refused(model, *wanted, f"negatives.kind={kind}") == said
