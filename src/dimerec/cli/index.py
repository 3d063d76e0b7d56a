"""`dimerec index`: an approximate index for a bundle with many items, tuned and judged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dimerec.cli import output
from dimerec.cli.bundles import BundlePath, open_bundle
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.evaluation.fidelity import Fidelity

REPORT = "fidelity.json"
RECALL, CODES = 0.97, "sq8"


def index(
    bundle: BundlePath,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="A folder prepare made: tune by its validation histories, judge by its test "
            "part. Without it, histories of items drawn by popularity take their place.",
        ),
    ] = None,
    recall: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of exact search's 100 best items that must be found."
        ),
    ] = RECALL,
    codes: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How the cells hold vectors: sq8 (8 bits a coordinate) or flat (all 32).",
        ),
    ] = CODES,
    exact_up_to: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Build nothing for up to N items, for exact search is quick enough.  "
            "\\[default: 20000]",
        ),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Put the item vectors into a Qdrant server instead, for serve with index = URL. "
            "The other options, of the bundle's own index, do not go with it.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Build the search index of a bundle, and say what it costs.

    Up to 20,000 items it is quickest to score every one, and there is nothing
    to build. Above, items are kept in cells, of which a search looks into the
    nearest: as many as it takes to reach the recall asked for. Other queries
    then say how near the index comes to exact search: overall, by popularity,
    and in lost hits.

      dimerec index runs/ml --data data/ml --recall 0.97

    The index goes to cache/index/ in the bundle and is used from then on. It
    is never required: remove it, and one is built as the bundle is opened.

      dimerec index runs/ml --remote http://127.0.0.1:6333

    This makes a collection in a Qdrant server, named after the item vectors.
    """
    from dimerec.errors import ConfigError
    from dimerec.retrieval import EXACT_ENOUGH

    if codes not in ("sq8", "flat"):
        raise ConfigError(f"--codes must be sq8 or flat, got {codes!r}")
    opened = open_bundle(bundle)
    if remote is not None:
        if data is not None or exact_up_to is not None or (recall, codes) != (RECALL, CODES):
            raise ConfigError("--remote puts all vectors into a server as they are: leave the rest")
        return _send(opened, remote, json)
    limit = EXACT_ENOUGH if exact_up_to is None else exact_up_to
    items = opened.vocabulary.size - 1
    if items <= limit:
        if json:
            return output.document({"built": False, "items": items, "exact_up_to": limit})
        return output.line(
            f"{items:,} items: exact search is quick enough up to {limit:,}, so nothing was built "
            "(--exact-up-to sets the limit)."
        )
    built = _build(opened, data, recall, codes)
    if json:
        return output.document({"built": True, "path": opened.index_path, "fidelity": built})
    _show(built)
    output.line(f"Written to {opened.index_path}.")


def _send(bundle: Any, url: str, json: bool) -> None:
    """The bundle's item vectors as a collection of the server at `url`."""
    import torch

    from dimerec.errors import ConfigError
    from dimerec.retrieval import remote

    model = bundle.model()
    if not model.has_vectors:
        raise ConfigError(f"{bundle.config.model} counts; it has no item vectors to index")
    with torch.inference_mode():
        vectors = model.item_vectors().float().numpy()
    name = remote.name(vectors)
    remote.RemoteIndex.build(vectors, url=url, collection=name)
    if json:
        return output.document({"built": True, "items": len(vectors) - 1, "collection": name})
    output.line(f"{len(vectors) - 1:,} items are in the collection {name} at {url}.")


def _build(bundle: Any, data: Path | None, recall: float, codes: Literal["sq8", "flat"]) -> Any:
    """Build, tune, judge and write."""
    import msgspec

    from dimerec import files
    from dimerec.data.dataset import Dataset
    from dimerec.evaluation import fidelity

    dataset = Dataset.open(data) if data is not None else None
    built, report = fidelity.build(bundle, dataset, recall=recall, codes=codes)
    built.save(bundle.index_path)
    content = msgspec.json.format(msgspec.json.encode(report), indent=2)
    files.write_file(bundle.index_path / REPORT, content)
    return report


def _show(report: "Fidelity") -> None:
    output.line(f"Recall at {report.depth} against exact search: {report.recall:.4f}", "bold")
    rows = [
        (band.name, band.items, band.wanted, "" if band.recall is None else f"{band.recall:.4f}")
        for band in report.bands
    ]
    columns = ("items", "in exact's lists", "recall")
    output.table("", ("a third of the events", *columns), rows, right=columns)
    for hit in report.hits:
        output.line(
            f"  HR@{hit.n}: {hit.exact:.2%} by exact search, {hit.index:.2%} by the index "
            f"({-hit.cost:+.2%} of exact's)"
        )
    output.facts(
        [
            ("tuned to", f"{report.target:g}, on other queries"),
            ("judged by", f"{report.queries:,} queries, from {report.histories}"),
            ("cells searched", f"{report.probes:,} of {report.cells:,} ({report.codes})"),
        ]
    )
