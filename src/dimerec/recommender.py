"""Histories of outside ids in, recommendations of outside ids out."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from dimerec import retrieval
from dimerec.errors import DataError, ServingError
from dimerec.model import SequentialModel
from dimerec.randomness import normal
from dimerec.retrieval import RetrievalIndex
from dimerec.retrieval.exact import BLOCK, top
from dimerec.vocabulary import Id, Vocabulary

USERS = 256  # encoded at once


class Recommendation(msgspec.Struct, frozen=True):
    """The answer to one history.

    Attributes:
        items: item ids, best first, distinct.
        scores: their scores. The model's, save that the last `filled` items, and all of them when
            the source is "popularity", carry their number of training events.
        source: "model", or "popularity" when the history holds no known item or the model gave
            nothing usable.
        filled: how many items at the end are popular ones because the model gave too few.
        unknown: ids of the history that are not in the catalogue, each once; they were ignored.
    """

    items: list[Id]
    scores: list[float]
    source: Literal["model", "popularity"]
    filled: int = 0
    unknown: list[Id] = []


class Recommender:
    """A model, its index and its vocabulary. Not changed by use, so threads may share one."""

    def __init__(
        self,
        model: SequentialModel,
        vocabulary: Vocabulary,
        counts: Tensor,
        length: int,
        index: RetrievalIndex | None = None,
    ) -> None:
        """
        Args:
            model: put into evaluation mode; runs on the device it is on.
            counts: float32 `[V]` training events of each item: the popularity fallback.
            length: L, the longest history the model is given.
            index: of the model's item vectors; by default the one that fits their number. Not
                used for a counting model.

        Raises:
            DataError: counts or item vectors do not fit the vocabulary.
        """
        self._model = model.eval()
        self._vocabulary = vocabulary
        self._counts = torch.as_tensor(counts, dtype=torch.float32).cpu()
        self._length = length
        self._index = index if model.has_vectors else None
        self._device = next(chain(model.parameters(), model.buffers()), torch.zeros(0)).device
        if model.has_vectors and index is None:
            with torch.inference_mode():
                vectors = model.item_vectors().float().cpu().numpy()
            self._index = retrieval.index(vectors)
        sizes = {"vocabulary": vocabulary.size, "counts": len(self._counts)}
        if self._index is not None:
            sizes["item vectors"] = len(self._index.vectors)
        if len(set(sizes.values())) > 1:
            rows = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise DataError(f"these must have one row an item and one for padding: {rows}")

    def recommend(
        self,
        histories: Sequence[Sequence[Id] | np.ndarray],
        n: int = 20,
        *,
        hide_seen: bool = True,
        seed: int = 0,
    ) -> list[Recommendation]:
        """The n best items for each history (fewer when the catalogue has no more).

        The answer to a history is a function of (history, seed) alone, whatever else is in the
        batch, up to the rounding of matrix products.

        Args:
            histories: item ids of each user, oldest first. Unknown ids are ignored and reported;
                integer ids may come as text. The last L known items reach the model.
            n: items wanted, at least 1.
            hide_seen: leave out every item of the given history.
            seed: of a generative model's noise.

        Raises:
            ServingError: n < 1, or a history that is no list of integers and strings.
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ServingError(f"n must be a whole number of at least 1, got {n!r}")
        ids = _checked(histories)
        numbers = self._numbers(ids)
        lengths = np.array([len(h) for h in ids], np.int64)
        known = [part[part > 0] for part in np.split(numbers, np.cumsum(lengths)[:-1])]
        known = known[: len(ids)]
        wanted = min(int(n), self._vocabulary.size - 1)
        hidden = [np.unique(k) if hide_seen else k[:0] for k in known]

        items = np.zeros((len(ids), wanted), np.int64)
        scores = np.full(items.shape, -np.inf, np.float32)
        rows = np.flatnonzero([len(k) > 0 for k in known])
        for start in range(0, len(rows) if wanted else 0, self._block):
            block = rows[start : start + self._block]
            history = left_padded([known[r] for r in block], self._length)
            found = self._best(history, wanted, [hidden[r] for r in block], seed)
            items[block], scores[block] = found
        by_model = (items > 0).sum(axis=1)
        self._fill(items, scores, by_model, hidden)
        by_all = (items > 0).sum(axis=1)

        out = []
        at = 0
        for r, history in enumerate(ids):
            got, total = int(by_model[r]), int(by_all[r])
            row = numbers[at : at + len(history)]
            at += len(history)
            unknown = [] if len(known[r]) == len(row) else _unknown(history, row)
            from_model = got > 0 or (len(known[r]) > 0 and total == 0)
            out.append(
                Recommendation(
                    items=self._vocabulary.ids(items[r, :total].tolist()),
                    scores=scores[r, :total].tolist(),
                    source="model" if from_model else "popularity",
                    filled=total - got if from_model else 0,
                    unknown=unknown,
                )
            )
        return out

    @property
    def _block(self) -> int:
        """Histories a forward pass; fewer where it makes the scores of a large catalogue."""
        if self._index is not None:
            return USERS
        return max(1, min(USERS, BLOCK // self._vocabulary.size))

    def _numbers(self, histories: list[list[Id]]) -> np.ndarray:
        """Item numbers of all ids in a row, int64; 0 for unknown ones."""
        vocabulary = self._vocabulary
        if not vocabulary.integer:
            return vocabulary.numbers(chain.from_iterable(histories))
        parse = vocabulary.parse
        return vocabulary.numbers(
            parse(i) if isinstance(i, str) else i for i in chain.from_iterable(histories)
        )

    def _best(
        self, history: np.ndarray, n: int, hidden: list[np.ndarray], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The model's n best of histories `[B, L]`: numbers, scores `[B, n]`."""
        model = self._model
        rows = normal(seed, history_keys(history), (model.noise_draws, model.width))
        with torch.inference_mode():
            noise = torch.from_numpy(rows).to(self._device)
            batch = torch.from_numpy(history).to(self._device)
            if self._index is None:
                scores = model.scores(batch, noise).float()  # may be a view of its buffers
                return top(scores.clone(memory_format=torch.contiguous_format), n, hidden)
            queries = model.encode(batch, noise).float().cpu().numpy()
        return self._index.search(queries, n, hidden)

    def _fill(
        self, items: np.ndarray, scores: np.ndarray, have: np.ndarray, hidden: list[np.ndarray]
    ) -> None:
        """Fill rows that have fewer than n items with the most popular others, in place."""
        n = items.shape[1]
        short = np.flatnonzero(have < n)
        step = max(1, BLOCK // self._vocabulary.size)
        for start in range(0, len(short), step):
            rows = short[start : start + step]
            taken = [np.append(hidden[r], items[r, : have[r]]) for r in rows]
            popular = top(self._counts.repeat(len(rows), 1), n, taken)
            column = np.arange(n) - have[rows][:, None]  # popular item j goes to have + j
            free = column >= 0
            column = np.maximum(column, 0)
            for target, source in zip((items, scores), popular, strict=True):
                moved = np.take_along_axis(source, column, axis=1)
                target[rows] = np.where(free, moved, target[rows])


def left_padded(histories: Sequence[np.ndarray], length: int) -> np.ndarray:
    """The last `length` item numbers of each history, int64 `[B, length]`, left-padded with 0."""
    lengths = np.array([len(h) for h in histories], np.int64)
    flat = np.concatenate([*histories, np.zeros(0, np.int64)])
    from_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # 1 is the last
    row = np.repeat(np.arange(len(histories)), lengths)
    keep = from_end <= length
    out = np.zeros((len(histories), length), np.int64)
    out[row[keep], length - from_end[keep]] = flat[keep]
    return out


def history_keys(history: np.ndarray) -> np.ndarray:
    """A 64-bit key of each left-padded history `[B, L]`, uint64 `[B]`; padding does not count."""
    keys = np.zeros(len(history), np.uint64)
    for column in np.ascontiguousarray(history.T).astype(np.uint64):  # the L steps of a hash
        mixed = (keys ^ column) + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        keys = np.where(column > 0, mixed ^ (mixed >> np.uint64(31)), keys)
    return keys


def _checked(histories: Any) -> list[list[Id]]:
    """`histories` as lists; ServingError unless they are lists of integers and strings."""
    if isinstance(histories, str | bytes) or not isinstance(histories, Sequence | np.ndarray):
        raise ServingError(
            f"histories must be a list of lists of item ids, got {type(histories).__name__}"
        )
    out = []
    for place, history in enumerate(histories):
        if isinstance(history, str | bytes | bytearray) or not isinstance(
            history, Sequence | np.ndarray
        ):
            raise ServingError(
                f"history {place} must be a list of item ids, got {type(history).__name__}: "
                "recommend() takes a list of histories, [[id, id, ...]]"
            )
        ids = history.tolist() if isinstance(history, np.ndarray) else list(history)
        kinds = set(map(type, ids))
        if any(issubclass(k, np.generic) for k in kinds):
            ids = [i.item() if isinstance(i, np.generic) else i for i in ids]
            kinds = set(map(type, ids))
        wrong = {k.__name__ for k in kinds if k is bool or not issubclass(k, int | str)}
        if wrong:
            named = ", ".join(sorted(wrong))
            raise ServingError(f"history {place} holds {named}; item ids are integers or strings")
        out.append(ids)
    return out


def _unknown(history: list[Id], numbers: np.ndarray) -> list[Id]:
    """The ids of `history` whose number is 0, each once, in order."""
    return list(dict.fromkeys(i for i, n in zip(history, numbers, strict=True) if n == 0))
