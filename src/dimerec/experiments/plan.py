"""A plan: one dataset, one protocol, one budget, and the runs to be compared under them."""

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dimerec import config
from dimerec.config import NonNegative, Positive, RunConfig, Struct
from dimerec.errors import ConfigError
from dimerec.evaluation.metrics import CUTOFFS, METRICS

WATCHED = "gradients"  # the measure that is taken while a run trains


class DataPlan(Struct, frozen=True):
    """Which data, and how it is prepared (see `dimerec.data.prepare.prepare`).

    Attributes:
        source: name of a source.
        protocol, split_seed: how users or events are split; the same split for every seed.
        min_user_events, min_item_events, iterate: filters.
        positions: which positions of the evaluated users count.
        hide_seen: whether earlier items of the user are taken from the candidates.
    """

    source: str
    protocol: str = "users-8-1-1"
    split_seed: int = 0
    min_user_events: Positive = 2
    min_item_events: Positive = 1
    iterate: bool = True
    positions: str = "every-position"
    hide_seen: bool = False


class Variant(Struct, frozen=True):
    """One more row of the table from the same weights, with other sampling options.

    Attributes:
        label: name of the row.
        options: options of the model that no weight depends on, e.g. `steps`.
    """

    label: str
    options: dict[str, Any] = {}


class Target(Struct, frozen=True):
    """Figures that others published for a model under the plan's protocol: what to reach.

    Attributes:
        source: whose, and where they stand.
        metrics: for example `{"hr@20" = 0.6064}`.
        tolerance: relative difference that still counts as the same.
        explained: what was tested to account for a difference above that; printed with one.
    """

    source: str
    metrics: dict[str, float]
    tolerance: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.05
    explained: str = ""


class RunPlan(Struct, frozen=True):
    """One configuration, trained once for each seed.

    Attributes:
        label: name of the row.
        config: a shipped recipe.
        set: overrides, `key.sub=value`, applied after the plan's own.
        epochs: passes over the training targets where they differ from the plan's; 0: they do not.
        variants: further rows from the same weights.
        note: a remark printed under the table.
        published: figures that this row is held against.
        seeds: those of the plan's that it is run with, where fewer show what it is for; empty: all.
    """

    label: str
    config: str
    set: list[str] = []
    epochs: NonNegative = 0
    variants: list[Variant] = []
    note: str = ""
    published: list[Target] = []
    seeds: list[int] = []

    @property
    def labels(self) -> list[str]:
        """Of the rows that it gives: its own, and one for each variant."""
        return [self.label, *(f"{self.label}, {v.label}" for v in self.variants)]


class Published(Struct, frozen=True):
    """Numbers from elsewhere to stand beside ours.

    Attributes:
        label, source: what and from where.
        metrics: for example `{"hr@20" = 0.0648}`.
    """

    label: str
    source: str
    metrics: dict[str, float]


class Curve(Struct, frozen=True, kw_only=True):
    """A figure of metrics that are given along something, "NAME/X" (see `measures`).

    One name gives one picture with a line for each row; several give a picture for each row.

    Attributes:
        file: name of the picture, without ending.
        names: metrics.
        x, y: what the axes show.
        over: the metric that is drawn across instead of X, such as a time.
        relative: lines are drawn as shares of their first value.
    """

    file: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")]
    names: Annotated[list[str], Meta(min_length=1)]
    x: str
    y: str
    over: str = ""
    relative: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """An experiment file.

    Attributes:
        title, about: heading and what the table answers.
        data: see there.
        epochs: how often each run sees each training target: the equal budget, but for runs that
            name their own.
        seeds: of initialisation, order, negatives and noise.
        set: overrides applied to every run that learns.
        metrics: columns of the table.
        measures: what is measured of each row beside ranking, see `measures`.
        runs, published: rows.
        curves: figures of what is measured along something.
    """

    title: str
    about: str
    data: DataPlan
    epochs: Positive
    seeds: list[int]
    set: list[str] = []
    metrics: tuple[str, ...] = ("hr@20", "hr@50", "ndcg@20")
    measures: list[str] = []
    runs: list[RunPlan]
    published: list[Published] = []
    curves: list[Curve] = []

    @property
    def trainings(self) -> list[tuple[RunPlan, int]]:
        """Each run with each of its seeds, seed by seed."""
        pairs = [(run, seed) for seed in self.seeds for run in self.runs]
        return [(run, seed) for run, seed in pairs if seed in (run.seeds or self.seeds)]


def load(path: str | Path) -> Plan:
    """Read an experiment file; every run's configuration is loaded, so that a slip shows now.

    Raises:
        ConfigError: unreadable, an unknown key, a value out of range, two rows of one label, a seed
            that is not the plan's, a published metric that no result has.
    """
    path = Path(path)
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise ConfigError(f"{path}: no readable experiment ({e})") from e
    return checked(config.convert(tree, Plan, str(path)), str(path))


def checked(plan: Plan, where: str) -> Plan:
    """The plan itself, if every run's configuration can be loaded and no two rows share a name.

    Raises:
        ConfigError: as `load`; the message begins with `where`.
    """
    labels = [label for run in plan.runs for label in run.labels]
    twice = {name for name in labels if labels.count(name) > 1}
    if twice:
        raise ConfigError(f"{where}: two rows are labelled {min(twice)!r}")
    known = {f"{kind}@{n}" for kind in METRICS for n in CUTOFFS}
    for run in plan.runs:
        recipe(plan, run, plan.seeds[0])
        if others := set(run.seeds) - set(plan.seeds):
            raise ConfigError(
                f"{where}: {run.label!r} has seed {min(others)}, which is not one of the plan's; "
                f"those are {', '.join(map(str, plan.seeds))}"
            )
        for name in (m for target in run.published for m in target.metrics):
            if name not in known:
                raise ConfigError(
                    f"{where}: {run.label!r} has a published {name!r}, which no evaluation gives; "
                    f"those are {', '.join(METRICS)}, each at {', '.join(map(str, CUTOFFS))}"
                )
    return plan


def recipe(plan: Plan, run: RunPlan, seed: int) -> RunConfig:
    """The configuration of one run and seed, under the plan's budget."""
    epochs = run.epochs or plan.epochs
    budget = [f"training.epochs={epochs}", "training.max_steps=1000000000"]
    return config.load(run.config, [*plan.set, *run.set, *budget, f"seed={seed}"])


def fingerprint(plan: Plan, run: RunPlan, seed: int) -> str:
    """What a result depends on, hashed: data plan, configuration, measures (hex, 16 digits)."""
    return _hashed(plan, run, seed, run.variants, plan.measures)


def trained(plan: Plan, run: RunPlan, seed: int) -> str:
    """What a run folder depends on, hashed: tables that share a run train it once. Whether a test
    hides seen items is nothing that training knows of."""
    kept = msgspec.structs.replace(plan, data=msgspec.structs.replace(plan.data, hide_seen=False))
    return _hashed(kept, run, seed, [], [WATCHED] if WATCHED in plan.measures else [])


def _hashed(
    plan: Plan, run: RunPlan, seed: int, variants: list[Variant], measures: list[str]
) -> str:
    plain = [msgspec.to_builtins(plan.data), recipe(plan, run, seed).fingerprint]
    plain.append(msgspec.to_builtins(variants))
    if measures:
        plain.append(measures)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()[:16]
