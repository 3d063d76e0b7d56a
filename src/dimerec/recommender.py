"""Histories of outside ids in, recommendations of outside ids out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from dimerec import retrieval
from dimerec.config import Struct
from dimerec.errors import DataError, ServingError
from dimerec.model import SequentialModel
from dimerec.randomness import history_keys, normal
from dimerec.retrieval import RetrievalIndex
from dimerec.retrieval.diversity import diverse
from dimerec.retrieval.exact import BLOCK, top
from dimerec.retrieval.filters import Allowed, Shelf
from dimerec.vocabulary import Id, Item, Vocabulary

USERS = 256  # encoded at once
CANDIDATES = 5  # times n items are found, where n of them are to differ
_NONE, _NO_SCORES = np.zeros(0, np.int64), np.zeros(0, np.float32)


class Query(Struct, frozen=True):
    """One request.

    Attributes:
        history: item ids, oldest first. Unknown ids are ignored and reported; integer ids may
            come as text. The last L known items reach the model.
        n: items wanted, at least 1; more than are allowed is no error.
        hide_seen: leave out every item of `history`.
        exclude: ids that must not come.
        only: ids of which alone the answer may consist; None for all, an empty list for none.
        categories: names; only items of at least one of them come. Empty for all.
        diversity: ComiRec's lambda, at least 0, on the scale of the scores: what each pair of
            items without a common category adds to a list's worth. The list is chosen among the
            `CANDIDATES` n best. Popular items are not rearranged.
        seed: of a generative model's noise.
    """

    history: list[Id]
    n: Annotated[int, Meta(ge=1)] = 20
    hide_seen: bool = True
    exclude: list[Id] = []
    only: list[Id] | None = None
    categories: list[str] = []
    diversity: Annotated[float, Meta(ge=0)] = 0.0
    seed: int = 0


class Recommendation(msgspec.Struct, frozen=True):
    """The answer to one query.

    Attributes:
        items: item ids, distinct, best first (in the order of choice where diversity was asked).
        scores: their scores. The model's, save that the last `filled` items, and all of them when
            the source is "popularity", carry their number of training events.
        source: "model", or "popularity" when the history holds no known item or the model gave
            nothing usable.
        filled: how many items at the end are popular ones because the model gave too few.
        unknown: ids of the query that are not in the catalogue, each once; they were ignored.
    """

    items: list[Id]
    scores: list[float]
    source: Literal["model", "popularity"]
    filled: int = 0
    unknown: list[Id] = []


@dataclass(slots=True)
class _Asked:
    """A query in numbers. known `[h]`, hidden `[x]`: int64; fetch: items asked of the index."""

    known: np.ndarray
    hidden: np.ndarray
    allowed: Allowed | None
    unknown: list[Id]
    fetch: int


class Recommender:
    """A model, its index and its vocabulary. Not changed by use, so threads may share one."""

    def __init__(
        self,
        model: SequentialModel,
        vocabulary: Vocabulary,
        counts: Tensor,
        length: int,
        index: RetrievalIndex | None = None,
        items: Sequence[Item] = (),
        encode: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """
        Args:
            model: put into evaluation mode; runs on the device it is on.
            counts: float32 `[V]` training events of each item: the popularity fallback.
            length: L, the longest history the model is given.
            index: of the model's item vectors; by default the one that fits their number. Not
                used for a counting model.
            items: V - 1 titles and categories in number order; without them no categories are
                known.
            encode: what runs in place of the model's own, such as its compiled form.

        Raises:
            DataError: counts, items or item vectors do not fit the vocabulary.
        """
        self._model = model.eval()
        self._encode = encode
        self._vocabulary = vocabulary
        self._length = length
        self._index = index if model.has_vectors else None
        self._device = next(chain(model.parameters(), model.buffers()), torch.zeros(0)).device
        if model.has_vectors and index is None:
            with torch.inference_mode():
                vectors = model.item_vectors().float().cpu().numpy()
            self._index = retrieval.index(vectors)
        table = torch.as_tensor(counts, dtype=torch.float32).cpu().numpy()
        sizes = {"vocabulary": vocabulary.size, "counts": len(table)}
        if self._index is not None:
            sizes["item vectors"] = self._index.size
        if len(set(sizes.values())) > 1:
            rows = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise DataError(f"these must have one row an item and one for padding: {rows}")
        self._shelf = Shelf(table, items)

    def recommend(
        self,
        histories: Sequence[Sequence[Id] | np.ndarray],
        n: int = 20,
        *,
        hide_seen: bool = True,
        seed: int = 0,
    ) -> list[Recommendation]:
        """The n best items for each history (fewer when the catalogue has no more).

        `answer` of histories alone; the arguments are fields of `Query`. Histories and their ids
        may also be NumPy arrays and integers.

        Raises:
            ServingError: n < 1, or a history that is no list of integers and strings.
        """
        if isinstance(n, np.integer):
            n = int(n)
        _check_n(n)
        asked = _lists(histories)
        return self.answer([Query(h, n=n, hide_seen=hide_seen, seed=seed) for h in asked])

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        """The answer to each query, in their order.

        An answer is a function of its query alone, whatever else is in the batch, up to the
        rounding of matrix products.

        Raises:
            ServingError: a query out of range, of a category that no item has, or asking for
                diversity where no categories are known; names the query and the way out.
        """
        asked = [self._read(query, place) for place, query in enumerate(queries)]
        found: list[tuple[np.ndarray, np.ndarray]] = [(_NONE, _NO_SCORES)] * len(asked)
        rows = [r for r, a in enumerate(asked) if len(a.known) and a.fetch]
        for start in range(0, len(rows), self._block):
            block = rows[start : start + self._block]
            for row, best in zip(block, self._best(block, queries, asked), strict=True):
                found[row] = best
        return [
            self._answer(query, a, *best)
            for query, a, best in zip(queries, asked, found, strict=True)
        ]

    def _read(self, query: Query, place: int) -> _Asked:
        """`query` in numbers; ServingError when it cannot be answered."""
        _check(query, place)
        shelf = self._shelf
        known = self._numbers(query.history)
        unknown = _unknown(query.history, known)
        known = known[known > 0]
        hidden = known if query.hide_seen else _NONE
        if query.exclude:
            numbers = self._numbers(query.exclude)
            unknown += _unknown(query.exclude, numbers)
            hidden = np.concatenate([hidden, numbers])
        only = None
        if query.only is not None:
            only = self._numbers(query.only)
            unknown += _unknown(query.only, only)
        for name in query.categories:
            if name not in shelf:
                raise ServingError(
                    f"query {place}: no item has the category {name!r}; known are "
                    f"{shelf.named() or 'none'}"
                )
        if query.diversity and shelf.table is None:
            raise ServingError(
                f"query {place}: diversity is over categories, but no item has any; leave it out"
            )
        fetch = query.n * (CANDIDATES if query.diversity else 1)
        return _Asked(
            known=known,
            hidden=hidden,
            allowed=shelf.allowed(only, query.categories),
            unknown=list(dict.fromkeys(unknown)),
            fetch=min(fetch, shelf.size - 1),
        )

    @property
    def _block(self) -> int:
        """Histories a forward pass; fewer where it makes the scores of a large catalogue."""
        if self._index is not None:
            return USERS
        return max(1, min(USERS, BLOCK // self._vocabulary.size))

    def _numbers(self, ids: list[Id]) -> np.ndarray:
        """Item numbers of ids, int64; 0 for unknown ones."""
        vocabulary = self._vocabulary
        if not vocabulary.integer:
            return vocabulary.numbers(ids)
        parse = vocabulary.parse
        return vocabulary.numbers(parse(i) if isinstance(i, str) else i for i in ids)

    def _best(
        self, block: list[int], queries: Sequence[Query], asked: list[_Asked]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """What the model recommends to the rows `block`: numbers and scores of each."""
        some = [asked[r] for r in block]
        history = left_padded([a.known for a in some], self._length)
        noise = self._noise([queries[r].seed for r in block], history)
        model, index = self._model, self._index
        with torch.inference_mode():
            batch = torch.from_numpy(history).to(self._device)
            rows = torch.from_numpy(noise).to(self._device)
            if index is None:
                scores, vectors = model.scores(batch, rows).float(), _NO_SCORES
            else:
                encode = self._encode or model.encode
                scores, vectors = rows, encode(batch, rows).float().cpu().numpy()
        out: list[tuple[np.ndarray, np.ndarray]] = [(_NONE, _NO_SCORES)] * len(block)
        fetch = np.array([a.fetch for a in some])
        for n in set(fetch.tolist()):  # so that no query gets a list of its neighbour's length
            same = np.flatnonzero(fetch == n)
            hidden, allow = [some[r].hidden for r in same], [some[r].allowed for r in same]
            if index is None:  # a copy, for the scores may be a view of the model's buffers
                found = top(scores[torch.from_numpy(same)], n, hidden, allow)
            else:
                found = index.search(vectors[same], n, hidden, allow)
            for row, numbers, best in zip(same, *found, strict=True):
                there = int((numbers > 0).sum())
                out[row] = numbers[:there], best[:there]
        return out

    def _noise(self, seeds: list[int], history: np.ndarray) -> np.ndarray:
        """float32 `[B, S, d]`: each row a function of its seed and history."""
        shape = (self._model.noise_draws, self._model.width)
        if not self._model.noise_draws:
            return np.zeros((len(history), *shape), np.float32)
        keys = history_keys(history)
        if len(set(seeds)) == 1:
            return normal(seeds[0], keys, shape)
        out = np.zeros((len(keys), *shape), np.float32)
        for seed in set(seeds):
            same = [row for row, s in enumerate(seeds) if s == seed]
            out[same] = normal(seed, keys[same], shape)
        return out

    def _answer(
        self, query: Query, asked: _Asked, numbers: np.ndarray, scores: np.ndarray
    ) -> Recommendation:
        """The model's items (of none, nothing came) and, where they are too few, popular ones."""
        n, shelf = min(query.n, self._vocabulary.size - 1), self._shelf
        if query.diversity and shelf.table is not None and len(numbers):
            pair = diverse(numbers[None], scores[None], shelf.table, n, query.diversity)
            numbers, scores = pair[0][0], pair[1][0]
            numbers, scores = numbers[numbers > 0], scores[numbers > 0]
        got = len(numbers)
        if got < n:
            taken = np.concatenate([asked.hidden, numbers])
            more = shelf.popular(n - got, taken, asked.allowed)
            numbers = np.concatenate([numbers, more])
            scores = np.concatenate([scores, shelf.counts[more]])
        from_model = got > 0 or (len(asked.known) > 0 and not len(numbers))
        return Recommendation(
            items=self._vocabulary.ids(numbers),
            scores=scores.tolist(),
            source="model" if from_model else "popularity",
            filled=len(numbers) - got if from_model else 0,
            unknown=asked.unknown,
        )


