"""`dimerec protocols`: one bundle as several papers would score it."""

from pathlib import Path
from typing import Annotated

import typer

from dimerec.cli import output
from dimerec.cli.bundles import BundlePath, open_bundle
from dimerec.cli.output import Json


def protocols(
    bundle: BundlePath,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder prepare made.")],
    only: Annotated[
        str, typer.Option(metavar="NAMES", help="These protocols, separated by commas; else all.")
    ] = "",
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of a generative model's noise.")
    ] = 0,
    json: Json = False,
) -> None:
    """Score one bundle as several papers define it, in one table.

    The recommendations are the same in every row; what is asked for and how
    it is counted is not. Compare numbers inside one column of one row only.

      dimerec protocols runs/ml data/ml
      dimerec protocols runs/ml data/ml --only comirec,comirec-corrected
    """
    from dimerec.data.dataset import Dataset
    from dimerec.evaluation import protocols as definitions

    names = tuple(n.strip() for n in only.split(",") if n.strip()) or definitions.NAMES
    rows = definitions.rescore(open_bundle(bundle), Dataset.open(dataset), names, seed=seed)
    by_name = {d.name: d for d in definitions.DEFINITIONS}
    if json:
        return output.document([{"protocol": by_name[r.name], "result": r} for r in rows])
    columns = ["queries", *(f"{m}@{n}" for m in ("HR", "NDCG") for n in definitions.CUTOFFS)]
    output.table(
        "",
        ("protocol", *columns),
        [
            (
                r.name,
                r.queries,
                *(f"{r.hr[n]:.2%}" for n in definitions.CUTOFFS),
                *(f"{r.ndcg[n]:.2%}" for n in definitions.CUTOFFS),
            )
            for r in rows
        ],
        right=columns,
    )
    for row in rows:
        d = by_name[row.name]
        output.line(d.name + (f" ({d.note})" if d.note else ""), "bold")
        frozen = (row.candidates_digest or "")[:12]
        output.facts(
            [
                ("targets", d.targets),
                ("history", d.history),
                ("candidates", d.candidates + (f" (digest {frozen})" if frozen else "")),
                ("NDCG over", d.normaliser),
            ]
        )
