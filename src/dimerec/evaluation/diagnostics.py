"""What a results table does not show: how vectors lie, and whom the lists favour."""

import numpy as np
import torch

from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.errors import DataError
from dimerec.evaluation import exposure, geometry, metrics, slates
from dimerec.evaluation.evaluator import check_vocabulary, device_named
from dimerec.evaluation.exposure import Band
from dimerec.evaluation.geometry import Norms
from dimerec.evaluation.ranking import best, evaluating, inputs, ranks
from dimerec.evaluation.slates import Slates
from dimerec.model import SequentialModel
from dimerec.randomness import stream

LIST_LENGTH = 100
SAMPLE = 10_000  # items, or pairs of items, that uniformity and alignment are taken of


class Vectors(Struct, frozen=True):
    """Of the item vectors; items without a training event are left out.

    Attributes:
        items: how many there are.
        norms: their lengths, as the model scores with them.
        norm_by_popularity: Spearman's correlation of length and training events.
        uniformity: of at most 10,000 of them (`geometry.uniformity`), drawn by seed.
        alignment: of items that users took one after the other in training, at most 10,000 pairs;
            None without a dataset.
        alignment_by_chance: of as many pairs of random training events.
    """

    items: int
    norms: Norms
    norm_by_popularity: float | None
    uniformity: float
    alignment: float | None = None
    alignment_by_chance: float | None = None


class Lists(Struct, frozen=True):
    """Of the recommended lists, and the queries they answer.

    Attributes:
        queries: how many lists there are.
        categories: mean number of categories in a list of 100; None where none are known.
        coverage: list length -> share of the catalogue in at least one list.
        gini: list length -> Gini index of how often each item is recommended.
        novelty: list length -> mean self-information of the recommended items, bits.
        novelty_of_targets: of the items that users really took next.
        interests: K, of a history; None for counting models.
        interest_cosine: mean cosine between them; None where K is 1.
        bands: hits and exposure by popularity of the target.
        slates: coverage of the next 10 items; None where no user has several targets.
    """

    queries: int
    categories: float | None
    coverage: dict[int, float]
    gini: dict[int, float]
    novelty: dict[int, float]
    novelty_of_targets: float
    interests: int | None
    interest_cosine: float | None
    bands: list[Band]
    slates: Slates | None


class Diagnosis(Struct, frozen=True):
    """Everything: `vectors` is None for counting models, `lists` without a dataset."""

    model: str
    weights: str
    vectors: Vectors | None
    lists: Lists | None


def diagnose(
    bundle: Bundle,
    dataset: Dataset | None = None,
    *,
    split: str = "test",
    positions: str = "every-position",
    hide_seen: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
    limit: int = 2000,
) -> Diagnosis:
    """Diagnose a bundle: its item vectors, and with a dataset its lists.

    Args:
        dataset: opened; its vocabulary is the bundle's.
        split, positions, hide_seen, device: as in `evaluator.evaluate`.
        seed: of the samples taken and of a generative model's noise.
        limit: queries, evenly spread, whose lists are made; ranks are of all queries.

    Raises:
        DataError: the dataset is of another catalogue, or its split holds no query.
        ConfigError: there is no such device.
        TrainingDiverged: the model scores with NaN.
    """
    model = bundle.model(device_named(device))
    lists = None
    if dataset is not None:
        check_vocabulary(bundle, dataset)
        queries = dataset.queries(split, positions)
        sample = dataset.queries(split, positions, limit)
        if not len(queries):
            raise DataError(f"{dataset.path}: no query in split {split!r} at {positions!r}")
        how = {"length": bundle.config.length, "hide_seen": hide_seen, "seed": seed}
        how["device"] = device_named(device)
        lists = _lists(model, dataset, queries, sample, split, limit, how)
    found = None
    if model.has_vectors:
        items = model.item_vectors().float().cpu().numpy()
        found = item_vectors(items, bundle.counts.numpy(), dataset, seed)
    return Diagnosis(
        model=bundle.config.model, weights=bundle.weights_digest, vectors=found, lists=lists
    )


