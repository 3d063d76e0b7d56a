"""The demo: six models on the embedded MovieLens log, one split, one budget, one table.

Everything is real: the models, the loop, the evaluation and the bundles are those of the package.
The learned models get the same number of optimiser steps, and their settings were chosen on
validation users alone.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from dimerec import config, plugins
from dimerec.bundle import Bundle
from dimerec.config import Positive, RunConfig, Struct
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError
from dimerec.evaluation import metrics
from dimerec.evaluation.evaluator import Evaluation, evaluate
from dimerec.evaluation.intervals import Interval, difference, interval
from dimerec.evaluation.ranking import best
from dimerec.experiments.processes import Note, side_by_side
from dimerec.files import write_file
from dimerec.model import CountingModel
from dimerec.training import process
from dimerec.training.loop import train
from dimerec.training.run import Run

METRIC, SHORT = "hr@20", 20
OWN = ("data", "runs", "report.html", "demo.json")  # all that a demo writes
LABELS = {
    "dimerec": "DimeRec",
    "dimerec-none": "DimeRec (x_t = 0)",
    "sasrec": "SASRec",
    "comirec": "ComiRec",
    "cooccurrence": "Co-occurrence",
    "popularity": "Popularity",
}


class Settings(Struct, frozen=True):
    """What the demo trains and how it scores; the defaults are `dimerec demo`.

    Every position of users never seen in training is scored: 61 users, but 6,296 queries, so that
    a paired difference of close models has a 95 % interval of about ± 0.7 points of HR@20. One
    query each of all 610 users (leave-one-out) leave about ± 1.3.

    Attributes:
        source, protocol, positions: data, split and scored positions.
        min_item_events: rarer items are left out, so that each can be learned.
        recipes: shipped recipes with their labels, in the order of the table; the first is the one
            the others are compared with.
        changes: overrides of every recipe that learns, the equal budget among them.
        lists: evaluated lists that give coverage and categories.
    """

    source: str = "ml-latest-small"
    protocol: str = "users-8-1-1"
    positions: str = "every-position"
    min_item_events: Positive = 10
    recipes: dict[str, str] = msgspec.field(default_factory=LABELS.copy)
    changes: tuple[str, ...] = (
        "length=50",
        "options.softmax.temperature=0.15",
        "negatives.kind=none",
        "training.max_steps=1000",
        "training.batch_size=16",
        "training.learning_rate=0.004",
        "training.validate_every=100",
        "training.validation_queries=1000",
    )
    lists: Positive = 1000

    def recipe(self, name: str, seed: int) -> RunConfig:
        """The configuration of one row; a model that counts keeps its own options."""
        module = plugins.load("dimerec.models", config.load(name).model)
        counts = issubclass(module.Model, CountingModel)
        changes = [c for c in self.changes if not (counts and c.startswith("options."))]
        return config.load(name, [*changes, f"seed={seed}", "training.device=cpu"])


@dataclass(frozen=True, eq=False)
class Row:
    """One model of the table.

    Attributes:
        recipe, label: its name in the package and in the table.
        run, evaluation: what was trained, and its scores on the test users.
        short_categories: mean number of categories in a list of 20.
        within: 95 % interval of `METRIC` over resampled test users.
        gap: the same of this row's metric less the first row's.
    """

    recipe: str
    label: str
    run: Run
    evaluation: Evaluation
    short_categories: float
    within: Interval
    gap: Interval

    @property
    def metrics(self) -> dict[str, float]:
        """The evaluation's, and the categories of the short list."""
        return {**self.evaluation.metrics, f"categories@{SHORT}": self.short_categories}

    @property
    def learned(self) -> bool:
        """Whether it was fitted by gradient steps."""
        return self.run.steps > 0


@dataclass(frozen=True, eq=False)
class Demo:
    """A finished demo.

    Attributes:
        out: its folder: `data/`, `runs/RECIPE/`, `demo.json`, `report.html`.
        seconds: wall time of each stage.
    """

    out: Path
    seed: int
    settings: Settings
    dataset: Dataset
    rows: list[Row]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """Where the report is written."""
        return self.out / "report.html"

    def row(self, recipe: str) -> Row:
        """The row of a recipe."""
        return next(r for r in self.rows if r.recipe == recipe)

    def bundle(self, recipe: str) -> Bundle:
        """The bundle of a recipe, opened."""
        return Bundle.open(self.row(recipe).run.bundle)

    def protocol(self) -> str:
        """How the numbers came about, in words."""
        card, whole = self.rows[0].evaluation.card, self.dataset.card
        steps = max(r.run.steps for r in self.rows)
        size = self.settings.recipe(self.rows[0].recipe, self.seed).training.batch_size
        part = {n: whole.splits[n].users for n in ("train", "valid", "test")}
        return (
            f"{whole.name}: {whole.events:,} events of {whole.users:,} users on {whole.items:,} "
            f"films with at least {self.settings.min_item_events} ratings. Users are split by seed "
            f"{card.protocol.seed} into {part['train']} for training, {part['valid']} for "
            f"validation and {part['test']} for test. Each of the test users' {card.queries:,} "
            f"events with a history before it is a query ({card.positions}): its film is ranked "
            f"against all {whole.items:,}, seen ones {'hidden' if card.hide_seen else 'kept'}. "
            f"Every learned model has {steps:,} steps of {size} windows and keeps the weights that "
            f"ranked the validation users best; seed {self.seed} for training and for noise, one "
            "run each. The settings were chosen on the validation users alone."
        )

    def document(self) -> dict[str, Any]:
        """The table and its protocol as plain values, for programs."""
        first = msgspec.to_builtins(self.rows[0].evaluation.card)
        own = ("model", "weights", "sampling")  # of the row, not of the protocol
        return {
            "protocol": {"words": self.protocol()}
            | {name: value for name, value in first.items() if name not in own},
            "settings": msgspec.to_builtins(self.settings),
            "seed": self.seed,
            "metric": METRIC,
            "rows": [
                {
                    "recipe": row.recipe,
                    "label": row.label,
                    "metrics": row.metrics,
                    "interval": row.within,
                    f"minus_{self.rows[0].recipe}": row.gap,
                    "sampling": row.evaluation.card.sampling,
                    "weights": row.evaluation.card.weights,
                    "steps": row.run.steps,
                    "best_step": row.run.best_step,
                    "parameters": row.run.parameters,
                    "targets": row.run.targets,
                    "seconds": row.run.seconds,
                    "cpu_seconds": row.run.cpu_seconds,
                }
                for row in self.rows
            ],
            "seconds": self.seconds,
            "report": str(self.report),
        }


