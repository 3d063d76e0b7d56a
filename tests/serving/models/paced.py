"""A model that takes its time: so much for a batch, whatever else the machine does."""

import time

import torch
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel

SECONDS = 0.04


class Config(Struct, frozen=True):
    pass


class Model(SequentialModel):
    noise_draws = 0
    width = 4

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(catalogue.size, self.width))

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        raise NotImplementedError

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        time.sleep(SECONDS)
        return self.table[history[:, -1:]]  # [B, 1, d]

    def item_vectors(self) -> Tensor:
        return self.table
