"""`dimerec recommend`: histories of ids in, recommendations out."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimerec.cli import output
from dimerec.cli.bundles import BundlePath, open_bundle
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.bundle import Bundle
    from dimerec.recommender import Recommendation

SHOWN = 5  # items of the history


def recommend(
    bundle: BundlePath,
    history: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,ID,...",
            help="Item ids of one user, oldest first. May be given several times, one a user. "
            "Without it, histories are read from standard input, one a line.",
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("-n", "--number", min=1, metavar="N", help="Items to recommend.")
    ] = 20,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Recommend items of the history, too.")
    ] = False,
    exclude: Annotated[
        str, typer.Option(metavar="ID,ID,...", help="Item ids that must not come.")
    ] = "",
    category: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only items of this category. May be given several times."
        ),
    ] = None,
    diversity: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="WEIGHT",
            help="ComiRec's lambda: how much each pair of items without a common category adds "
            "to a list, on the scale of the scores. 0 ranks by score alone.",
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Recommend items to users, given what they took.

    Ids are those of your log. Unknown ones are ignored and reported; where no
    id is known, or the history is empty (--history ""), the answer is the
    most popular items, and says so. On standard input each line is one user:
    ids separated by commas, or a JSON list where ids hold commas themselves.

      dimerec recommend runs/ml --history 1,260,1196 -n 10
      dimerec recommend runs/ml --json < histories.txt
      dimerec recommend runs/ml --history 1,260 --category Comedy --diversity 0.1
    """
    from dimerec.recommender import Query

    opened = open_bundle(bundle)
    lines = _lines() if history is None else history
    histories = [_ids(opened, line.strip(), at) for at, line in enumerate(lines, start=1)]
    barred = _ids(opened, exclude.strip(), 0)
    answers = opened.recommender().answer(
        [
            Query(
                history,
                n=n,
                hide_seen=not keep_seen,
                exclude=barred,
                categories=category or [],
                diversity=diversity,
            )
            for history in histories
        ]
    )
    if json:
        return output.document(
            {
                "bundle": opened.path,
                "model": opened.config.model,
                "hide_seen": not keep_seen,
                "recommendations": [
                    _document(opened, asked, answer)
                    for asked, answer in zip(histories, answers, strict=True)
                ],
            }
        )
    for asked, answer in zip(histories, answers, strict=True):
        _show(opened, asked, answer)


def _lines() -> list[str]:
    """The lines of standard input."""
    from dimerec.errors import DataError

    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("no --history is given, and nothing comes on standard input")
    try:
        return list(sys.stdin)
    except UnicodeDecodeError as e:
        raise DataError(f"standard input is not {e.encoding} text: {e.reason}") from e


def _ids(bundle: "Bundle", text: str, at: int) -> list[Any]:
    import msgspec

    from dimerec.errors import DataError

    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[int | str])
        except msgspec.DecodeError as e:
            raise DataError(f"history {at}: not a JSON list of ids ({e}): {text[:80]}") from e
    parts = (part.strip() for part in text.split(","))
    return [bundle.vocabulary.parse(part) for part in parts if part]


def _document(bundle: "Bundle", asked: list[Any], answer: "Recommendation") -> dict[str, Any]:
    items = []
    for id, score in zip(answer.items, answer.scores, strict=True):
        item = bundle.describe(id)
        items.append({"id": id, "title": item.title, "categories": item.categories, "score": score})
    return {
        "history": asked,
        "source": answer.source,
        "filled": answer.filled,
        "unknown": answer.unknown,
        "items": items,
    }


def _show(bundle: "Bundle", asked: list[Any], answer: "Recommendation") -> None:
    unknown = set(answer.unknown)
    known = [id for id in asked if id not in unknown]
    names = [_name(bundle, id) for id in known[-SHOWN:]]
    more = f"({len(known) - SHOWN} earlier), " if len(known) > SHOWN else ""
    output.line(f"History: {more}{', '.join(names) or 'nothing known'}", "bold")
    if answer.unknown:
        output.line(f"Unknown and ignored: {', '.join(map(str, answer.unknown))}", "yellow")
    if answer.source == "popularity":
        output.line("From popularity, for nothing in the history is known.")
    else:
        filled = f"; the last {answer.filled} are popular items" if answer.filled else ""
        output.line(f"From the model, {bundle.config.model}{filled}.")
    described = [bundle.describe(id) for id in answer.items]
    rows = [
        (rank, str(id), item.title, ", ".join(item.categories), score)
        for rank, (id, item, score) in enumerate(
            zip(answer.items, described, answer.scores, strict=True), start=1
        )
    ]
    columns = ["rank", "id", "title", "categories", "score"]
    for at, name in ((3, "categories"), (2, "title")):
        if not any(row[at] for row in rows):
            columns.remove(name)
            rows = [row[:at] + row[at + 1 :] for row in rows]
    output.table("", columns, rows, right=("rank", "score"))


def _name(bundle: "Bundle", id: Any) -> str:
    title = bundle.describe(id).title
    return f"{title} ({id})" if title else str(id)
