"""Item-to-item transition counts: the honest strong baseline for sessions.

An item scores by how often it followed the items of the history within a few steps, near and
recent ones counting more (the first-order part is the Markov chain of Rendle et al. 2010).
"""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct
from dimerec.model import Catalogue, CountingModel


class Config(Struct, frozen=True):
    """Attributes:
    reach: how many steps apart a pair may stand, in training and in the history.
    decay: weight of distance j + 1 relative to distance j.
    popularity: the item's share of all targets, times this, is added: it breaks ties and
        answers histories never seen.
    """

    reach: Positive = 5
    decay: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5
    popularity: Annotated[float, Meta(ge=0.0)] = 1e-3


class Model(CountingModel):
    """score(i) = sum over the last items h_j of decay^j * P(i follows h_j), plus popularity.

    Counts are kept as sorted pairs (h * V + i) and stored as a sparse matrix in CSR form.
    """

    starts: Tensor
    followers: Tensor
    shares: Tensor
    counts: Tensor

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.size = config, catalogue.size
        self.register_buffer("starts", torch.zeros(self.size + 1, dtype=torch.int64))
        self.register_buffer("followers", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(0))
        self.register_buffer("counts", torch.zeros(self.size))
        self._pairs = torch.zeros(0, dtype=torch.int64)
        self._weights = torch.zeros(0, dtype=torch.float64)

    def observe(self, batch: SequenceBatch) -> None:
        pairs, weights = [self._pairs], [self._weights]
        length = batch.history.shape[1]
        for distance in range(min(self.config.reach, length)):
            before = batch.history[:, : length - distance]
            after = batch.targets[:, distance:]
            both = (before > 0) & (after > 0)
            pairs.append(before[both] * self.size + after[both])
            weight = self.config.decay**distance
            weights.append(torch.full((len(pairs[-1]),), weight, dtype=torch.float64))
        self._pairs, inverse = torch.cat(pairs).unique(return_inverse=True)
        total = torch.zeros(len(self._pairs), dtype=torch.float64)
        self._weights = total.index_add_(0, inverse, torch.cat(weights))
        targets = batch.targets[batch.targets > 0]
        self.counts += torch.bincount(targets, minlength=self.size)

    def finish(self) -> None:
        before, after = self._pairs // self.size, self._pairs % self.size
        total = torch.zeros(self.size, dtype=torch.float64).index_add_(0, before, self._weights)
        self.starts = torch.searchsorted(before, torch.arange(self.size + 1))
        self.followers = after
        self.shares = (self._weights / total[before]).float()
        self.counts /= self.counts.sum().clamp_min(1)

    def scores(self, history: Tensor, noise: Tensor) -> Tensor:
        out = (self.config.popularity * self.counts).repeat(len(history), 1)
        for distance in range(min(self.config.reach, history.shape[1])):
            item = history[:, -1 - distance]  # padding has no followers
            first, count = self.starts[item], self.starts[item + 1] - self.starts[item]
            row = torch.arange(len(item), device=item.device).repeat_interleave(count)
            inside = torch.arange(len(row), device=item.device) - (count.cumsum(0) - count)[row]
            at = first[row] + inside
            values = self.config.decay**distance * self.shares[at]
            out.index_put_((row, self.followers[at]), values, accumulate=True)
        return out
