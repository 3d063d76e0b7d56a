"""`dimerec train`: from a dataset to a run folder with a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json
from dimerec.cli.verbs import INTERRUPTED

if TYPE_CHECKING:
    from dimerec.config import RunConfig
    from dimerec.data.dataset import Dataset
    from dimerec.training.run import Run

DEFAULT = "dimerec"


def train(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder prepare made.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder, a new one.")],
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A shipped recipe (dimerec models lists them) or a TOML file.  "
            f"\\[default: {DEFAULT}; with --resume the run's own]",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting of the recipe, as in training.max_steps=200, seed=1, "
            "options.width=32, training.device=cpu. May be given several times.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="CPU threads; the same number makes a resumed run exactly the same.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log to OUT/tensorboard, too.")
    ] = False,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Log to MLflow, too (at MLFLOW_TRACKING_URI).")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model on a dataset.

    The progress shows the losses, targets a second and the last validation;
    the weights that were best on the validation part are kept. Ctrl-C ends
    after the step at hand and leaves a run that can be used, and gone on with.

      dimerec train data/ml --out runs/ml
      dimerec train data/ml --out runs/short --config sasrec \\
          --set training.max_steps=200
      dimerec train data/ml --out runs/ml --resume

    In the run folder: bundle/ (what evaluate, recommend and serving read),
    metrics.jsonl (every number logged), run.json (the summary), config.json,
    checkpoint/.
    """
    from dimerec.data.dataset import Dataset
    from dimerec.training import loop

    opened = Dataset.open(dataset)
    run = loop.train(
        opened,
        _config(config, changes or [], out if resume else None),
        out,
        resume=resume,
        threads=threads,
        trackers=[n for n, on in (("tensorboard", tensorboard), ("mlflow", mlflow)) if on],
    )
    if json:
        output.document({**_plain(run), "bundle": run.bundle})
    else:
        _summary(run, opened)
    if run.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _config(name: str | None, changes: list[str], run: Path | None) -> "RunConfig":
    """The recipe; that of `run`, a folder to go on with, where no other is named."""
    import msgspec

    from dimerec import config
    from dimerec.errors import ConfigError

    stored = run / "config.json" if run is not None and name is None else None
    if stored is None or not stored.is_file():
        return config.load(name or DEFAULT, changes)
    try:
        tree = msgspec.json.decode(stored.read_bytes(), type=dict)
    except msgspec.DecodeError as e:
        raise ConfigError(f"{stored}: not a configuration ({e}); name one with --config") from e
    for change in changes:
        config.override(tree, change)
    return config.convert(tree, config.RunConfig, str(stored))


def _summary(run: "Run", dataset: "Dataset") -> None:
    ended = {
        "finished": "finished",
        "early": "stopped early, for the validation did not improve any more,",
        "interrupted": "was interrupted",
    }[run.stopped]
    steps = f"after {run.steps:,} steps, " if run.steps else ""
    output.line(f"{run.model} {ended} {steps}{run.seconds:.1f} s of training.", "bold")
    facts = [
        ("parameters", run.parameters),
        ("targets seen", run.targets),
        ("targets a second", round(run.targets_per_second)),
        ("device, threads", f"{run.device}, {run.threads}"),
    ]
    if run.best is not None:
        facts.insert(0, (f"best {run.metric}, validation", f"{run.best:.4f}"))
        if run.steps:
            facts.insert(1, ("reached at step", run.best_step))
    output.facts(facts)
    output.line(f"The bundle is {run.bundle} ({run.weights} weights).")
    newest = dataset.items[max(0, int(dataset.offsets[1]) - 3) : int(dataset.offsets[1])]
    history = ",".join(map(str, dataset.vocabulary.ids(newest.tolist())))
    following = [
        ("dimerec", "evaluate", run.bundle, dataset.path),
        ("dimerec", "recommend", run.bundle, "--history", history),
    ]
    if run.stopped == "interrupted":
        following.insert(0, ("dimerec", "train", dataset.path, "--out", run.path, "--resume"))
    output.commands("Next", *following)


def _plain(run: "Run") -> dict:
    import msgspec

    return msgspec.structs.asdict(run)
