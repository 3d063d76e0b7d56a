"""Negative samplers with the log-probability of one draw."""

import numpy as np

from dimerec.config import NegativesConfig
from dimerec.errors import DataError
from dimerec.vocabulary import PADDING

SLOTS = 4096


class Negatives:
    """Draws the negatives of a batch as `config` says.

    "uniform" draws every item with the same probability. "log-uniform" ranks the items by their
    training events (descending; ties by number) and draws the one of rank r (from 0) with
    probability `log((r + 2) / (r + 1)) / log(V)`. "in-batch" takes the batch's own targets *with
    their repeats*, a random `number` of them at most: each is then one draw from the training
    events, and its log-probability the logarithm of its item's share of them. But a row meets its
    own window among them far more often than that share says: what follows in a session counts as
    a negative of the session itself, unless `exclude = "window"` gives each row the other rows'
    targets alone.

    Args:
        config: see there.
        counts: float32 `[V]`, training events of each item, 0 for padding.

    Attributes:
        private: `draw` gives every position its own negatives.

    Raises:
        DataError: there is no item.
    """

    def __init__(self, config: NegativesConfig, counts: np.ndarray) -> None:
        apart = config.kind == "in-batch" and config.exclude == "window"
        self.private = config.private or apart
        self.config = config
        self._size = len(counts)
        if self._size < 2:
            raise DataError("no items to draw negatives from")
        if config.kind == "log-uniform":
            ranks = np.arange(1, self._size)
            by_count = np.argsort(-counts[1:], kind="stable") + 1
            self._by_rank = by_count
            self._log_p = np.log(np.log1p(1 / ranks) / np.log(self._size)).astype(np.float32)
        elif config.kind == "in-batch":
            with np.errstate(divide="ignore"):
                self._log_p = np.log(counts / max(counts.sum(), 1)).astype(np.float32)

    def draw(
        self, rng: np.random.Generator, windows: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Negatives int64 and `log_q` float32, alike `[M]`, `[B, L, M]` or `[0]` for "none".

        A private negative found in its row's window is 0 with `exclude = "window"`; `log_q` stays
        that of the draw. In-batch negatives are `[B, L, M]` then, the same M but for the zeros.

        Args:
            windows: int64 `[B, W]`, all items of each row, 0 where there is none.
            targets: int64 `[B, L]`, 0 where none counts.
        """
        config = self.config
        if config.kind == "none":
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        if config.kind == "in-batch":
            numbers = targets[targets != PADDING]
            if len(numbers) > config.number:
                numbers = rng.choice(numbers, config.number, replace=False)
            log_q = self._log_p[numbers]
            if self.private:
                shape = (*targets.shape, len(numbers))
                numbers = np.broadcast_to(numbers, shape).copy()
                log_q = np.broadcast_to(log_q, shape)
                clear_seen(numbers, windows, self._size)
            return numbers, log_q
        shape = (*targets.shape, config.number) if config.private else (config.number,)
        numbers, log_q = self._sample(rng, shape)
        if config.exclude == "window":
            clear_seen(numbers, windows, self._size)
        return numbers, log_q

    def _sample(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.config.kind == "uniform":
            numbers = rng.integers(1, self._size, shape, np.uint32).astype(np.int64)
            return numbers, np.full(shape, -np.log(self._size - 1), np.float32)
        # P(floor(V ** u) = r + 1) = (log(r + 2) - log(r + 1)) / log(V) for u uniform in [0, 1)
        draws = np.exp(rng.random(shape) * np.log(self._size)).astype(np.int64) - 1
        ranks = np.minimum(draws, self._size - 2)
        return self._by_rank[ranks], self._log_p[ranks]


def clear_seen(numbers: np.ndarray, windows: np.ndarray, size: int) -> None:
    """Set to 0, in place, each of `numbers` `[B, L, M]` that stands in its row of `windows`.

    Each row's items are dealt into a small table by their low bits; only a number whose slot
    holds another item is compared with the whole window. `size` is V.
    """
    rows = len(windows)
    slots = min(SLOTS, 1 << (size - 1).bit_length())
    base = np.arange(0, rows * slots, slots)
    row, column = np.nonzero(windows)
    held = windows[row, column]
    table = np.zeros(rows * slots, np.int64)
    table[base[row] + (held & (slots - 1))] = held
    flat = numbers.reshape(rows, -1)
    at = flat & (slots - 1)
    at += base[:, None]
    held = table.take(at)
    same = held == flat
    if size > slots:
        row, column = np.nonzero((held != PADDING) & ~same)
        same[row, column] = (windows[row] == flat[row, column][:, None]).any(axis=1)
    flat[same] = PADDING