def run(
    out: str | Path,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    jobs: int = 1,
    progress: Callable[[Note], object] = lambda note: None,
) -> Demo:
    """Prepare, train and score; leaves `data/`, `runs/` and `demo.json` in `out`.

    An earlier demo in `out` is replaced. Every model is trained and scored by one thread, so the
    numbers do not depend on `jobs`.

    Args:
        seed: of initialisation, order, negatives and noise; the split is the same for every seed.
        jobs: models at once, each in a process of its own; 1 stays in this one.
        progress: told (row, step, steps, what it does) as the work goes on.

    Raises:
        ConfigError: `out` holds something else than an earlier demo.
        DimeRecError: a model failed; says which.
    """
    out, settings = Path(out), settings or Settings()
    start = time.perf_counter()
    _clear(out)
    dataset = _prepare(out / "data", settings)
    seconds = {"preparing": time.perf_counter() - start}
    start = time.perf_counter()
    work = {name: (name, settings, seed, dataset.path, out) for name in settings.recipes}
    done = side_by_side(_fit, work, jobs, progress)
    seconds["training and scoring"] = time.perf_counter() - start
    reference = done[next(iter(settings.recipes))][1]
    rows = [
        Row(
            recipe=name,
            label=label,
            run=done[name][0],
            evaluation=done[name][1],
            short_categories=done[name][2],
            within=interval(done[name][1], METRIC),
            gap=difference(done[name][1], reference, METRIC),
        )
        for name, label in settings.recipes.items()
    ]
    return Demo(out, seed, settings, dataset, rows, seconds)


def write(demo: Demo) -> None:
    """Write the document to `demo.json`."""
    content = msgspec.json.encode(demo.document())
    write_file(demo.out / "demo.json", msgspec.json.format(content, indent=2))


def _clear(out: Path) -> None:
    """Make `out` an empty folder; what an earlier demo left there goes."""
    if out.exists() and not (out.is_dir() and all(_is_own(p.name) for p in out.iterdir())):
        raise ConfigError(f"{out} is not the folder of an earlier demo; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_own(name: str) -> bool:
    """Whether a demo writes this, whole or, when it is killed, in part."""
    return any(name == own or name.startswith(f".{own}.") for own in OWN)


def _prepare(path: Path, settings: Settings) -> Dataset:
    from dimerec.data import sources
    from dimerec.data.prepare import prepare

    source = sources.get(settings.source)
    loaded = sources.read(settings.source, source.embedded)
    return prepare(
        loaded.log,
        path,
        protocol=settings.protocol,
        min_user_events=5,
        min_item_events=settings.min_item_events,
        items=loaded.items,
        name=settings.source,
    )


def _fit(
    tell: Callable[[int, int, str], object],
    name: str,
    settings: Settings,
    seed: int,
    data: Path,
    out: Path,
) -> tuple[Run, Evaluation, float]:
    """Train one row and score it; run, evaluation, categories in a list of 20."""
    with process.settings(torch.device("cpu"), 1):
        dataset = Dataset.open(data)
        recipe = settings.recipe(name, seed)
        steps = recipe.training.max_steps
        tell(0, steps, "training")

        def logged(entry: dict[str, Any]) -> None:
            if "losses" in entry:
                tell(entry["step"], steps, "training")

        done = train(dataset, recipe, out / "runs" / name, threads=1, progress=logged)
        if done.stopped == "interrupted":
            raise KeyboardInterrupt
        tell(steps, steps, "scoring")
        bundle = Bundle.open(done.bundle)
        scored = evaluate(
            bundle,
            dataset,
            positions=settings.positions,
            seed=seed,
            device="cpu",
            lists=settings.lists,
        )
        queries = dataset.queries("test", settings.positions, settings.lists)
        lists = best(bundle.model(), queries, SHORT, length=recipe.length, seed=seed)
        known = [item.categories for item in dataset.metadata()]
        tell(steps, steps, "done")
        return done, scored, metrics.categories(lists, known)
