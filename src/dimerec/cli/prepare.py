"""`dimerec prepare`: from a log to a dataset."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimerec.cli import output
from dimerec.cli.output import Json
from dimerec.cli.sources import DOWNLOADS

if TYPE_CHECKING:
    from dimerec.data.dataset import Dataset
    from dimerec.data.interactions import InteractionLog


def prepare(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG",
            help="A .csv or .tsv (plain, .gz, .zst), .parquet, .arrow or .feather file, or the "
            "name of a public dataset (dimerec sources lists them).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the dataset goes, a new folder.")],
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How to cut into training, validation and test: users-8-1-1 (whole users, "
            "shuffled by --seed), sessions-by-time (whole sessions, the latest test), "
            "sessions-in-order (the same by their numbers, for logs without times), "
            "leave-one-out (each user's last event tests), global-time (two points in time), "
            "given (see --given).",
        ),
    ] = "users-8-1-1",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME,..",
            help="Which columns are the user, the item and the time, as in "
            "user=visitor,item=sku,time=at, where they do not go by a usual name (user_id, "
            "userId, session, item_id, movieId, asin, timestamp, time, date, ...). In place of "
            "time, position=NAME is an order inside the user.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Keep only events that meet it, as in 'rating>=4'. May be given several times.",
        ),
    ] = None,
    duplicates: Annotated[
        str | None,
        typer.Option(
            help="Of a user's events with one item: keep all, the first, the last, or collapse "
            "immediate repeats.  \\[default: keep, or what the public dataset says]",
            metavar="POLICY",
        ),
    ] = None,
    min_user_events: Annotated[
        int, typer.Option(min=1, metavar="N", help="Users with fewer events are dropped.")
    ] = 2,
    min_item_events: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Items with fewer events are dropped, until stable."),
    ] = 1,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Titles and categories: a table with an item id column, too."
        ),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For the protocol given: a table with a user and a split column (train, valid, "
            "test).",
        ),
    ] = None,
    place: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="Where a public dataset lies, if not where fetch put it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the shuffle of users.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the dataset that stands at --out.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a dataset of an interaction log: read, check, filter, number, cut, write.

    The log holds one event a row, in any order: who (user or session), what
    (item) and, where known, when (s, ms, us or ISO 8601, told apart by
    itself). A bad row is an error that names file, column and line, and
    nothing is written.

      dimerec prepare ml-latest-small --out data/ml
      dimerec prepare clicks.csv.gz --out data/clicks \\
          --columns user=visitor,item=sku,time=clicked_at --items products.csv
      dimerec prepare ratings.csv --out data/liked --where 'rating>=4' \\
          --min-item-events 5

    The dataset is a folder; its card.json says what was read, what each
    filter removed and how the events were cut.
    """
    from dimerec.data.prepare import prepare as prepare_log

    read = _read(log, columns or [], where or [], duplicates, place)
    dataset = prepare_log(
        read.log,
        out,
        protocol=protocol,
        seed=seed,
        min_user_events=min_user_events,
        min_item_events=min_item_events,
        items=items if items is not None else read.items,
        given=given if given is not None else read.split if protocol == "given" else None,
        overwrite=overwrite,
    )
    if json:
        return output.document({"path": dataset.path, "card": dataset.card})
    _summary(dataset, read.log)


class _Read:
    """A log, with the titles and the official split a public dataset has."""

    def __init__(self, log: "InteractionLog", items: Any = None, split: Any = None) -> None:
        self.log, self.items, self.split = log, items, split


def _read(
    name: str, columns: list[str], where: list[str], duplicates: str | None, place: Path | None
) -> _Read:
    from dimerec.data import sources
    from dimerec.data.interactions import InteractionLog
    from dimerec.errors import ConfigError, DataError

    if Path(name).is_file() and place is None:
        log = InteractionLog.read(
            name,
            columns=_columns(columns),
            where=where,
            duplicates=duplicates or "keep",
        )
        return _Read(log)
    if not any(source.name == name for source in sources.all()):
        if Path(name).exists():
            raise DataError(f"{name}: a folder, where one file of interactions is expected")
        raise DataError(
            f"{name}: no such file, and no public dataset of that name (dimerec sources lists them)"
        )
    if columns:
        raise ConfigError(f"{name} is a public dataset and knows its columns: drop --columns")
    if place is None and (fetched := DOWNLOADS / name).is_dir():
        place = fetched
    loaded = sources.read(
        name,
        place,
        where=where or None,
        duplicates=duplicates,
    )
    return _Read(loaded.log, loaded.items, loaded.split)


def _columns(given: list[str]) -> dict[str, str]:
    """`user=a,item=b` (also over several options) as a mapping; a name may hold a comma."""
    from dimerec.errors import ConfigError

    found = {}
    for text in given:
        for part in re.split(r",(?=\s*\w+=)", text):
            role, equals, name = part.partition("=")
            if not equals or not name:
                raise ConfigError(f"--columns {part!r}: write user=NAME,item=NAME,time=NAME")
            if role.strip() in found:
                raise ConfigError(f"--columns names {role.strip()} twice")
            found[role.strip()] = name
    return found


def _summary(dataset: "Dataset", log: "InteractionLog") -> None:
    from dimerec.data.card import POSITIONS

    card, report = dataset.card, log.report
    columns = ", ".join(f"{role}={name}" for role, name in report["columns"].items())
    output.line(
        f"Read {report['rows']:,} rows of {report['source']} ({columns}; time: {report['time']})."
    )
    rows = [(f.name, -f.events_removed, -f.users_removed, -f.items_removed) for f in card.filters]
    rows.append(("what is left", card.events, card.users, card.items))
    counts = ("events", "users", "items")
    output.table("", ("filter", *counts), rows, right=counts)
    parts = [
        (name, part.users, part.events, *(part.queries.get(p) for p in POSITIONS))
        for name, part in card.splits.items()
    ]
    numbers = ("users", "events", *POSITIONS)
    title = f"{card.protocol.name} (the last three columns: queries to score)"
    output.table(title, ("part", *numbers), parts, right=numbers)
    lengths = card.lengths
    output.line(
        f"Events a user: {lengths.min:,} to {lengths.max:,}, median {lengths.median:g}, "
        f"mean {lengths.mean:.1f}."
    )
    output.line(f"The dataset is {dataset.path} (digest {dataset.digest[:12]}).")
    output.commands(
        "Next",
        ("dimerec", "audit", dataset.path),
        ("dimerec", "train", dataset.path, "--out", f"runs/{dataset.path.name}"),
    )
