"""The board of `dimerec reproduce`: every run at work, and how far all of them are together."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dimerec.cli import output

if TYPE_CHECKING:
    from dimerec.experiments.runner import Running

TAIL = 4096  # bytes of a log that hold its last entries
Report = Callable[[str], None]
Look = Callable[["list[Running]", int, int], None]


@contextmanager
def board() -> Iterator[tuple[Report, Look | None]]:
    """What `runner.run` is given: lines alone, or on a terminal a bar for each run beneath them."""
    console = output.err()
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield console.print, None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as bars:
        whole = bars.add_task("all runs", total=None, what="")
        known: dict[Path, Any] = {}

        def look(running: "list[Running]", done: int, total: int) -> None:
            bars.update(whole, completed=done, total=total)
            for folder in known.keys() - {run.folder for run in running}:
                bars.remove_task(known.pop(folder))
            for run in running:
                if run.folder not in known:
                    name = f"{run.label}, seed {run.seed}"
                    known[run.folder] = bars.add_task(name, total=None, what="")
                step, steps, what = progress(run.folder)
                bars.update(known[run.folder], completed=step, total=steps, what=what)

        yield console.print, look


def progress(folder: Path) -> tuple[int, int | None, str]:
    """How far a run is by its log: step, steps (None: not known yet), and what it is doing."""
    try:
        with (folder / "metrics.jsonl").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
            lines = log.read().split(b"\n")[:-1]  # the last one may be half written
    except OSError:
        return 0, None, "starting"
    for line in reversed(lines):
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError:  # cut by TAIL
            continue
        if "steps" in entry:
            step, steps = entry["step"], entry["steps"]
            rate = f"{entry['targets_per_second']:,.0f} targets/s"
            return step, steps, rate if step < steps else "scoring"
    return 0, None, "starting"
