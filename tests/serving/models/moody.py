"""A model with moods: certain items in a history make it slow, wrong, or the end of its thread."""

import time

import torch
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel

SLOW, RAISES, NAN, KILLS, HANGS = 55, 56, 57, 58, 59
SLOW_SECONDS, HANG_SECONDS = 0.2, 4.5


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
        last = set(history[:, -1].tolist())
        if KILLS in last:
            raise SystemExit("a test ends the worker")
        if RAISES in last:
            raise RuntimeError("a test breaks the model")
        if SLOW in last:
            time.sleep(SLOW_SECONDS)
        if HANGS in last:
            time.sleep(HANG_SECONDS)
        queries = self.table[history[:, -1:]]  # [B, 1, d]
        return torch.where((history[:, -1:] == NAN)[..., None], torch.nan, queries)

    def item_vectors(self) -> Tensor:
        return self.table
