"""Batches: training examples cut lazily from the offsets, in an order that is a pure function.

No prefix is ever stored: an example is an index, and its events are gathered when it is asked for.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from dimerec.batch import SequenceBatch
from dimerec.config import RunConfig
from dimerec.data.dataset import Dataset
from dimerec.data.negatives import Negatives
from dimerec.data.queries import gather
from dimerec.errors import ConfigError, DataError
from dimerec.randomness import stream
from dimerec.vocabulary import PADDING


class Batches:
    """Training batches of a dataset; `batch(step)` is a pure function of (seed, step, rank).

    With `targets` "all" an example is a window of up to L + 1 events of a user's training
    segment, cut from its end backwards (windows end at `train_end`, `train_end - L`, ...), and
    every target of the segment stands in exactly one. With "last" an example is one target at a
    position from 1 on, with up to L events before it and the target in the last column. Users
    with fewer than two training events give none.

    An epoch is one permutation of the examples, cut into steps of `training.batch_size`; what is
    left over at its end is dropped (with fewer examples than one batch, the batch is smaller).
    The batch size is that of all ranks together: rank r takes every `world`-th example of the
    step from the r-th on, so the ranks' examples are those of a single process. Shared negatives
    are the same on all ranks, private ones each rank's own, in-batch ones its own targets. With
    "last", private negatives stand in the last column alone, zeros in the others.

    Raises:
        ConfigError: the batch size cannot be divided among the ranks.
        DataError: no user has two training events, or there are fewer examples than ranks.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: RunConfig,
        targets: Literal["all", "last"],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if config.training.batch_size % world:
            raise ConfigError(
                f"training.batch_size {config.training.batch_size} is not a multiple of the "
                f"{world} processes"
            )
        self._items = dataset.items
        self._seed, self._length = config.seed, config.length
        self._last = targets == "last"
        self._rank, self._world = rank, world
        self._private = config.negatives.private
        self._negatives = Negatives(config.negatives, dataset.counts())
        pairs = np.maximum(dataset.train_end - 1, 0)  # training targets of each user
        examples = pairs if self._last else -(-pairs // config.length)
        self._rows = np.flatnonzero(examples)
        if not len(self._rows):
            raise DataError(f"{dataset.path}: no user has two training events to learn from")
        self._starts = dataset.offsets[self._rows]
        self._stops = self._starts + dataset.train_end[self._rows]
        self._ends = np.cumsum(examples[self._rows])  # examples up to and with each row
        self.examples = int(self._ends[-1])
        if self.examples < world:
            raise DataError(f"{dataset.path}: {self.examples} examples for {world} processes")
        self.batch_size = min(config.training.batch_size, self.examples)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every example has been seen once, but for the remainder; at least 1."""
        return self.examples // self.batch_size

    def batch(self, step: int) -> SequenceBatch:
        """The batch of optimiser step `step` (from 0), on the CPU."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = stream(self._seed, "order", epoch).permutation(self.examples)
            self._epoch = epoch
        chosen = self._order[within * self.batch_size : (within + 1) * self.batch_size]
        windows = self._windows(chosen[self._rank :: self._world])
        history, targets = self._pairs(windows)
        own = (self._rank,) if self._private else ()
        rng = stream(self._seed, "negatives", step, *own)
        if not (self._last and self._negatives.private):
            return _tensors(history, targets, *self._negatives.draw(rng, windows, targets))
        drawn = self._negatives.draw(rng, windows, targets[:, -1:])
        return _tensors(history, targets, *(_only_last(d, self._length) for d in drawn))

    def windows_once(self) -> Iterator[SequenceBatch]:
        """All examples once, by user and time, in blocks of the batch size, without negatives."""
        for first in range(0, self.examples, self.batch_size):
            block = np.arange(first, min(first + self.batch_size, self.examples))
            history, targets = self._pairs(self._windows(block))
            yield _tensors(history, targets, np.zeros(0, np.int64), np.zeros(0, np.float32))

    def _windows(self, examples: np.ndarray) -> np.ndarray:
        """Events of the examples (indices `[b]`), int64 `[b, L + 1]`, left-padded."""
        row = np.searchsorted(self._ends, examples, side="right")
        back = self._ends[row] - 1 - examples  # from the user's last example
        end = self._stops[row] - back * (1 if self._last else self._length)
        return gather(self._items, self._starts[row], end, self._length + 1)

    def _pairs(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        history, targets = windows[:, :-1], windows[:, 1:]
        if self._last:
            targets = np.zeros_like(targets)
            targets[:, -1] = windows[:, -1]
            return history, targets
        return history, np.where(history == PADDING, PADDING, targets)


def _only_last(drawn: np.ndarray, length: int) -> np.ndarray:
    """`drawn` `[B, 1, M]` in the last column of zeros `[B, length, M]`."""
    out = np.zeros((len(drawn), length, drawn.shape[2]), drawn.dtype)
    out[:, -1] = drawn[:, 0]
    return out


def _tensors(*arrays: np.ndarray) -> SequenceBatch:
    return SequenceBatch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
