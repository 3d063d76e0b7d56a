"""`dimerec demo`: the whole way in a few minutes, on real data."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.experiments.demo import Demo
    from dimerec.experiments.processes import Note
    from dimerec.experiments.showcase import Showcase, Shown

COLUMNS = ("hr@10", "hr@20", "hr@50", "ndcg@20", "mrr@20", "coverage@20")


def demo(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where it all goes; an earlier demo is replaced.")
    ] = Path("demo"),
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of the training and the models' noise.")
    ] = 0,
    json: Json = False,
) -> None:
    """Train DimeRec and five others on MovieLens, compare them, write a report.

    Takes the small MovieLens log that comes with the package, so nothing is
    downloaded. Printed are one table with its protocol, and what two models
    recommend to one test user; OUT/report.html shows much more, and opens in
    any browser without a network. Takes a few minutes on two cores.

      dimerec demo
      dimerec demo --seed 1 --out demo-1
      dimerec demo --json > demo.json

    In OUT: report.html, demo.json (the table for programs), data/ (the
    prepared dataset), runs/NAME/bundle (each trained model).
    """
    from dimerec.experiments import demo as demos
    from dimerec.experiments import report
    from dimerec.experiments.findings import findings

    report.require()
    settings = demos.Settings()
    with _progress(settings.recipes) as told:
        done = demos.run(out, seed=seed, settings=settings, jobs=_cores(), progress=told)
        told(("report", 0, 1, "writing"))
        found = findings(done)
        report.write(done, found)
        demos.write(done)
        told(("report", 1, 1, "done"))
    if json:
        return output.document(done.document())
    _table(done)
    _lists(found.showcase)
    output.line(f"\nThe report is {done.report}; open it in a browser.", "bold")
    bundle = done.row("dimerec").run.bundle
    history = ",".join(map(str, done.dataset.vocabulary.ids(found.showcase.history[-3:])))
    output.commands(
        "Next",
        ("dimerec", "recommend", bundle, "--history", history),
        ("dimerec", "evaluate", bundle, done.dataset.path),
        ("dimerec", "prepare", "LOG.csv", "--out", "data/mine"),
    )


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _progress(labels: dict[str, str]) -> Iterator[Callable[["Note"], None]]:
    """Bars on a terminal, else a line at the start and end of each piece of work."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _lines(labels)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=output.err()) as bars:
        known = {
            name: bars.add_task(label, total=None, start=False, what="waiting")
            for name, label in {**labels, "report": "Report"}.items()
        }

        def told(note: "Note") -> None:
            name, step, steps, what = note
            if not bars.tasks[known[name]].started:
                bars.start_task(known[name])
            bars.update(known[name], completed=step, total=steps, what=what)
            if what == "done":
                bars.stop_task(known[name])

        yield told


def _lines(labels: dict[str, str]) -> Callable[["Note"], None]:
    last: dict[str, str] = {}

    def told(note: "Note") -> None:
        name, _, _, what = note
        if last.get(name) != what:
            last[name] = what
            print(f"{labels.get(name, name)}: {what}", file=sys.stderr, flush=True)

    return told


def _table(demo: "Demo") -> None:
    rows = [(row.label, *(f"{100 * row.metrics[m]:.1f}" for m in COLUMNS)) for row in demo.rows]
    heads = tuple(m.upper() if m[0] != "c" else m.capitalize() for m in COLUMNS)
    output.table("On the test users, percent", ("model", *heads), rows, right=heads)
    output.out().print(demo.protocol())


def _lists(shown: "Showcase") -> None:
    columns = {"watched last": shown.recent, **shown.lists}
    rows = zip(*([_film(i) for i in items] for items in columns.values()), strict=False)
    title = f"\nTest user {shown.user}: the last films, and what two models recommend"
    output.table(title, list(columns), rows)
    output.line("✓ the user really watched it later", "dim")


def _film(item: "Shown") -> str:
    genres = ", ".join(item.categories)
    return f"{'✓ ' if item.hit else ''}{item.title}\n   {genres}"
