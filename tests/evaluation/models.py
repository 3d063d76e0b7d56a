"""Models whose scores a test writes down, and queries made of plain lists."""

import numpy as np
import torch
from torch import Tensor

from dimerec.data.queries import Queries
from dimerec.model import CountingModel, SequentialModel


class Vectors(SequentialModel):
    """Queries looked up by the last item of the history: `table` `[V, K, d]`, items `[V, d]`."""

    def __init__(self, table: np.ndarray, items: np.ndarray) -> None:
        super().__init__()
        self.table = torch.from_numpy(np.array(table, np.float32))
        self.items = torch.from_numpy(np.array(items, np.float32))
        self.width = self.items.shape[1]

    def loss(self, batch, rng):
        raise NotImplementedError

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        assert not self.training, "evaluated in training mode"
        return self.table[history[:, -1]]

    def item_vectors(self) -> Tensor:
        return self.items


class Noisy(Vectors):
    """Queries are the mean of the noise rows: only the noise decides."""

    noise_draws = 3

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return noise.mean(dim=1, keepdim=True)


class Scores(CountingModel):
    """Scores `[V, V]` looked up by the last item of the history."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = torch.from_numpy(np.array(table, np.float32))

    def observe(self, batch) -> None:
        raise NotImplementedError

    def scores(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.table[history[:, -1]]


def queries(sequences: list[list[int]], where: list[tuple[int, int]] | None = None) -> Queries:
    """Queries into users' `sequences`: `(user, position)` pairs, by default each user's last."""
    where = [(u, len(s) - 1) for u, s in enumerate(sequences)] if where is None else where
    return Queries(
        items=np.array([i for s in sequences for i in s], np.int32),
        offsets=np.cumsum([0, *map(len, sequences)]),
        rows=np.array([u for u, _ in where], np.int64),
        positions=np.array([p for _, p in where], np.int64),
    )


def sorted_ranks(scores: np.ndarray, asked: Queries, hide_seen: bool) -> list[float]:
    """The same ranks by sorting every candidate, one query at a time; exact ties only."""
    out = []
    for q in range(len(asked)):
        one = slice(q, q + 1)
        target = int(asked.targets(one)[0])
        row = scores[asked.histories(one, 1)[0, 0]]
        seen = set(asked.seen(one)[0].tolist()) if hide_seen else set()
        candidates = [i for i in range(1, len(row)) if i == target or i not in seen]
        ordered = sorted((float(row[i]) for i in candidates), reverse=True)
        places = [p for p, s in enumerate(ordered, start=1) if s == float(row[target])]
        out.append(sum(places) / len(places))  # the middle of the tied places
    return out
