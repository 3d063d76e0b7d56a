"""`dimerec evaluate`: how well a bundle ranks what users took next."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.bundles import BundlePath, open_bundle
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.evaluation.evaluator import Evaluation


def evaluate(
    bundle: BundlePath,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder prepare made.")],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Whose targets are scored: test or valid.")
    ] = "test",
    positions: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which targets of each user are scored: every-position, last, or last-20-percent.",
        ),
    ] = "every-position",
    hide_seen: Annotated[
        bool, typer.Option("--hide-seen", help="Rank no item that the user took before.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of a generative model's noise.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write evaluation.json and ranks.npy (rank and user of each query) here, too.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Score a bundle: where does it rank the items that users really took next?

    Each target is ranked among all items of the catalogue. Printed are HR, NDCG
    and MRR at 10, 20 and 50, coverage, categories in a list, and the protocol:
    numbers can be compared only where the protocol is the same.

      dimerec evaluate runs/ml data/ml
      dimerec evaluate runs/ml data/ml --positions last-20-percent --hide-seen
      dimerec evaluate runs/ml data/ml --json > result.json
    """
    from dimerec.data.dataset import Dataset
    from dimerec.evaluation import evaluator

    result = evaluator.evaluate(
        open_bundle(bundle),
        Dataset.open(dataset),
        split=split,
        positions=positions,
        hide_seen=hide_seen,
        seed=seed,
    )
    if out is not None:
        result.write(out)
    if json:
        return output.document({"metrics": result.metrics, "card": result.card})
    _show(result)
    if out is not None:
        output.line(f"Written to {out}.")


def _show(result: "Evaluation") -> None:
    card = result.card
    output.line(f"{card.model} on {card.dataset}", "bold")
    names = dict.fromkeys(name.partition("@")[0] for name in result.metrics)
    cutoffs = sorted({int(name.partition("@")[2]) for name in result.metrics})
    shared = [n for n in cutoffs if f"{next(iter(names))}@{n}" in result.metrics]
    rows = [
        (name, *(f"{result.metrics[f'{name}@{n}']:.2%}" for n in shared))
        for name in names
        if all(f"{name}@{n}" in result.metrics for n in shared)
    ]
    columns = [f"@{n}" for n in shared]
    output.table("", ("", *columns), rows, right=columns)
    for name in names:
        for n in cutoffs:
            if n not in shared and f"{name}@{n}" in result.metrics:
                output.line(f"  {name} in a list of {n}: {result.metrics[f'{name}@{n}']:.2f}")
    limited = f" of {card.available:,}" if card.queries < card.available else ""
    sampling = ", ".join(f"{name} {value}" for name, value in card.sampling.items())
    machine = card.machine
    output.facts(
        [
            ("data", f"{card.dataset}, {card.protocol.name} (digest {card.digest[:12]})"),
            ("scored", f"{card.split}, {card.positions}: {card.queries:,}{limited} queries of "
             f"{card.users:,} users"),
            ("candidates", card.candidates),
            ("seen items", "hidden" if card.hide_seen else "kept"),
            ("cold targets", f"{card.cold_targets:,} (no training event; they count)"),
            ("ties", card.ties),
            ("history", f"the last {card.length} items"),
            ("seeds", ", ".join(f"{name} {seed}" for name, seed in card.seeds.items())),
            *([("sampling", sampling)] if sampling else []),
            ("weights", card.weights[:12]),
            ("versions", ", ".join(f"{name} {v}" for name, v in card.versions.items())),
            ("machine", f"{machine.device}, {machine.threads} of {machine.cpus} cores"),
        ]
    )  # fmt: skip
    if card.trained_on != card.digest:
        output.line(
            f"Careful: the bundle was trained on another dataset (digest {card.trained_on[:12]}), "
            "which may hold these targets.",
            "yellow",
        )
