"""`dimerec tune`: find a model's own best settings on the validation split."""

from pathlib import Path
from typing import Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json


def tune(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder prepare made.")],
    out: Annotated[Path, typer.Option("--out", help="The search's folder.")],
    config: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The recipe that is tuned.")
    ] = "dimerec",
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Settings tried in all.")] = 20,
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Passes over the training targets, each trial.")
    ] = 3,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="Where to look: low..high, low..high:log or a,b,c. May be given several times; "
            "without it, the model's own space: learning rate, temperature, dropout, width.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of every trial."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the search.")] = 0,
    json: Json = False,
) -> None:
    """Try settings of a recipe and write the best of them as a recipe.

    The test split is never looked at: trials are compared by the recipe's own
    metric on the validation split. Give every model the same --trials and
    --epochs, and they have been tuned alike. Stopped, the same command goes on.

      dimerec tune data/ml --config sasrec --out tuned/sasrec --trials 20
      dimerec tune data/ml --config dimerec --out tuned/narrow \\
          --space training.learning_rate=0.001..0.01:log \\
          --space options.width=32,64
      dimerec train data/ml --config tuned/sasrec/best.toml --out runs/sasrec

    In the folder: trials.jsonl (one line a trial), best.toml, search.json.
    """
    from dimerec import config as configs
    from dimerec.data.dataset import Dataset
    from dimerec.experiments import tuning
    from dimerec.experiments.tuning import Trial

    console = output.err()
    overrides = tuple(changes or ())
    model = configs.load(config, overrides).model

    def told(trial: Trial) -> None:
        score = "failed" if trial.score is None else f"{trial.score:.4f}"
        values = ", ".join(f"{k} {_short(v)}" for k, v in trial.values.items())
        console.print(f"trial {trial.number}: {score}  ({values})", highlight=False)

    done = tuning.tune(
        Dataset.open(dataset),
        config,
        out,
        trials=trials,
        epochs=epochs,
        space=tuning.space(model, space or []),
        changes=overrides,
        seed=seed,
        report=told,
    )
    best = tuning.best(done)
    if json:
        return output.document({"trials": done, "best": best})
    if best is None:
        output.line(f"All {len(done)} trials failed; the last: {done[-1].error}")
        raise typer.Exit(1)
    rows = [[key, _short(value)] for key, value in best.values.items()]
    output.table(
        f"Trial {best.number} of {len(done)}: {best.score:.4f}", ["setting", "value"], rows
    )
    output.line(f"Written to {out / tuning.BEST}.")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