def item_vectors(
    vectors: np.ndarray, counts: np.ndarray, dataset: Dataset | None = None, seed: int = 0
) -> Vectors:
    """Of float `[V, d]` vectors and `[V]` training events.

    Raises:
        DataError: fewer than two items have a training event.
    """
    trained = np.flatnonzero(counts > 0)
    if len(trained) < 2:
        raise DataError(f"{len(trained)} item with a training event: vectors need two or more")
    rng = stream(seed, "diagnostics")
    some = trained if len(trained) <= SAMPLE else rng.choice(trained, SAMPLE, replace=False)
    near = chance = None
    if dataset is not None and len(pairs := neighbours(dataset)):
        if len(pairs) > SAMPLE:
            pairs = pairs[rng.choice(len(pairs), SAMPLE, replace=False)]
        near = geometry.alignment(vectors[pairs[:, 0]], vectors[pairs[:, 1]])
        other = rng.permutation(pairs[:, 1])
        chance = geometry.alignment(vectors[pairs[:, 0]], vectors[other])
    length = np.linalg.norm(vectors[trained], axis=1)
    return Vectors(
        items=len(trained),
        norms=geometry.norms(vectors[trained]),
        norm_by_popularity=_spearman(length, counts[trained]),
        uniformity=geometry.uniformity(vectors[some]),
        alignment=near,
        alignment_by_chance=chance,
    )


def neighbours(dataset: Dataset) -> np.ndarray:
    """Pairs of different items that a user took one after the other in training, int64 `[P, 2]`."""
    train = dataset.segment("train")
    pair = train[:-1] & train[1:]
    pair[dataset.offsets[1:-1] - 1] = False  # the last event of one user, the first of the next
    at = np.flatnonzero(pair)
    pairs = np.stack([dataset.items[at], dataset.items[at + 1]], axis=1).astype(np.int64)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _lists(
    model: SequentialModel,
    dataset: Dataset,
    queries: Queries,
    sample: Queries,
    split: str,
    limit: int,
    how: dict,
) -> Lists:
    counts, size = dataset.counts(), dataset.vocabulary.size
    top = best(model, sample, LIST_LENGTH, **how)
    targets = queries.targets(slice(0, len(queries)))
    known = [item.categories for item in dataset.metadata()]
    asked, ahead = slates.upcoming(dataset, split, limit)
    several = interests(model, sample, how["length"], how["seed"], how["device"])
    return Lists(
        queries=len(sample),
        categories=metrics.categories(top, known) if any(known) else None,
        coverage={n: metrics.coverage(top[:, :n], size) for n in metrics.CUTOFFS},
        gini={n: exposure.gini(top[:, :n], size) for n in metrics.CUTOFFS},
        novelty={n: exposure.novelty(top[:, :n], counts) for n in metrics.CUTOFFS},
        novelty_of_targets=exposure.novelty(targets[:, None], counts),
        interests=None if several is None else several.shape[1],
        interest_cosine=None if several is None else geometry.collapse(several),
        bands=exposure.by_band(ranks(model, queries, **how), targets, top[:, :20], counts),
        slates=slates.coverage(best(model, asked, 50, **how), ahead) if len(asked) else None,
    )


def interests(
    model: SequentialModel, queries: Queries, length: int, seed: int, device: torch.device | str
) -> np.ndarray | None:
    """The interests of each query's history, float32 `[Q, K, d]`; None for counting models."""
    if not model.has_vectors:
        return None
    out = []
    with evaluating(model, device):
        for start in range(0, len(queries), 512):
            part = slice(start, min(start + 512, len(queries)))
            history, noise = inputs(model, queries, part, length, seed, device)
            out.append(model.interests(history, noise).float().cpu().numpy())
    return np.concatenate(out)


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Rank correlation; None where one side does not vary."""
    places = []
    for values in (x, y):
        if np.ptp(values) <= 1e-6 * np.abs(values).max():
            return None
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        places.append((np.cumsum(count) - (count - 1) / 2)[place])
    return float(np.corrcoef(*places)[0, 1])
