"""Strict, frozen configuration: TOML with dotted overrides, and its fingerprint.

A run's TOML names a model, its `[options]` (the model file's own `Config`), `[negatives]` and
`[training]`. Unknown keys and values out of range fail at load, naming field, value and range.
"""

import hashlib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from dimerec import plugins
from dimerec.errors import ConfigError

T = TypeVar("T")
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0.0, lt=1.0)]
Weight = Annotated[float, Meta(ge=0.0)]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every configuration struct: unknown keys forbidden, and frozen.

    Subclasses say `frozen=True` again: they inherit it, but type checkers cannot know.
    """


class NegativesConfig(Struct, frozen=True):
    """Which negatives a batch carries.

    Attributes:
        kind: "none" (full softmax, or a loss without), "uniform" over the catalogue,
            "log-uniform" by popularity rank, or "in-batch" (the batch's own targets).
        number: M; for "in-batch" an upper bound.
        private: draw `number` for every position instead of `number` shared by the batch.
        exclude: mask a negative equal to the position's "target", or any item of its "window"
            (the paper's "items that the user has not interacted with"), which drawn negatives
            can be where they are private; of in-batch negatives each row then keeps those of the
            other rows.
    """

    kind: Literal["none", "uniform", "log-uniform", "in-batch"] = "none"
    number: Positive = 1
    private: bool = False
    exclude: Literal["target", "window"] = "target"

    def __post_init__(self) -> None:
        if self.private and self.kind == "in-batch":
            raise ValueError("in-batch negatives are shared: private must be false")
        drawn = self.kind in ("uniform", "log-uniform")
        if drawn and self.exclude == "window" and not self.private:
            raise ValueError(
                'exclude = "window" needs private = true: shared negatives are masked by "target" '
                "only"
            )


class TrainingConfig(Struct, frozen=True):
    """The one training loop's settings.

    Attributes:
        max_steps: optimiser steps at most.
        epochs: passes over the training targets at most; 0 leaves it to `max_steps` alone.
        batch_size: windows a step (models that learn from all positions) or examples ("last").
        learning_rate, weight_decay: Adam's.
        clip_norm: gradient norm limit; 0 switches it off.
        validate_every: steps between validations (and checkpoints).
        validation_queries: at most this many validation queries, evenly spread; 0 takes all.
        metric: ranking metric on the validation split that picks the best checkpoint.
        patience: validations without improvement before stopping; 0 never stops early.
        device: "auto" takes CUDA when it is there.
        precision: "bfloat16" runs the forward pass under autocast.
    """

    max_steps: Positive = 3000
    epochs: NonNegative = 0
    batch_size: Positive = 256
    learning_rate: Annotated[float, Meta(gt=0.0)] = 0.001
    weight_decay: Weight = 0.0
    clip_norm: Weight = 0.0
    validate_every: Positive = 500
    validation_queries: NonNegative = 5000
    metric: Annotated[str, Meta(pattern=r"^(hr|ndcg|mrr)@[1-9][0-9]*$")] = "ndcg@20"
    patience: NonNegative = 0
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"


class RunConfig(Struct, frozen=True):
    """Everything that decides a run, apart from the data.

    Attributes:
        model: name of a file in `dimerec.models`.
        about: one line on what this recipe is.
        seed: every random number of the run follows from it.
        length: L, the longest history a model is given.
        options: the model's own `Config`, as plain values.
        negatives, training: see there.
    """

    model: str
    about: str = ""
    seed: NonNegative = 0
    length: Positive = 50
    options: dict[str, Any] = {}
    negatives: NegativesConfig = NegativesConfig()
    training: TrainingConfig = TrainingConfig()

    def model_config(self) -> Any:
        """The model's `Config` struct made of `options`; ConfigError names field and range.

        A `Config`, or its `softmax`, may say by a property `needs_negatives` that its loss is made
        of sampled negatives; `negatives.kind = "none"` is refused then.
        """
        module = plugins.load("dimerec.models", self.model)
        options = convert(self.options, module.Config, f"options of {self.model}")
        needs = getattr(getattr(options, "softmax", None), "needs_negatives", False)
        if self.negatives.kind == "none" and getattr(options, "needs_negatives", needs):
            raise ConfigError(
                f"options of {self.model}: the loss is made of sampled negatives: set "
                'negatives.kind to "uniform", "log-uniform" or "in-batch"'
            )
        return options

    def check(self) -> None:
        """Refuse what cannot be trained, or would not be what it says: `model_config`, and
        negatives that are drawn for a loss without.

        Why its loss takes none, a `Config` says by a property `without_negatives`, which is empty
        where it takes them. Bundles are opened without this: there no loss is asked for.

        Raises:
            ConfigError: it names field, value and what is allowed.
        """
        why = getattr(self.model_config(), "without_negatives", "")
        if why and self.negatives.kind != "none":
            raise ConfigError(
                f"negatives.kind = {self.negatives.kind!r}: must be 'none' for {self.model}, whose "
                f"{why}"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON; `about` does not count."""
        plain = msgspec.to_builtins(self)
        plain.pop("about")
        return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def convert(value: Any, kind: type[T], where: str) -> T:
    """`value` (plain dicts and lists) as the struct `kind`; ConfigError says where and why.

    Every number must be finite, whatever its field's bounds.
    """
    for path, number in _floats(value):
        if not math.isfinite(number):
            raise ConfigError(f"{where}: {path} = {number}: must be a finite number")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{where}: {_explain(str(e), value, kind)}") from e


def _floats(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every float in a tree of plain values, with its dotted path."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from _floats(part, f"{path}.{key}" if path else str(key))


def _explain(message: str, value: Any, kind: type) -> str:
    """msgspec's message with the field in front, the offending value and all that is allowed."""
    reason, _, place = message.partition(" - at `$")
    path = re.findall(r"\w+", place)
    field: Any = msgspec.inspect.type_info(kind)
    for step in path:
        if isinstance(field, msgspec.inspect.StructType) and isinstance(value, dict):
            field = next((f.type for f in field.fields if f.encode_name == step), None)
            value = value[step]
        elif isinstance(value, list | tuple) and step.isdecimal():
            field = getattr(field, "item_type", None)
            value = value[int(step)]
        else:
            return f"{'.'.join(path)}: {reason}"
    name = ".".join(path)
    if isinstance(field, msgspec.inspect.StructType) and isinstance(value, dict):
        if reason.startswith("Object contains unknown field"):
            reason = reason.replace("Object contains unknown field", "unknown key")
            reason += f" (known: {', '.join(f.encode_name for f in field.fields)})"
        reason = reason.replace("Object missing required field", "missing key")
        return f"{name}: {reason}" if name else reason
    return f"{name} = {value!r}: {_allowed(field) or reason}"


def _allowed(field: Any) -> str:
    """What the type of a field admits, in words; empty when msgspec's own words must do."""
    if isinstance(field, msgspec.inspect.StructType):
        return f"must be a table of settings: {', '.join(f.encode_name for f in field.fields)}"
    if isinstance(field, msgspec.inspect.LiteralType):
        return f"must be one of {', '.join(map(repr, field.values))}"
    if isinstance(field, msgspec.inspect.StrType) and field.pattern:
        return f"must be text matching {field.pattern}"
    if isinstance(field, msgspec.inspect.BoolType):
        return "must be true or false"
    if isinstance(field, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        least = f" of at least {field.min_length}" if field.min_length else ""
        each = _allowed(field.item_type).removeprefix("must be ")
        return f"must be a list{least}" + (f", each {each}" if each else "")
    if isinstance(field, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        bounds = {">=": field.ge, ">": field.gt, "<=": field.le, "<": field.lt}
        kind = "an integer" if isinstance(field, msgspec.inspect.IntType) else "a number"
        limits = [f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None]
        return f"must be {kind} {' and '.join(limits)}".rstrip()
    return ""


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    files = resources.files("dimerec.configs").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load(name: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The recipe of a shipped name or a TOML path, with `key.sub=value` overrides applied.

    Raises:
        ConfigError: no such recipe, broken TOML, unknown key, value out of range; the model's
            own options are checked too.
    """
    text, where = _read(name)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{where}: not valid TOML: {e}") from e
    for item in overrides:
        override(tree, item)
    config = convert(tree, RunConfig, where)
    config.check()
    return config


def override(tree: dict[str, Any], item: str) -> None:
    """Set one `dotted.key=value` in `tree`; the value is read as TOML, else taken as text."""
    dotted, equals, text = item.partition("=")
    if not equals or not dotted.strip():
        raise ConfigError(f"override {item!r}: write it as key.sub=value")
    *path, last = parts = dotted.strip().split(".")
    if not all(parts):
        raise ConfigError(f"override {item!r}: {dotted.strip()!r} has an empty part")
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {item!r}: {part} is a value, not a table")
    try:
        tree[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        tree[last] = text.strip()


def _read(name: str | Path) -> tuple[str, str]:
    path = Path(name)
    try:
        if str(name) in shipped():
            file = resources.files("dimerec.configs") / f"{name}.toml"
            return file.read_text("utf-8"), str(name)
        return path.read_text("utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            f"no recipe {str(name)!r}: neither a readable TOML file nor a shipped name "
            f"({', '.join(shipped())})"
        ) from e
