"""What verbs print: tables and lines for people, one JSON document for programs."""

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead, and nothing else.")
]
PIPED_WIDTH = 120


def out() -> "Console":
    """The console of results: standard output."""
    return _console(sys.stdout)


def err() -> "Console":
    """The console of progress and messages: standard error."""
    return _console(sys.stderr)


def document(value: Any) -> None:
    """Print `value` as the one JSON document; structs, arrays and paths may be in it."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2)
    sys.stdout.flush()
    sys.stdout.buffer.write(text + b"\n")  # UTF-8, whatever the terminal speaks
    sys.stdout.buffer.flush()


def line(text: str = "", style: str = "") -> None:
    """Print one line of a result; it is not wrapped."""
    out().print(text, style=style, soft_wrap=True)


def commands(title: str, *lines: Sequence[object]) -> None:
    """Print commands that may be typed next."""
    line(f"\n{title}:", "bold")
    for words in lines:
        line("  " + shlex.join(map(str, words)), "cyan")


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()
) -> None:
    """Print a table; columns named in `right` are numbers, and stand to the right."""
    from rich import box
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in columns:
        if name in right:
            grid.add_column(name, justify="right", no_wrap=True)
        else:
            grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(number(cell) for cell in row))
    out().print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        line(f"  {name:<{width}}  {number(value)}")


def number(value: object) -> str:
    """Integers with thousands separated, floats to four places, None as nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)


def size(count: int) -> str:
    """A number of bytes for people."""
    power = min(3, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.1f} {('B', 'kB', 'MB', 'GB')[power]}"


def _console(file: Any) -> "Console":
    from rich.console import Console

    class Pipe(Console):
        """A console whose broken pipe is an exception as anywhere else."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    fixed = not (file.isatty() or "COLUMNS" in os.environ)
    # No markup: titles and paths may hold brackets.
    return Pipe(
        file=file,
        markup=False,
        emoji=False,
        highlight=False,
        width=PIPED_WIDTH if fixed else None,
    )


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
