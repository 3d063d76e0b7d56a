"""`dimerec diagnose`: what a results table does not show of a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.bundles import BundlePath, open_bundle
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.evaluation.diagnostics import Lists, Vectors
    from dimerec.evaluation.probing import Probing


def diagnose(
    bundle: BundlePath,
    dataset: Annotated[
        Path | None,
        typer.Argument(metavar="DATASET", help="A folder prepare made; lists need one."),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Whose targets are asked for: test or valid.")
    ] = "test",
    positions: Annotated[
        str, typer.Option(metavar="NAME", help="Which targets: see evaluate.")
    ] = "every-position",
    hide_seen: Annotated[
        bool, typer.Option("--hide-seen", help="List no item that the user took before.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of samples and of noise.")] = 0,
    probe: Annotated[
        bool, typer.Option("--probe", help="Read the items' categories from their vectors, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Look into a bundle: how its vectors lie, and whom its lists favour.

    Of the item vectors: lengths, uniformity and alignment. With a dataset:
    how alike the interests of a user are, categories in a list, coverage,
    Gini index, novelty, hits on popular and on rare targets, and how much of
    a user's next ten items one list of 20 or 50 holds.

      dimerec diagnose runs/ml data/ml
      dimerec diagnose runs/ml --probe --json
    """
    from dimerec.data.dataset import Dataset
    from dimerec.evaluation import diagnostics, probing

    opened = open_bundle(bundle)
    data = None if dataset is None else Dataset.open(dataset)
    found = diagnostics.diagnose(
        opened, data, split=split, positions=positions, hide_seen=hide_seen, seed=seed
    )
    probed = probing.probe(opened, seed) if probe else None
    if json:
        return output.document({"diagnosis": found, "probing": probed})
    output.line(f"{found.model} (weights {found.weights[:12]})", "bold")
    if found.vectors is not None:
        _vectors(found.vectors)
    else:
        output.line("It counts: it has no vectors.")
    if found.lists is not None:
        _lists(found.lists)
    if probed is not None:
        _probing(probed)


def _vectors(found: "Vectors") -> None:
    n = found.norms
    rows = [
        ("item vectors", f"{found.items:,} with training events"),
        ("length", f"mean {n.mean:.3f}, std {n.std:.3f}, {n.min:.3f} to {n.max:.3f}"),
        ("length and popularity", _or_none(found.norm_by_popularity, "Spearman {:+.3f}")),
        ("uniformity", f"{found.uniformity:.3f} (0 one point, near -4 evenly spread)"),
    ]
    if found.alignment is not None:
        rows.append(
            ("alignment", f"{found.alignment:.3f} between items taken one after the other; "
             f"{found.alignment_by_chance:.3f} by chance")
        )  # fmt: skip
    output.facts(rows)


def _lists(found: "Lists") -> None:
    cosine = _or_none(found.interest_cosine, "mean cosine {:.3f} (1: they are one)")
    rows: list[tuple[str, object]] = [("lists", found.queries)]
    if found.interests is not None and found.interests > 1:
        rows.append((f"{found.interests} interests", cosine))
    if found.categories is not None:
        rows.append(("categories", f"{found.categories:.2f} in a list of 100"))
    rows.append(("novelty of targets", f"{found.novelty_of_targets:.2f} bits"))
    output.facts(rows)
    lengths = [f"@{n}" for n in found.coverage]
    output.table(
        "",
        ("lists", *lengths),
        [
            ("coverage of the catalogue", *(f"{v:.2%}" for v in found.coverage.values())),
            ("Gini index of exposure", *(f"{v:.3f}" for v in found.gini.values())),
            ("novelty, bits", *(f"{v:.2f}" for v in found.novelty.values())),
        ],
        right=lengths,
    )
    columns = ["items", "queries", "shown", *(f"HR@{n}" for n in found.coverage)]
    output.table(
        "By popularity of the target (each band holds a third of the training events)",
        ("band", *columns),
        [
            (
                b.name,
                b.items,
                b.queries,
                f"{b.shown:.1%}",
                *(f"{b.hr[n]:.2%}" if n in b.hr else "" for n in found.coverage),
            )
            for b in found.bands
        ],
        right=columns,
    )
    if found.slates is None:
        output.line("No slates: no user of this split has two targets or more.")
        return
    columns = [f"slate of {n}" for n in found.slates.coverage]
    output.table(
        f"What comes next ({found.slates.ahead:.1f} items on average) in one slate",
        ("", *columns),
        [
            ("share of it", *(f"{v:.2%}" for v in found.slates.coverage.values())),
            ("at least one", *(f"{v:.2%}" for v in found.slates.any.values())),
        ],
        right=columns,
    )


def _probing(found: "Probing") -> None:
    columns = ["micro", "macro", "top"]
    output.table(
        f"Linear probing: {len(found.categories)} categories, {found.train:,} items to learn, "
        f"{found.test:,} to test",
        ("labels", *columns),
        [
            (name, *(f"{getattr(one, c):.2%} (blind {getattr(one, 'blind_' + c):.2%})"
                     for c in columns))
            for name, one in (("majority", found.majority), ("multi-label", found.multilabel))
        ],
        right=columns,
    )  # fmt: skip


def _or_none(value: float | None, text: str) -> str:
    return "does not vary" if value is None else text.format(value)
