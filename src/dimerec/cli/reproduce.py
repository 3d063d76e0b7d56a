"""`dimerec reproduce`: run a table of the paper or an experiment file, or what is left of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.experiments.plan import Plan
    from dimerec.experiments.runner import Result


def reproduce(
    experiments: Annotated[
        list[str],
        typer.Argument(metavar="NAME|FILE.toml...", help="Tables of the paper, or files."),
    ],
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Which of the table's datasets.")
    ] = "latest-small",
    budget: Annotated[
        str, typer.Option(metavar="smoke|paper|strong", help="What every run is given.")
    ] = "smoke",
    seeds: Annotated[
        int, typer.Option(min=0, metavar="N", help="Training seeds; 0: as the budget says.")
    ] = 0,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at once, one core each.")] = 1,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Train on auto, cpu or cuda.")
    ] = "auto",
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
        Path | None,
        typer.Option(metavar="FILE", help="Write the tables of files to this Markdown page."),
    ] = None,
    json: Json = False,
) -> None:
    """Train and score every row of a table with every seed, and print the table.

    A table of the paper goes by its name (dimerec reproduce list shows them),
    and takes a dataset and a budget; its page and figures land in
    RESULTS/NAME/DATASET-BUDGET. Any other experiment is a file.

    A run whose result is there already is not repeated, and one that was
    interrupted goes on from its checkpoint: stop and start as you like.
    Datasets that may not be shipped are read from the folder that
    DIMEREC_DATA names.

      dimerec reproduce table1 --dataset latest-small --budget smoke --jobs 2
      dimerec reproduce experiments/yoochoose.toml --jobs 2
    """
    from dimerec import files
    from dimerec.cli.board import board
    from dimerec.experiments import reproduce as studies
    from dimerec.experiments import runner, study, tables
    from dimerec.experiments.plan import load

    if experiments == ["list"]:
        return _list(json)
    found: dict[str, list[Result]] = {}
    plans: dict[Path, Plan] = {}
    for name in experiments:
        if name in study.names() or _is_study(name):
            extra = () if device == "auto" else (f"training.device={device}",)
            place = {"results": results, "work": work}
            task = studies.task(name, dataset, budget, seeds=seeds, extra=extra, **place)
            if not show:
                _planned(task.plan, task.rows, work, jobs)
                with board() as (report, look):
                    studies.run(task, jobs=jobs, report=report, look=look)
            elif task.rows.exists():
                studies.write(task)
            plan, found[name] = task.plan, runner.current(task.plan, task.rows)
            if not json:
                _table(plan, found[name])
                output.line(f"Page, summary and figures: {task.out}")
            continue
        path = Path(name)
        plan = plans[path] = load(path)
        file = results / f"{path.stem}.jsonl"
        if not show:
            _planned(plan, file, work, jobs)
            with board() as (report, look):
                runner.run(plan, file, work, jobs=jobs, report=report, look=look)
        found[name] = runner.current(plan, file)
        if not json:
            _table(plan, found[name])
    if page is not None:
        rows = {path: found[str(path)] for path in plans}
        files.write_file(page, tables.page(plans, rows).encode())
        if not json:
            output.line(f"Written to {page}.")
    if json:
        output.document(found)


def _is_study(name: str) -> bool:
    """Whether a file has the datasets of a study, or stands on one that has."""
    import tomllib

    try:
        return bool({"datasets", "base"} & tomllib.loads(Path(name).read_text("utf-8")).keys())
    except (OSError, ValueError):
        return False


def _list(json: bool) -> None:
    from dimerec.experiments import study

    all_of_them = {name: study.load(name) for name in study.names()}
    if json:
        return output.document(all_of_them)
    rows = [
        [name, " ".join(one.about.split()).partition("?")[0] + "?", ", ".join(one.datasets)]
        for name, one in all_of_them.items()
    ]
    output.table("Tables and figures of the paper", ["name", "what it asks", "datasets"], rows)


def _planned(plan: "Plan", file: Path, work: Path, jobs: int) -> None:
    """What is there, what will run, and how long that may take."""
    from dimerec.experiments import runner

    done = runner.current(plan, file)
    pending = runner.pending(plan, done)
    todo = [one.label for one, _ in pending]
    new = [one.label for one, s in pending if not runner.trained_before(plan, one, s, work)]
    cost = runner.costs(plan, done, work)
    console = output.err()
    for run in plan.runs:
        label, left, train = run.label, todo.count(run.label), new.count(run.label)
        seeds = sum(one.label == label for one, _ in plan.trainings)
        score = f", {left - train} of them trained before" if left > train else ""
        about = f", about {train * cost[label] / 60:.1f} min" if train and label in cost else ""
        console.print(f"{label}: {seeds - left} of {seeds} there, {left} to run{score}{about}")
    if new and all(label in cost for label in new):
        total = sum(cost[label] for label in new) / 60 / jobs
        console.print(f"about {total:.0f} minutes in all, {jobs} at once")


def _table(plan: "Plan", found: "list[Result]") -> None:
    from dimerec.experiments import runner, tables

    todo = len(runner.pending(plan, found))
    columns = ["model", *(m.upper() for m in plan.metrics), "seeds"]
    output.table(plan.title, columns, tables.cells(plan, found), right=columns[1:])
    if todo:
        output.line(f"{todo} of {len(plan.trainings)} runs are still to do.")
