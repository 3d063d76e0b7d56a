"""`dimerec compare`: is one result better than another, or is it chance?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.evaluation.comparison import Comparison
    from dimerec.evaluation.statistics import Outcome

Side = "A folder that evaluate --out wrote, or a folder of such folders: one a training seed."


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help=Side)],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help=Side)],
    metrics: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Metrics to test together, such as hr@20,ndcg@20."),
    ] = "hr@10,hr@20,hr@50,ndcg@10,ndcg@20,ndcg@50",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the differences here, too.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare two results: the difference, how sure it is, and how large.

    Both must have been scored on the same data under the same protocol; else
    it says what differs. The unit is the user: all queries of one user count
    as one observation. With two training seeds or more on each side the test
    takes in the chance of training, too. p-values are corrected (Holm) for
    the number of metrics.

      dimerec evaluate runs/sasrec data/ml --out scores/sasrec/0
      dimerec evaluate runs/dimerec data/ml --out scores/dimerec/0
      dimerec compare scores/dimerec scores/sasrec --plot gap.svg
    """
    from dimerec.evaluation import comparison

    sides = comparison.read_side(run_a), comparison.read_side(run_b)
    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    found = comparison.compare(*sides, wanted, (str(run_a), str(run_b)))
    labels = [side[0].card.model for side in sides]
    if labels[0] == labels[1]:
        labels = [str(run_a), str(run_b)]
    if plot is not None:
        from dimerec.evaluation import forest

        forest.draw(found, labels[0], labels[1], plot)
    seeds = [[one.card.seeds["training"] for one in side] for side in sides]
    if json:
        card = sides[0][0].card
        return output.document(
            {
                "a": {"path": run_a, "model": sides[0][0].card.model, "training_seeds": seeds[0]},
                "b": {"path": run_b, "model": sides[1][0].card.model, "training_seeds": seeds[1]},
                "data": {"dataset": card.dataset, "digest": card.digest, "users": card.users},
                "metrics": found,
            }
        )
    _show(found, labels, seeds)
    card = sides[0][0].card
    output.line(
        f"  {card.dataset} ({card.protocol.name}, digest {card.digest[:12]}), {card.split}, "
        f"{card.positions}: {card.queries:,} queries of {card.users:,} users"
    )
    if plot is not None:
        output.line(f"Drawn to {plot}.")


def _show(
    found: Sequence["Comparison"], labels: Sequence[str], seeds: Sequence[Sequence[int]]
) -> None:
    values = ["a", "b", "a - b", "95 % over users", "relative", "d_z", "rank-biserial"]
    output.line(f"a: {labels[0]}, training seeds {', '.join(map(str, seeds[0]))}", "bold")
    output.line(f"b: {labels[1]}, training seeds {', '.join(map(str, seeds[1]))}", "bold")
    output.table(
        "",
        ("metric", *values),
        [
            (
                o.metric,
                f"{o.a:.2%}",
                f"{o.b:.2%}",
                f"{100 * o.difference.value:+.2f}",
                f"{100 * o.difference.low:+.2f} to {100 * o.difference.high:+.2f}",
                "" if o.relative is None else f"{o.relative:+.1%}",
                f"{o.d_z:+.3f}",
                f"{o.rank_biserial:+.3f}",
            )
            for o in found
        ],
        right=values,
    )
    tests = ["users (t)", "users (Wilcoxon)", "seeds (t)", "users and seeds", "Holm"]
    output.table(
        "p-values",
        ("metric", *tests),
        [
            (o.metric, _p(o.users), _p(o.wilcoxon), _p(o.seeds), _p(o.both), _number(o.holm))
            for o in found
        ],
        right=tests,
    )
    ahead = {
        label: [o.metric for o in found if o.holm < 0.05 and o.difference.value * sign > 0]
        for label, sign in zip(labels, (1, -1), strict=True)
    }
    for label, names in ahead.items():
        if names:
            output.line(f"{label} is ahead in {', '.join(names)} (5 % level, Holm).", "green")
    open_ = [o.metric for o in found if o.holm >= 0.05]
    if open_:
        output.line(f"Cannot be told from chance: {', '.join(open_)}.", "yellow")
    if found[0].both is None:
        output.line(
            "One training seed on a side: this speaks of these trained models, and another "
            "training may turn it.",
            "yellow",
        )


def _p(outcome: "Outcome | None") -> str:
    return "" if outcome is None else _number(outcome.p)


def _number(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
