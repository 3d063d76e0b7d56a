"""`dimerec sources` and `dimerec fetch`: public datasets."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

DOWNLOADS = Path("data")  # where fetch puts things unless told otherwise, and prepare looks


def sources(json: Json = False) -> None:
    """List the public datasets that can be fetched and prepared by name.

    The size is that of the download, the counts are those of the complete
    original. A dataset that is here needs no fetch; ml-latest-small always is.

      dimerec sources
      dimerec prepare ml-latest-small --out data/ml
    """
    from dimerec.data import sources as public

    found = [
        {
            "name": source.name,
            "title": source.title,
            "events": source.counts.events,
            "users": source.counts.users,
            "items": source.counts.items,
            "bytes": source.size,
            "here": public.held(source) is not None or (DOWNLOADS / source.name).is_dir(),
            "downloadable": bool(source.remotes),
            "licence": source.licence,
            "home": source.home,
            "citation": source.citation,
        }
        for source in public.all()
    ]
    if json:
        return output.document(found)
    counts = ("events", "users", "items")
    rows = []
    for s in found:
        size = output.size(s["bytes"]) if s["bytes"] else "" if s["downloadable"] else "by hand"
        row = (s["name"], "yes" if s["here"] else "", size, *(s[c] for c in counts))
        rows.append((*row, s["title"]))
    columns = ("name", "here", "download", *counts, "title")
    output.table("", columns, rows, right=("download", *counts))
    output.line("Licences", "bold")
    for licence in dict.fromkeys(s["licence"] for s in found):
        names = [s["name"] for s in found if s["licence"] == licence]
        output.line(f"{', '.join(names)}: {licence}")


def fetch(
    name: Annotated[str, typer.Argument(help="Of a public dataset (dimerec sources lists them).")],
    place: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="An archive, folder or log file that you have already."
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to put it.  \\[default: the folder that DIMEREC_DATA names, else data]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the original files of a public dataset here, from its publisher.

    The download shows its progress, goes on where an earlier one broke off,
    and is checked against the size and checksum that the publisher states.
    Files you have already are taken with --from; a folder is used where it
    lies.

      dimerec fetch ml-1m
      dimerec fetch ml-1m --from Downloads/ml-1m.zip
      dimerec prepare ml-1m --out data/ml-1m-prepared
    """
    from dimerec.data import sources as public

    source = public.get(name)
    target = into or Path(os.environ.get("DIMEREC_DATA") or DOWNLOADS)
    found = public.fetch(name, target, place)
    if json:
        return output.document(
            {
                "name": name,
                "path": found,
                "licence": source.licence,
                "home": source.home,
                "citation": source.citation,
            }
        )
    output.line(f"{source.title} is in {found}")
    output.line(f"Licence: {source.licence} ({source.home})")
    output.line(f"Please cite: {source.citation}")
    words = ["dimerec", "prepare", name, "--out", f"data/{name}-prepared"]
    if place is not None or into is not None:
        words[3:3] = ["--from", str(found)]
    output.commands("Next", words)
