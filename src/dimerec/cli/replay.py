"""`dimerec replay`: events from a file of JSON lines into a store of histories."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from typing import BinaryIO

    from dimerec.serving.history import Event

BATCH = 500  # events to a commit
SHOWN = 20  # bad lines that are named
LINE = 1 << 20  # bytes; no event is longer


def replay(
    events: Annotated[
        Path, typer.Argument(metavar="EVENTS.jsonl", help="One event a line; - reads from a pipe.")
    ],
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="sqlite:///FILE or redis://HOST:PORT/DB, as the service is given it.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A running service instead, as http://127.0.0.1:8000; its token is read from "
            "the environment variable DIMEREC_TOKEN.",
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose histories in --store.")] = "default",
    start: Annotated[
        int, typer.Option("--from", min=1, metavar="LINE", help="Begin at this line.")
    ] = 1,
    json: Json = False,
) -> None:
    """Put events from a file into a store of histories.

    A line is {"user": 7, "item": "sku-1", "time": 1700000000, "event_id": "a1"},
    with time in Unix seconds. An event whose id is in the store changes
    nothing, so a file may be replayed twice, after an interruption or while
    the service runs. Bad lines are named by number and passed over; the exit
    code is then 1.

      dimerec replay events.jsonl --store sqlite:///histories.db
      dimerec replay events.jsonl --store redis://localhost:6379/0 --tenant shop
      dimerec replay events.jsonl --url http://127.0.0.1:8000

    When the store fails, the message names the line to go on from.
    """
    from dimerec.errors import ServingError

    counts = {"stored": 0, "there already": 0, "bad lines": 0}
    append, close = _target(store, url, tenant)
    reached = start
    try:
        for reached, last, batch, bad in _batches(events, start):
            for number, why in bad[: max(0, SHOWN - counts["bad lines"])]:
                output.err().print(f"{events}, line {number}: {why}", soft_wrap=True)
            counts["bad lines"] += len(bad)
            stored = append(batch)
            counts["stored"] += stored
            counts["there already"] += len(batch) - stored
            reached = last + 1
    except (KeyboardInterrupt, ServingError) as e:
        way = f"{events}: go on with --from {reached}, all before it is stored"
        if isinstance(e, KeyboardInterrupt):
            output.err().print(way, soft_wrap=True)
            raise
        raise ServingError(f"{e}. {way}") from e
    finally:
        close()
    if json:
        names = {name.replace(" ", "_"): count for name, count in counts.items()}
        output.document({**names, "next": reached})
    else:
        output.facts([*counts.items()])
    if counts["bad lines"]:
        if counts["bad lines"] > SHOWN:
            output.err().print(f"and {counts['bad lines'] - SHOWN:,} more bad lines")
        raise typer.Exit(1)


def _target(
    store: str | None, url: str | None, tenant: str
) -> "tuple[Callable[[list[Event]], int], Callable[[], None]]":
    """What stores a batch and returns how many events were new, and what closes it."""
    from dimerec.errors import ConfigError

    if (store is None) == (url is None):
        raise ConfigError("say where the events go: either --store or --url")
    if url is not None:
        from dimerec.serving.client import Client

        client = Client(url, token=os.environ.get("DIMEREC_TOKEN"), timeout=30.0)
        return client.send, client.close
    from dimerec.serving.history import open_store

    target = open_store(store or "")
    return lambda batch: sum(target.append(tenant, batch)), target.close


def _batches(
    path: Path, start: int
) -> Iterator[tuple[int, int, "list[Event]", list[tuple[int, str]]]]:
    """First and last line of a batch, its events, and its bad lines with what is wrong."""
    import msgspec

    from dimerec.serving.history import Event

    decoder = msgspec.json.Decoder(Event)
    events: list[Event] = []
    bad: list[tuple[int, str]] = []
    first, number = start, start - 1
    with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
        for number, line in _lines(file, start):
            try:
                if line is None:
                    bad.append((number, f"longer than {LINE:,} bytes"))
                elif line.strip():
                    events.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as e:
                bad.append((number, str(e)))
            if len(events) + len(bad) == BATCH:
                yield first, number, events, bad
                first, events, bad = number + 1, [], []
    yield first, number, events, bad


def _lines(file: "BinaryIO", start: int) -> "Iterator[tuple[int, bytes | None]]":
    """Lines from number `start` on; None for one too long."""
    number = 0
    while line := file.readline(LINE):
        number += 1
        whole = line
        while line and len(line) == LINE and not line.endswith(b"\n"):
            whole, line = None, file.readline(LINE)
        if number >= start:
            yield number, whole
