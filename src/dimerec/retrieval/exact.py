"""Exact search: score every item, keep the best."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dimerec.retrieval import RetrievalIndex, checked
from dimerec.retrieval.filters import Allowed, grouped

BLOCK = 2**24  # scores held at once: 64 MiB
FEW = 16  # where one in so many items is allowed, only those are scored


class ExactIndex(RetrievalIndex):
    """Every item is scored, users block by block."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self._items = torch.from_numpy(vectors).T  # [d, V]

    @classmethod
    def build(cls, vectors: np.ndarray) -> Self:
        """An exact index; the vectors are kept as they are, without a copy where possible."""
        return cls(checked(vectors))

    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        numbers, best = np.zeros((users, n), np.int64), np.zeros((users, n), np.float32)
        for rows, allowed in grouped(allow):
            items, columns = self._items, None
            if allowed is not None and len(allowed) * FEW <= len(self.vectors):
                columns = np.append(0, allowed.numbers)  # 0 is padding here, too
                items, allowed = torch.from_numpy(self.vectors[columns]).T, None
            step = max(1, BLOCK // (interests * items.shape[1]))
            for start in range(0, len(rows), step):
                block = rows[start : start + step]
                scores = torch.from_numpy(queries[block]).reshape(-1, width) @ items  # [b * K, V]
                scores = scores.reshape(len(block), interests, -1).amax(dim=1)  # [b, V]
                hidden = [exclude[r] for r in block]
                if columns is not None:
                    hidden = [np.flatnonzero(np.isin(columns, e)) for e in hidden]
                found, best[block] = top(scores, n, hidden, [allowed] * len(block))
                numbers[block] = found if columns is None else columns[found]
        return numbers, best


def top(
    scores: Tensor,
    n: int,
    exclude: Sequence[np.ndarray],
    allow: Sequence[Allowed | None] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """The n best columns of each row; **`scores` is overwritten** where items may not come.

    Args:
        scores: float `[B, V]` on any device; column 0 is padding, NaN counts as -inf.
        n: at least 1; may exceed V - 1.
        exclude: B int64 arrays of columns in 0..V-1 that must not come.
        allow: B sets of columns of which alone some may come, None for all; empty for all.

    Returns:
        numbers int64 `[B, n]`, scores float32 `[B, n]`, best first, equal scores by smaller
        number; 0 and -inf where fewer than n exist (a score of -inf is no item).
    """
    size = scores.shape[1]
    scores[:, 0] = -torch.inf
    lengths = [len(e) for e in exclude]
    if any(lengths):
        rows = torch.from_numpy(np.repeat(np.arange(len(exclude)), lengths))
        columns = torch.from_numpy(np.concatenate(exclude))
        scores[rows.to(scores.device), columns.to(scores.device)] = -torch.inf
    for rows, allowed in grouped(allow):
        if allowed is not None:
            barred = torch.from_numpy(~allowed.mask(size)).to(scores.device)
            for row in rows:
                scores[row].masked_fill_(barred, -torch.inf)
    most = min(n, size)
    best, columns = scores.topk(min(most + 1, size), dim=1)
    broken = best[:, 0].isnan()  # topk puts NaN first
    if bool(broken.any()):
        scores.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        best, columns = scores.topk(min(most + 1, size), dim=1)
    if size > most:
        # topk leaves open which of the items tied at the border it takes.
        tied = ((best[:, most - 1] == best[:, most]) & (best[:, most] > -torch.inf)).nonzero()[:, 0]
        best, columns = best[:, :most], columns[:, :most]
        if len(tied):
            columns[tied] = _smallest_of_tied(scores[tied], best[tied, -1:], most)
            best[tied] = scores[tied].gather(1, columns[tied])
    values = best.float().cpu().numpy()
    numbers = columns.cpu().numpy()
    order = np.lexsort((numbers, -values), axis=-1)
    values = np.take_along_axis(values, order, 1)
    numbers = np.where(values > -np.inf, np.take_along_axis(numbers, order, 1), 0)
    spare = ((0, 0), (0, n - most))
    return np.pad(numbers, spare), np.pad(values, spare, constant_values=-np.inf)


def _smallest_of_tied(scores: Tensor, border: Tensor, n: int) -> Tensor:
    """Columns `[b, n]` above the border `[b, 1]`, filled up with the smallest that equal it."""
    above, equal = scores > border, scores == border
    spare = n - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1) <= spare))
    return keep.nonzero()[:, 1].reshape(-1, n)
