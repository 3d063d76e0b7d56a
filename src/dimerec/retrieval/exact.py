"""Exact search: score every item, keep the best."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dimerec.retrieval import RetrievalIndex, checked

BLOCK = 2**24  # scores held at once: 64 MiB


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
        self, queries: np.ndarray, n: int, exclude: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        rows = max(1, BLOCK // (interests * len(self.vectors)))
        found = []
        for start in range(0, users, rows):
            block = torch.from_numpy(queries[start : start + rows])
            scores = block.reshape(-1, width) @ self._items  # [b * K, V]
            scores = scores.reshape(len(block), interests, -1).amax(dim=1)  # [b, V]
            found.append(top(scores, n, exclude[start : start + rows]))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def top(scores: Tensor, n: int, exclude: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The n best columns of each row; **`scores` is overwritten** where items may not come.

    Args:
        scores: float `[B, V]` on any device; column 0 is padding, NaN counts as -inf.
        n: at least 1; may exceed V - 1.
        exclude: B int64 arrays of columns in 0..V-1 that must not come.

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
