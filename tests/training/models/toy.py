"""Mean of item vectors, with dropout and noise from the generator; two named losses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel


class Config(Struct, frozen=True):
    width: int = 8
    explode_below: float = -1.0  # the second part becomes infinite once the first is below it


class Model(SequentialModel):
    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.table = nn.Embedding(catalogue.size, config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.tied = self.mix  # the same weights under two names
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def _vectors(self) -> Tensor:
        return torch.cat([torch.zeros(1, self.width), self.table.weight[1:]])

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        self.calls += 1
        vectors = self._vectors()
        state = self._states(vectors[batch.history], batch.history)
        state = state + 0.1 * torch.randn(state.shape, generator=rng)
        at = batch.targets > 0
        logits = state[at] @ vectors.T
        main = F.cross_entropy(logits.float(), batch.targets[at])
        small = vectors.square().mean()
        if main.item() < self.config.explode_below:
            small = small / 0.0
        return LossParts({"main": main, "small": small}, {"main": 1.0, "small": 0.1})

    def _states(self, hidden: Tensor, history: Tensor) -> Tensor:
        count = (history > 0).cumsum(1).clamp(min=1).unsqueeze(-1)
        return self.mix(hidden.cumsum(1) / count) + hidden

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self._states(self._vectors()[history], history)[:, -1:]

    def item_vectors(self) -> Tensor:
        return self._vectors()