def left_padded(histories: Sequence[np.ndarray], length: int) -> np.ndarray:
    """The last `length` item numbers of each history, int64 `[B, length]`, left-padded with 0."""
    if len(histories) == 1:  # what one request asks
        last = histories[0][-length:]
        alone = np.zeros((1, length), np.int64)
        alone[0, length - len(last) :] = last
        return alone
    lengths = np.array([len(h) for h in histories], np.int64)
    flat = np.concatenate([*histories, np.zeros(0, np.int64)])
    from_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # 1 is the last
    row = np.repeat(np.arange(len(histories)), lengths)
    keep = from_end <= length
    out = np.zeros((len(histories), length), np.int64)
    out[row[keep], length - from_end[keep]] = flat[keep]
    return out


def _lists(histories: Any) -> list[list[Id]]:
    """`histories` as lists, NumPy's integers as plain ones; ServingError where they are neither."""
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
        if any(isinstance(i, np.generic) for i in ids):
            ids = [i.item() if isinstance(i, np.generic) else i for i in ids]
        _check_ids(ids, f"history {place}")
        out.append(ids)
    return out


def _check(query: Query, place: int) -> None:
    """ServingError unless the values are of the kinds and ranges that `Query` declares."""
    where = f"query {place}: "
    _check_n(query.n, where)
    lists = [("history", query.history), ("exclude", query.exclude), ("only", query.only or [])]
    for name, ids in lists:
        if not isinstance(ids, list):
            raise ServingError(f"{where}{name} must be a list of ids, got {type(ids).__name__}")
        _check_ids(ids, f"{where}{name}")
    if not 0 <= query.diversity < np.inf:
        raise ServingError(
            f"{where}diversity must be a finite number of at least 0, got {query.diversity!r}"
        )


def _check_n(n: Any, where: str = "") -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ServingError(f"{where}n must be a whole number of at least 1, got {n!r}")


def _check_ids(ids: list[Any], what: str) -> None:
    kinds = set(map(type, ids))
    if kinds <= {int, str}:
        return
    wrong = {k.__name__ for k in kinds if k is bool or not issubclass(k, int | str)}
    if wrong:
        named = ", ".join(sorted(wrong))
        raise ServingError(f"{what} holds {named}; item ids are integers or strings")


def _unknown(ids: list[Id], numbers: np.ndarray) -> list[Id]:
    """The ids whose number is 0."""
    if np.count_nonzero(numbers) == len(numbers):
        return []
    return [i for i, n in zip(ids, numbers.tolist(), strict=True) if n == 0]
