"""`dimerec reproduce`: run an experiment file, or what is left of it, and show its table."""

from pathlib import Path
from typing import Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json


def reproduce(
    experiments: Annotated[
        list[Path], typer.Argument(metavar="EXPERIMENT.toml...", help="Experiment files.")
    ],
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at once, one core each.")] = 1,
    results: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Result files, one line a row and seed.")
    ] = Path("results"),
    work: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Prepared data and run folders.")
    ] = Path("runs/experiments"),
    show: Annotated[
        bool, typer.Option("--show", help="Run nothing: show what the result files hold.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all tables to this Markdown page.")
    ] = None,
    json: Json = False,
) -> None:
    """Train and score every row of an experiment with every seed, and print the table.

    A run whose result is there already is not repeated, and one that was
    interrupted goes on from its checkpoint: stop and start as you like.
    Datasets that may not be shipped are read from the folder that
    DIMEREC_DATA names.

      dimerec reproduce experiments/yoochoose.toml --jobs 2
      dimerec reproduce experiments/*.toml --show --page docs/results.md
    """
    from dimerec import files
    from dimerec.experiments import runner, tables
    from dimerec.experiments.plan import load

    plans = {path: load(path) for path in experiments}
    found = {}
    for path, plan in plans.items():
        file = results / f"{path.stem}.jsonl"
        if not show:
            console = output.err()
            runner.run(plan, file, work, jobs=jobs, report=console.print)
        found[path] = runner.current(plan, file)
    if page is not None:
        files.write_file(page, tables.page(plans, found).encode())
    if json:
        return output.document({path.stem: rows for path, rows in found.items()})
    for path, plan in plans.items():
        todo = len(runner.pending(plan, found[path]))
        rows = tables.cells(plan, found[path])
        columns = ["model", *(m.upper() for m in plan.metrics), "seeds"]
        output.table(plan.title, columns, rows, right=columns[1:])
        if todo:
            output.line(f"{todo} of {len(plan.runs) * len(plan.seeds)} runs are still to do.")
    if page is not None:
        output.line(f"Written to {page}.")
