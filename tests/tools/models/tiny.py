"""A model small enough to compute by hand: the last item, and the sum of all, plus noise."""

import torch
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct
from dimerec.model import Catalogue, LossParts, SequentialModel


class Config(Struct, frozen=True):
    width: Positive = 4
    noise: float = 0.0


class Model(SequentialModel):
    noise_draws = 2

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.width = config.width
        self.noise = config.noise
        self.table = nn.Parameter(torch.randn(catalogue.size, config.width))
        with torch.no_grad():
            self.table[0] = 0

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        raise NotImplementedError

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        rows = self.table[history]  # [B, L, d]
        queries = torch.stack([rows[:, -1], rows.sum(dim=1)], dim=1)
        return queries + self.noise * noise

    def item_vectors(self) -> Tensor:
        return self.table
