"""The command line: one function a verb. It parses, calls the package and prints, no more.

Nothing heavy is imported before a verb runs, so that `dimerec --help` answers at once.
"""

import io
import sys
from typing import Annotated

import typer
from typer.main import get_command

import dimerec
from dimerec.cli import (
    audit,
    compare,
    demo,
    diagnose,
    doctor,
    evaluate,
    export,
    index,
    models,
    prepare,
    protocols,
    recommend,
    replay,
    reproduce,
    serve,
    sources,
    train,
    tune,
)
from dimerec.cli.verbs import Verbs

app = typer.Typer(
    name="dimerec",
    cls=Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"dimerec {dimerec.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="DIMEREC_DEBUG", help="Show the traceback of an error."),
    ] = False,
) -> None:
    """Sequential recommendation by diffusion: from an interaction log to recommendations.

    Each verb does one step, and `dimerec VERB --help` explains it:

      dimerec prepare ml-latest-small --out data/ml
      dimerec train data/ml --out runs/ml
      dimerec evaluate runs/ml data/ml
      dimerec recommend runs/ml --history 1,260,1196

    With --json a verb prints one JSON document on standard output; progress
    and messages go to standard error. Exit codes: 0 done, 1 a check found
    something, 2 bad input (one line says what), 130 interrupted.
    """


WORK, DATA = "From a log to recommendations", "Data"
COMPARE, ABOUT = "Comparisons", "About this installation"
for panel, verbs in {
    WORK: (
        prepare.prepare,
        train.train,
        evaluate.evaluate,
        recommend.recommend,
        export.export,
        index.index,
        serve.serve,
        replay.replay,
    ),
    DATA: (sources.sources, sources.fetch, audit.audit),
    COMPARE: (
        compare.compare,
        diagnose.diagnose,
        protocols.protocols,
        reproduce.reproduce,
        tune.tune,
    ),
    ABOUT: (demo.demo, models.models, doctor.doctor),
}.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)


def main() -> None:
    """What `dimerec` runs: the verb in `sys.argv`; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # titles may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    get_command(app).main(prog_name="dimerec")
