"""How every verb ends: exit codes, one line for an error, a quiet broken pipe, log lines."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from dimerec.errors import DimeRecError

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
# Older versions of typer raise click's own, later ones a copy: either way the base of this one.
ClickException: Any = typer.BadParameter.__mro__[2]


class Verbs(TyperGroup):
    """All verbs. The package's errors and those of the operating system end as one line."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args) or ["--help"]
        given.sort(key=lambda a: a != "--debug")  # it may stand behind the verb, too
        try:
            code = super().main(given, **{**extra, "standalone_mode": False})
        except ClickException as e:
            context = getattr(e, "ctx", None)
            path = context.command_path if context else "dimerec"
            _say(f"{e.format_message().rstrip('.')}; see {path} --help", path)
            code = e.exit_code
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            code = _gone()
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> None:
        debug = ctx.params["debug"]
        with _log_lines(debug):
            try:
                super().invoke(ctx)
            except KeyboardInterrupt:
                _say("interrupted")
                raise typer.Exit(INTERRUPTED) from None
            except BrokenPipeError:
                raise typer.Exit(_gone()) from None
            except (DimeRecError, OSError) as e:
                if debug:
                    raise
                _say(str(e) if isinstance(e, DimeRecError) else _system(e))
                raise typer.Exit(BAD_INPUT) from e


def _say(message: str, who: str = "dimerec") -> None:
    line = " ".join(part.strip() for part in message.splitlines() if part.strip())
    print(f"{who}: {line}", file=sys.stderr, flush=True)


def _system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _gone() -> int:
    """Nobody reads standard output any more: let nothing that is left in it complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return BROKEN_PIPE


@contextmanager
def _log_lines(debug: bool) -> Iterator[None]:
    """Log lines of the package on standard error while a verb runs."""
    logger = logging.getLogger("dimerec")
    before = logger.level, logger.propagate
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        from dimerec.cli import output

        handler: logging.Handler = RichHandler(
            console=output.err(), show_time=False, show_path=False, rich_tracebacks=False
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
