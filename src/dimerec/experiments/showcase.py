"""One test user: what was watched, what two models recommend, and where it all lies on a map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec.bundle import Bundle
from dimerec.data.dataset import Dataset
from dimerec.randomness import normal
from dimerec.recommender import left_padded

SHOWN, SAMPLES = 10, 32


@dataclass(frozen=True)
class Shown:
    """One item of a list.

    Attributes:
        hit: whether the user really took it later.
    """

    number: int
    title: str
    categories: tuple[str, ...]
    hit: bool = False


@dataclass(frozen=True)
class Showcase:
    """One user.

    Attributes:
        user: outside id.
        history: item numbers before the cut, oldest first.
        later: item numbers after the cut.
        recent: the last ones of the history, newest first.
        lists: label of a model -> its best items, seen ones left out.
    """

    user: int | str
    history: list[int]
    later: list[int]
    recent: list[Shown]
    lists: dict[str, list[Shown]]


def typical(dataset: Dataset) -> int:
    """Row of the test user whose number of events is the (lower) median of all test users."""
    n = np.diff(dataset.offsets)
    rows = np.flatnonzero(dataset.valid_end < n)
    return int(rows[np.argsort(n[rows], kind="stable")[(len(rows) - 1) // 2]])


def showcase(dataset: Dataset, bundles: dict[str, Bundle], row: int, seed: int) -> Showcase:
    """The user of `row`, cut before the last fifth of the events; lists of `bundles` by label."""
    start, stop = int(dataset.offsets[row]), int(dataset.offsets[row + 1])
    cut = start + max(int(dataset.valid_end[row]), (stop - start) * 4 // 5, 1)
    history, later = dataset.items[start:cut].tolist(), dataset.items[cut:stop].tolist()
    known = dataset.metadata()

    def shown(number: int, hits: set[int] | None = None) -> Shown:
        item = known[number - 1]
        title = item.title or str(dataset.vocabulary.ids([number])[0])
        return Shown(number, title, item.categories, number in (hits or ()))

    ids = dataset.vocabulary.ids(history)
    lists = {}
    for label, bundle in bundles.items():
        best = bundle.recommender().recommend([ids], SHOWN, hide_seen=True, seed=seed)[0]
        numbers = dataset.vocabulary.numbers(best.items).tolist()
        lists[label] = [shown(i, set(later)) for i in numbers]
    return Showcase(
        user=dataset.users.ids([row + 1])[0],
        history=history,
        later=later,
        recent=[shown(i) for i in history[: -SHOWN - 1 : -1]],
        lists=lists,
    )


def vectors(bundle: Bundle, history: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """DimeRec's interests `[K, d]` and generated vectors `[S, d]` for a history, unit length."""
    model: Any = bundle.with_options({"merge": "each", "samples": SAMPLES}).model()
    batch = torch.from_numpy(left_padded([np.array(history)], bundle.config.length))
    keys = np.zeros(1, np.uint64)
    noise = torch.from_numpy(normal(seed, keys, (model.noise_draws, model.width)))
    with torch.no_grad():
        interests, made = model.guide(batch)[0], model.encode(batch, noise)[0]
    return _unit(interests), _unit(made)


def _unit(x: Tensor) -> np.ndarray:
    return F.normalize(x, dim=-1).numpy()


@dataclass(frozen=True, eq=False)
class Map:
    """A plane through the item vectors.

    Attributes:
        numbers: int64 `[n]`, the items that define it, most popular first.
        points: float32 `[n, 2]`, where they lie.
        share: part of their variance that the plane shows.
    """

    numbers: np.ndarray
    points: np.ndarray
    share: float
    centre: np.ndarray
    axes: np.ndarray

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Where unit vectors `[m, d]` lie, `[m, 2]`."""
        return (vectors - self.centre) @ self.axes


def item_map(bundle: Bundle, limit: int) -> Map:
    """The two principal components of the `limit` most popular items' unit vectors."""
    counts = bundle.counts.numpy()
    numbers = np.argsort(-counts[1:], kind="stable")[:limit] + 1
    known = _unit(bundle.model().item_vectors()[torch.from_numpy(numbers)])
    centre = known.mean(0)
    _, size, axes = np.linalg.svd(known - centre, full_matrices=False)
    plane = axes[:2].T
    share = float((size[:2] ** 2).sum() / (size**2).sum())
    return Map(numbers, (known - centre) @ plane, share, centre, plane)
