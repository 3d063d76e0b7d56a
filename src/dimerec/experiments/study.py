"""A study: one table or figure of the paper, on any of several datasets, under any of its budgets.

`resolve` makes it the `Plan` of one dataset and budget; the runner knows plans alone.

Tables that hold the same rows share them, and with them the runs: `base` names another study, whose
budgets, datasets and rows are taken where the file gives none of its own. `budgets`, `datasets` and
`rows` may then be lists of those that are taken.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal

from dimerec import config
from dimerec.config import Positive, Struct
from dimerec.errors import ConfigError
from dimerec.experiments.plan import (
    Curve,
    DataPlan,
    Plan,
    Published,
    RunPlan,
    Variant,
    checked,
)

BudgetName = Literal["smoke", "paper", "strong"]


class Budget(Struct, frozen=True):
    """What every run of a table is given alike.

    Attributes:
        about: the budget in a sentence.
        seeds: how many training seeds, 0, 1, ..
        set: overrides of every run.
    """

    about: str
    seeds: Positive
    set: list[str] = []


class StudyData(Struct, frozen=True, kw_only=True):
    """A dataset that the study runs on.

    Attributes:
        data: source, protocol and filters.
        set: overrides of every run on it, such as the length of histories.
        epochs: passes over the training targets, for each budget that it is run under.
        stands_for: the paper's dataset whose numbers stand beside ours.
        note: how it differs from that one.
    """

    data: DataPlan
    set: list[str] = []
    epochs: dict[BudgetName, Positive]
    stands_for: str = ""
    note: str = ""


class StudyRun(Struct, frozen=True, kw_only=True):
    """A row.

    Attributes:
        label: its name.
        config, set: recipe and overrides under the budgets "smoke" and "paper".
        epochs: passes over the training targets, by dataset, where they are not the dataset's.
        on: further overrides by dataset, under every budget: what that data asks of this row.
        strong: recipe under the budget "strong"; without one the row is left out there.
        variants: further rows from the same weights.
        x: the value of a hyper-parameter that the row stands for, where a figure draws it.
        series: which line of that figure it is a point of; a variant is of the line of its name.
        note: a remark printed under the table.
        published: the paper's numbers, by its dataset and then metric.
    """

    label: str
    config: str
    set: list[str] = []
    epochs: dict[str, Positive] = {}
    on: dict[str, list[str]] = {}
    strong: str = ""
    variants: list[Variant] = []
    x: float | None = None
    series: str = ""
    note: str = ""
    published: dict[str, dict[str, float]] = {}


class Study(Struct, frozen=True, kw_only=True):
    """A file of `experiments/paper`.

    Attributes:
        title, about: heading, and what the table asks.
        metrics: columns.
        measures: what is measured of each row beside ranking, see `measures`.
        axis: name of the hyper-parameter that the rows' `x` are values of.
        curves: figures of what the measures give along something.
        budgets, datasets: see there.
        runs: rows.
    """

    title: str
    about: str
    metrics: tuple[str, ...]
    measures: list[str] = []
    axis: str = ""
    curves: list[Curve] = []
    budgets: dict[BudgetName, Budget]
    datasets: dict[str, StudyData]
    runs: list[StudyRun]


def folder() -> Path:
    """Where the shipped studies lie: inside an installed package, else in the repository."""
    here = Path(__file__).parent
    installed = here / "paper"
    return installed if installed.is_dir() else here.parents[2] / "experiments" / "paper"


def names() -> list[str]:
    """Names of the shipped studies, sorted."""
    return sorted(p.stem for p in folder().glob("*.toml"))


def load(name: str) -> Study:
    """A shipped study by name, or any by path.

    Raises:
        ConfigError: there is none, an unknown key, a value out of range.
    """
    path = folder() / f"{name}.toml" if name in names() else Path(name)
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        known = ", ".join(names())
        raise ConfigError(
            f"{name}: no such study, nor a readable file ({e}); known: {known}"
        ) from e
    return config.convert(_with_base(tree, str(path)), Study, str(path))


def _with_base(tree: dict[str, Any], where: str) -> dict[str, Any]:
    """The tree of a study that stands on its own.

    `published`, by row and then the paper's dataset, takes the place of what the rows say.
    """
    if "base" in tree:
        if (name := tree.pop("base")) not in names():
            raise ConfigError(
                f"{where}: no study {name!r} to stand on; known: {', '.join(names())}"
            )
        text = (folder() / f"{name}.toml").read_text("utf-8")
        base = _with_base(tomllib.loads(text), name)
        for name in ("budgets", "datasets"):
            chosen = tree.setdefault(name, base[name])
            if isinstance(chosen, list):
                tree[name] = {n: _named(base[name], n, where) for n in chosen}
        for data in tree["datasets"].values():
            data["epochs"] = {b: n for b, n in data["epochs"].items() if b in tree["budgets"]}
        rows = {run["label"]: run for run in base["runs"]}
        own = tree.get("runs", [])
        chosen = tree.pop("rows", [] if own else list(rows))
        tree["runs"] = [_named(rows, label, where) for label in chosen] + own
    if "published" in tree:
        published = tree.pop("published")
        runs = {run["label"]: run for run in tree["runs"]}
        for label in published:
            _named(runs, label, where)
        tree["runs"] = [r | {"published": published.get(r["label"], {})} for r in tree["runs"]]
    return tree


def _named(table: dict[str, Any], name: str, where: str) -> Any:
    if name not in table:
        raise ConfigError(f"{where}: there is no {name!r} among {', '.join(table)}")
    return table[name]


def resolve(
    study: Study, dataset: str, budget: str, *, seeds: int = 0, extra: tuple[str, ...] = ()
) -> Plan:
    """The plan of a study on one of its datasets under one of its budgets.

    Args:
        seeds: how many training seeds; 0 takes the budget's number.
        extra: further overrides of every run.

    Raises:
        ConfigError: the study has no such dataset or budget; a run's configuration is refused.
    """
    data = _one_of(study.datasets, dataset, "dataset", study)
    terms = _one_of(study.budgets, budget, "budget", study)
    epochs = _one_of(data.epochs, budget, f"budget for {dataset}", study)
    rows = [r for r in study.runs if budget != "strong" or r.strong]
    runs = [
        RunPlan(
            label=row.label,
            config=row.strong if budget == "strong" else row.config,
            set=[*([] if budget == "strong" else row.set), *row.on.get(dataset, [])],
            epochs=row.epochs.get(dataset, 0),
            variants=row.variants,
            note=row.note,
        )
        for row in rows
    ]
    published = [
        Published(label=row.label, source=f"the paper, {data.stands_for}", metrics=numbers)
        for row in rows
        if (numbers := row.published.get(data.stands_for))
    ]
    plan = Plan(
        title=f"{study.title}: {dataset}, budget {budget}",
        about=study.about,
        data=data.data,
        epochs=epochs,
        seeds=list(range(seeds or terms.seeds)),
        set=[*terms.set, *data.set, *extra],
        metrics=study.metrics,
        measures=study.measures,
        runs=runs,
        published=published,
        curves=study.curves,
    )
    return checked(plan, f"{study.title}, {dataset}, {budget}")


def _one_of(table: dict[Any, Any], name: str, what: str, study: Study) -> Any:
    if name not in table:
        known = ", ".join(map(str, table))
        raise ConfigError(f"{study.title}: no {what} {name!r}; there is {known}")
    return table[name]
