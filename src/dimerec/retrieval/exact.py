"""Exact search: score every item, keep the best."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dimerec.retrieval.filters import Allowed, grouped
from dimerec.retrieval.local import LocalIndex

BLOCK = 2**24  # scores held at once: 64 MiB
FEW = 16  # where one in so many items is allowed, only those are scored


class ExactIndex(LocalIndex):
    """Every item is scored, users block by block."""

    kind: ClassVar[str] = "exact"

    def _search(
        self,
        queries: np.ndarray,
        n: int,
        exclude: list[np.ndarray],
        allow: list[Allowed | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        users, interests, width = queries.shape
        numbers, best = np.zeros((users, n), np.int64), np.zeros((users, n), np.float32)
        gone = torch.from_numpy(self.gone)
        for rows, allowed in grouped(allow):
            items, columns = torch.from_numpy(self.vectors).T, None  # [d, V]
            if allowed is not None and len(allowed) * FEW <= self.size:
                columns = np.append(0, np.setdiff1d(allowed.numbers, self.gone))
                items, allowed = torch.from_numpy(self.vectors[columns]).T, None
            for block in blocks(rows, BLOCK // (interests * items.shape[1])):
                scores = torch.from_numpy(queries[block]).reshape(-1, width) @ items  # [b * K, V]
                if interests > 1:
                    scores = scores.reshape(len(block), interests, -1).amax(dim=1)  # [b, V]
                hidden = [exclude[r] for r in block]
                if columns is not None:
                    hidden = [np.flatnonzero(np.isin(columns, e)) for e in hidden]
                elif len(gone):
                    scores.index_fill_(1, gone, -torch.inf)
                found, best[block] = top(scores, n, hidden, [allowed] * len(block))
                numbers[block] = found if columns is None else columns[found]
        return numbers, best


def blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`rows` `[r]` in parts of at most `size` (at least one)."""
    step = max(1, size)
    return (rows[start : start + step] for start in range(0, len(rows), step))


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
    if bool(best[:, 0].isnan().any()):  # topk puts NaN first
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
    rows, order = np.arange(len(values))[:, None], np.lexsort((numbers, -values), axis=-1)
    values, numbers = values[rows, order], numbers[rows, order]
    numbers[values == -np.inf] = 0
    if n > most:
        spare = ((0, 0), (0, n - most))
        numbers, values = np.pad(numbers, spare), np.pad(values, spare, constant_values=-np.inf)
    return numbers, values


def _smallest_of_tied(scores: Tensor, border: Tensor, n: int) -> Tensor:
    """Columns `[b, n]` above the border `[b, 1]`, filled up with the smallest that equal it."""
    above, equal = scores > border, scores == border
    spare = n - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1) <= spare))
    return keep.nonzero()[:, 1].reshape(-1, n)
