"""One bundle scored as several papers score: how far apart do the same recommendations look?

A protocol here is what is asked and how answers are counted, not how the data were split: the
bundle stays as it was trained, and the questions are of the dataset's test users. Each definition
was read from the authors' public code, whose quirks are kept where a name says so.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.errors import DataError
from dimerec.evaluation import metrics
from dimerec.evaluation.candidates import candidate_ranks, others
from dimerec.evaluation.evaluator import check_vocabulary, device_named
from dimerec.evaluation.ranking import best, ranks
from dimerec.evaluation.sets import SetScores, score_sets, set_queries

CUTOFFS = metrics.CUTOFFS
CANDIDATES = 100
DREAMREC_LENGTH, DREAMREC_BATCH = 10, 100


class Definition(Struct, frozen=True):
    """What a protocol asks and how it counts, in words."""

    name: str
    targets: str
    history: str
    candidates: str
    normaliser: str
    note: str = ""


FULL = "all items"
SINGLE = "1 (one target): NDCG = 1 / log2(1 + rank)"
FRACTION = "the last 20 % of a test user's items, as one set a user (from floor(0.8 n))"
DEFINITIONS = (
    Definition(
        name="full-ranking",
        targets="every position of the test users, the next item",
        history="all items before",
        candidates=FULL,
        normaliser=SINGLE,
        note="this project's default",
    ),
    Definition(
        name="leave-one-out",
        targets="the last item of each test user",
        history="all items before",
        candidates=FULL,
        normaliser=SINGLE,
    ),
    Definition(
        name="dreamrec",
        targets="every position of the test users, the next item",
        history=f"the last {DREAMREC_LENGTH} items",
        candidates=FULL,
        normaliser=SINGLE,
        note=f"queries beyond the last full {DREAMREC_BATCH} are dropped, as its code does",
    ),
    Definition(
        name="comirec",
        targets=FRACTION,
        history="all items before the set",
        candidates=FULL,
        normaliser="the DCG of as many hits as were found, placed first: one hit anywhere "
        "at the top gives NDCG 1 whatever was missed",
        note="HR: any of the set found",
    ),
    Definition(
        name="comirec-corrected",
        targets=FRACTION,
        history="all items before the set",
        candidates=FULL,
        normaliser="the DCG of min(n, targets) hits placed first",
        note="as comirec, with the normaliser that the name NDCG stands for",
    ),
    Definition(
        name="one-against-100",
        targets="the last item of each test user",
        history="all items before",
        candidates=f"the target and {CANDIDATES} random items that the user never took",
        normaliser=SINGLE,
        note="legacy: its numbers are not those of recommending, and may rank models otherwise",
    ),
)
NAMES = tuple(d.name for d in DEFINITIONS)


class Row(Struct, frozen=True):
    """A bundle under one protocol.

    Attributes:
        name: of the definition.
        queries: that were scored; for a set protocol one a user.
        hr, ndcg: cut-off -> mean over queries. NDCG by the protocol's normaliser.
        recall: share of a query's targets that were found; the hit rate where there is one.
        candidates_digest: SHA-256 (hex) of the frozen candidates, where they were drawn.
    """

    name: str
    queries: int
    hr: dict[int, float]
    ndcg: dict[int, float]
    recall: dict[int, float]
    candidates_digest: str | None = None


def rescore(
    bundle: Bundle,
    dataset: Dataset,
    names: tuple[str, ...] = NAMES,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
) -> list[Row]:
    """Score a bundle under each named protocol; no seen item is hidden in any.

    Histories are cut to what the bundle was trained for, as always. The candidates of
    "one-against-100" depend on the dataset alone, never on `seed`.

    Args:
        seed: of a generative model's noise.

    Raises:
        DataError: there is no such protocol, the test split holds nothing that one asks for, or
            the dataset is of another catalogue.
        ConfigError: there is no such device.
    """
    for name in names:
        if name not in NAMES:
            raise DataError(f"no protocol {name!r}: take one of {', '.join(NAMES)}")
    check_vocabulary(bundle, dataset)
    chosen = device_named(device)
    model = bundle.model(chosen)
    how = {"length": bundle.config.length, "seed": seed, "device": chosen}
    sets: Mapping[str, SetScores] = {}
    out = []
    for name in names:
        if name.startswith("comirec"):
            if not sets:
                asked, wanted = set_queries(dataset)
                _some(len(asked), dataset, name)
                sets = score_sets(best(model, asked, max(CUTOFFS), **how), wanted, CUTOFFS)
            one = sets[name]
            out.append(Row(name, one.queries, one.hr, one.ndcg, one.recall))
            continue
        every = name in ("full-ranking", "dreamrec")
        queries = dataset.queries("test", "every-position" if every else "last")
        digest = None
        if name == "dreamrec":
            queries = whole_batches(queries, dataset)
        _some(len(queries), dataset, name)
        if name == "one-against-100":
            drawn = others(dataset, queries, CANDIDATES)
            digest = hashlib.sha256(np.ascontiguousarray(drawn, "<i8").data).hexdigest()
            found = candidate_ranks(model, queries, drawn, **how)
        else:
            length = min(how["length"], DREAMREC_LENGTH) if name == "dreamrec" else how["length"]
            found = ranks(model, queries, **{**how, "length": length})
        hr = {n: float(metrics.hr(found, n).mean()) for n in CUTOFFS}
        ndcg = {n: float(metrics.ndcg(found, n).mean()) for n in CUTOFFS}
        out.append(Row(name, len(queries), hr, ndcg, hr, digest))
    return out


def whole_batches(queries: Queries, dataset: Dataset, size: int = DREAMREC_BATCH) -> Queries:
    """The first queries, a multiple of `size` of them; all where there are fewer than `size`."""
    kept = len(queries) // size * size or len(queries)
    return Queries(
        items=dataset.items,
        offsets=dataset.offsets,
        rows=queries.rows[:kept],
        positions=queries.positions[:kept],
    )


def _some(count: int, dataset: Dataset, name: str) -> None:
    if not count:
        raise DataError(
            f"{dataset.path}: its test split holds no query of protocol {name!r}: choose others, "
            "or prepare with a protocol that fills it"
        )
