"""What an approximate index costs: recall against exact search, and hits that it loses.

An index is tuned by some queries and judged by others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.errors import DataError
from dimerec.evaluation.evaluator import check_vocabulary
from dimerec.evaluation.ranking import evaluating, inputs
from dimerec.model import SequentialModel
from dimerec.randomness import history_keys, normal, stream
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.retrieval.tuning import DEPTH, hits, tune

TUNED_BY, JUDGED_BY = 1000, 4000  # queries at most
BATCH = 256
CUTOFFS = (20, 50)
BANDS = ("head", "middle", "tail")


class Band(Struct, frozen=True):
    """Items of about as much training data: each band has a third of the training events.

    Attributes:
        name: "head" (the most popular items), "middle" or "tail".
        items: how many it has.
        wanted: how often exact search has one of them in a list.
        recall: the share of those that the index finds; None where there are none.
    """

    name: str
    items: int
    wanted: int
    recall: float | None


class Hits(Struct, frozen=True):
    """HR at n of the lists that exact search gives, and of those of the index."""

    n: int
    exact: float
    index: float

    @property
    def cost(self) -> float:
        """What the index loses, as a share of exact's; 0 where there is nothing to lose."""
        return (self.exact - self.index) / self.exact if self.exact else 0.0


class Fidelity(Struct, frozen=True):
    """How near an index comes to exact search.

    Attributes:
        queries: how many it was judged by.
        histories: where those came from.
        target: the recall it was tuned to, on other queries.
        recall: share of exact's `depth` best items that the index finds.
        bands: the same by popularity.
        hits: HR at 20 and 50; empty without a dataset.
        codes, cells, probes: of the index, see `ApproximateIndex`.
    """

    queries: int
    histories: str
    depth: int
    target: float
    recall: float
    bands: list[Band]
    hits: list[Hits]
    codes: str
    cells: int
    probes: int


@dataclass(frozen=True)
class Asked:
    """Encoded histories: vectors float32 `[Q, K, d]`, and the targets int64 `[Q]` if known."""

    vectors: np.ndarray
    targets: np.ndarray | None
    histories: str


def build(
    bundle: Bundle,
    dataset: Dataset | None = None,
    *,
    recall: float = 0.97,
    codes: Literal["sq8", "flat"] = "sq8",
) -> tuple[ApproximateIndex, Fidelity]:
    """An index of the bundle's item vectors, tuned to a recall, and what it costs.

    Tuned by histories of the dataset's validation part and judged by those of its test part;
    without a dataset by histories of items drawn by their number of training events.

    Raises:
        DataError: a model without item vectors, no items, a dataset of other items, or a recall
            that cannot be reached.
    """
    model = bundle.model()
    if not model.has_vectors:
        raise DataError(f"{bundle.config.model} counts; it has no item vectors to index")
    if bundle.vocabulary.size < 2:
        raise DataError(f"{bundle.path} knows no items, so there is nothing to index")
    if dataset is None:
        first = _sampled(bundle, model, "tune", TUNED_BY)
        second = _sampled(bundle, model, "judge", TUNED_BY)
    else:
        check_vocabulary(bundle, dataset)
        first = _asked(bundle, model, dataset, "valid", TUNED_BY)
        second = _asked(bundle, model, dataset, "test", JUDGED_BY)
    index = ApproximateIndex(
        ExactIndex.build(model.item_vectors().float().numpy()).vectors, codes=codes
    )
    tune(index, first.vectors, recall)
    return index, measure(index, second, bundle.counts.numpy(), recall)


def measure(
    index: ApproximateIndex, asked: Asked, counts: np.ndarray, target: float = 0.0
) -> Fidelity:
    """Compare an index with exact search.

    Args:
        counts: float32 `[V]` training events of each item.
        target: the recall it was tuned to.
    """
    exact = ExactIndex(index.vectors, index.gone)
    wanted, found = (i.search(asked.vectors, DEPTH)[0] for i in (exact, index))
    hit = hits(found, wanted)
    band = _bands(counts)
    bands = []
    for number, name in enumerate(BANDS):
        there = (wanted > 0) & (band[wanted] == number)
        total = int(there.sum())
        share = float(hit[there].mean()) if total else None
        items = int((band[1:] == number).sum())
        bands.append(Band(name=name, items=items, wanted=total, recall=share))
    pairs = []
    if asked.targets is not None:
        column = asked.targets[:, None]
        for n in CUTOFFS:
            rates = [float((lists[:, :n] == column).any(1).mean()) for lists in (wanted, found)]
            pairs.append(Hits(n=n, exact=rates[0], index=rates[1]))
    return Fidelity(
        queries=len(asked.vectors),
        histories=asked.histories,
        depth=DEPTH,
        target=target,
        recall=float(hit.sum() / max(1, (wanted > 0).sum())),
        bands=bands,
        hits=pairs,
        codes=index.codes,
        cells=index.cells,
        probes=index.probes,
    )


def _bands(counts: np.ndarray) -> np.ndarray:
    """The band of each item, int64 `[V]`: its place among the events, most popular items first."""
    order = 1 + np.argsort(-counts[1:], kind="stable")
    events = counts[order].astype(np.float64)
    before = np.cumsum(events) - events
    band = np.zeros(len(counts), np.int64)
    band[order] = np.minimum(len(BANDS) * before / max(events.sum(), 1), len(BANDS) - 1)
    return band


def _asked(
    bundle: Bundle, model: SequentialModel, dataset: Dataset, split: str, limit: int
) -> Asked:
    """Queries of a split, evenly spread, encoded as `evaluate` does."""
    queries: Queries = dataset.queries(split, "every-position", limit)
    if not len(queries):
        raise DataError(f"{dataset.path}: no query in split {split!r}; prepare it with another")
    vectors = []
    with evaluating(model, "cpu"):
        for start in range(0, len(queries), BATCH):
            part = slice(start, min(start + BATCH, len(queries)))
            batch = inputs(model, queries, part, bundle.config.length, 0, "cpu")
            vectors.append(model.encode(*batch).float().numpy())
    where = f"the validation and test parts of {dataset.card.name}"
    return Asked(np.concatenate(vectors), queries.targets(slice(0, len(queries))), where)


def _sampled(bundle: Bundle, model: SequentialModel, name: str, number: int) -> Asked:
    """Encoded histories of items drawn by popularity."""
    rng = stream(bundle.config.seed, "fidelity", name)
    weights = bundle.counts[1:].numpy().astype(np.float64) + 1e-9
    shape = (number, bundle.config.length)
    history = 1 + rng.choice(len(weights), shape, p=weights / weights.sum())
    keys = history_keys(history)
    noise = normal(0, keys, (model.noise_draws, model.width))
    vectors = []
    with evaluating(model, "cpu"):
        for start in range(0, len(history), BATCH):
            part = slice(start, start + BATCH)
            batch = torch.from_numpy(history[part]), torch.from_numpy(noise[part])
            vectors.append(model.encode(*batch).float().numpy())
    return Asked(np.concatenate(vectors), None, "items drawn by popularity, no real histories")
