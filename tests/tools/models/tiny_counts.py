"""A counting model whose buffers take their sizes from the data."""

import torch
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, CountingModel


class Config(Struct, frozen=True):
    pass


class Model(CountingModel):
    """An item scores how often it followed the last one; -inf where it never did."""

    pairs: Tensor
    times: Tensor

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.size = catalogue.size
        self.register_buffer("pairs", torch.zeros(0, 2, dtype=torch.int64))
        self._seen: list[Tensor] = []

    def observe(self, batch: SequenceBatch) -> None:
        both = (batch.history > 0) & (batch.targets > 0)
        self._seen.append(torch.stack([batch.history[both], batch.targets[both]], dim=1))

    def finish(self) -> None:
        self.pairs, times = torch.cat(self._seen).unique(dim=0, return_counts=True)
        self.register_buffer("times", times.float())  # not there before

    def scores(self, history: Tensor, noise: Tensor) -> Tensor:
        out = torch.full((self.size, self.size), -torch.inf)
        out[self.pairs[:, 0], self.pairs[:, 1]] = self.times
        return out[history[:, -1]]
