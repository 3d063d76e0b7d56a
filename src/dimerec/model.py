"""The contract of every model: a history becomes a few query vectors.

`score(u, i) = max_k <q_k, v_i>`: an item is as good as its best inner product with one of the
queries. Training, evaluation, search and serving know models by this contract alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dimerec.batch import SequenceBatch


@dataclass(frozen=True)
class Catalogue:
    """What a model may know of the data before training.

    Attributes:
        size: V, items plus padding; numbers run 0..V-1 and 0 is padding.
        length: L, the longest history a model is given.
        counts: float32 `[V]`, events of each item in the training split; 0 for padding.
    """

    size: int
    length: int
    counts: Tensor


@dataclass(frozen=True)
class LossParts:
    """Named scalar losses and their weights; `total` is what is minimised (Eq. 23 for DimeRec)."""

    parts: dict[str, Tensor]
    weights: dict[str, float]

    @property
    def total(self) -> Tensor:
        """Weighted sum of the parts, a scalar."""
        return torch.stack([self.weights[n] * p for n, p in self.parts.items()]).sum()


class SequentialModel(nn.Module, ABC):
    """Abstract model; subclasses are final and are built as `Model(config, catalogue)`.

    Attributes:
        targets: "all" when one pass learns from every position of a window, "last" when only
            from the last one; the data side serves either.
        noise_draws: S, rows of Gaussian noise `encode` takes per history; 0 if deterministic.
        width: d, the width of noise rows, queries and item vectors.
        has_vectors: False for counting models, which override `scores` and are never indexed.
        sampling: "samples" and "steps" of a generative model, for the protocol card; else empty.
    """

    targets: Literal["all", "last"] = "all"
    noise_draws: int = 0
    width: int = 0
    has_vectors: ClassVar[bool] = True
    sampling: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """Training losses of a batch; all randomness (noise, dropout) comes from `rng`."""

    @abstractmethod
    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        """Queries `[B, K, d]` of int64 histories `[B, L]` and standard normal noise `[B, S, d]`.

        Pure: each row depends on its own history and noise only.
        """

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Item vectors `[V, d]`; row 0 (padding) is zero and never retrieved."""

    def scores(self, history: Tensor, noise: Tensor) -> Tensor:
        """Scores `[B, V]` of all items, `max_k <q_k, v_i>`."""
        queries = self.encode(history, noise)
        return (queries @ self.item_vectors().T).amax(dim=1)

    def interests(self, history: Tensor, noise: Tensor) -> Tensor:
        """The interests `[B, K, d]` a history is seen to have, for diagnostics.

        They are the queries, unless a model makes its queries of interests.
        """
        return self.encode(history, noise)

    def load_tensors(self, state: dict[str, Tensor]) -> None:
        """Take over the `state_dict()` of such a model; RuntimeError when it does not fit."""
        self.load_state_dict(state, strict=True)


class CountingModel(SequentialModel):
    """A baseline that counts instead of learning by gradient: one pass of `observe` fits it.

    It has no vectors: `scores` is its own, and it is evaluated but never indexed.
    """

    has_vectors: ClassVar[bool] = False

    @abstractmethod
    def observe(self, batch: SequenceBatch) -> None:
        """Count one batch of training windows (every training target is seen exactly once)."""

    def finish(self) -> None:
        """Turn the counts into the buffers `scores` needs; called once after the last batch."""

    @abstractmethod
    def scores(self, history: Tensor, noise: Tensor) -> Tensor:
        """Scores `[B, V]` of all items."""

    def load_tensors(self, state: dict[str, Tensor]) -> None:
        """Take the tensors of `state` as buffers: their sizes depend on the data that was counted.

        RuntimeError when one that this model has from the start is missing, or when a name cannot
        be a buffer. Further names are those that `finish` registers.
        """
        missing = sorted(self.state_dict().keys() - state.keys())
        if missing:
            raise RuntimeError(f"no tensor for {', '.join(missing)}")
        for name, tensor in state.items():
            try:
                self.register_buffer(name, tensor)
            except KeyError as e:
                raise RuntimeError(f"{name!r} cannot be a buffer: {e.args[0]}") from e

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        raise TypeError(f"{type(self).__module__} counts; it has no loss")

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__module__} has no query vectors; use scores()")

    def item_vectors(self) -> Tensor:
        raise TypeError(f"{type(self).__module__} has no item vectors; use scores()")
