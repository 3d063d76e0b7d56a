"""Run a study on a dataset under a budget and leave its folder: rows, summary, page, figures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dimerec import files
from dimerec.experiments import charts, lines, pages, runner, summary
from dimerec.experiments.plan import Plan
from dimerec.experiments.runner import Running
from dimerec.experiments.study import Study, StudyData, load, resolve
from dimerec.experiments.summary import Summary


@dataclass(frozen=True)
class Task:
    """A study, a dataset, a budget, and where it all goes.

    Attributes:
        name, dataset, budget: which.
        study, plan: what they resolve to.
        out: `RESULTS/NAME/DATASET-BUDGET`.
        work: prepared data and run folders.
    """

    name: str
    dataset: str
    budget: str
    study: Study
    plan: Plan
    out: Path
    work: Path

    @property
    def rows(self) -> Path:
        """The result file."""
        return self.out / "results.jsonl"

    @property
    def data(self) -> StudyData:
        """The study's entry of the dataset."""
        return self.study.datasets[self.dataset]


def task(
    name: str,
    dataset: str,
    budget: str,
    *,
    results: Path,
    work: Path,
    seeds: int = 0,
    extra: tuple[str, ...] = (),
) -> Task:
    """See `Task` and `study.resolve`; ConfigError when there is no such study."""
    study = load(name)
    plan = resolve(study, dataset, budget, seeds=seeds, extra=extra)
    stem = Path(name).stem
    out = results / stem / f"{dataset}-{budget}"
    return Task(stem, dataset, budget, study, plan, out, work)


def run(
    task: Task,
    *,
    jobs: int,
    report: Callable[[str], None],
    look: Callable[[list[Running], int, int], None] | None = None,
) -> Summary:
    """Do what is not done, then write summary, page and figures; also when some runs failed.

    `report` and `look` as `runner.run` takes them.

    Raises:
        DataError: what stands there as summary is none; nothing has been run.
        DimeRecError: as `runner.run`, after everything that succeeded has been written.
    """
    _there(task)  # a broken one stops the page: better now than when the runs are done
    try:
        runner.run(task.plan, task.rows, task.work, jobs=jobs, report=report, look=look)
    finally:
        if runner.current(task.plan, task.rows):
            made = write(task)
    return made


def write(task: Task) -> Summary:
    """Summary, page and figures from the result file; DataError when it holds no row.

    What only the ranks of the runs can tell is taken from the summary that is there already, when
    they lie elsewhere and the numbers are the same.
    """
    made = summary.make(
        (task.name, task.dataset, task.budget),
        task.study.budgets[task.budget].about,  # pyright: ignore[reportArgumentType]
        task.data,
        task.plan,
        runner.current(task.plan, task.rows),
        task.work,
        {row.label: (row.x, row.series) for row in task.study.runs if row.x is not None},
        task.study.axis,
        _there(task),
    )
    summary.write(made, task.out / "results.json")
    render(made, task.out)
    return made


def _there(task: Task) -> Summary | None:
    """The summary that an earlier call has left."""
    file = task.out / "results.json"
    return summary.read(file) if file.exists() else None


def render(made: Summary, out: Path) -> None:
    """The page and the figures of a summary."""
    pictures = charts.draw(made) | lines.draw(made)
    for name, content in pictures.items():
        files.write_file(out / name, content)
    page = pages.page(made, list(pictures), lines.table(made))
    files.write_file(out / "README.md", page.encode())
