"""Item-kNN: the items that share most sessions with the last one.

The item-to-item baseline of Hidasi et al., "Session-based Recommendations with Recurrent Neural
Networks", ICLR 2016, after Linden et al. 2003 and Davidson et al. 2010; official code:
github.com/hidasib/GRU4Rec, `baselines.py`. The similarity of two items is the number of sessions
they share, divided by what their popularity would make of it. Order does not count, and of the
history the last item alone: `cooccurrence` is the model that knows both.

Rare items are held down by `regularisation`, which the paper mentions without a number. Where paper
and code differ, this file follows the code:
- A session in which the first item stands m times counts m times, and the support of an item is
  the number of its events: the similarity is the paper's cosine where nothing repeats.
- Only the `neighbours` most similar items score.
Where this file differs from the code:
- A session is a training window: one longer than L + 1 events counts as several.
- Of equally similar items the one with the smaller number is kept.
"""

from typing import Annotated

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct, Weight
from dimerec.model import Catalogue, CountingModel
from dimerec.nn.sparse import leading, spread

PENDING = 2**22  # pairs that are kept before they are summed up


class Config(Struct, frozen=True):
    """Item-kNN's options; the defaults are those of the official code.

    Attributes:
        neighbours: items that score, the most similar ones.
        regularisation: lambda, added to the support of both items.
        balance: alpha, how much the support of the item itself weighs in the norm, the rest being
            the other's: 0.5 is the cosine, 1 the share of the item's sessions that hold the other.
    """

    neighbours: Positive = 100
    regularisation: Weight = 20.0
    balance: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5


class Model(CountingModel):
    """score(j) = n_ij / ((s_i + lambda)^alpha (s_j + lambda)^(1 - alpha)), i the last item.

    The neighbours of each item are kept as a sparse matrix in CSR form.
    """

    first: Tensor
    items: Tensor
    similarity: Tensor

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.size = config, catalogue.size
        self.register_buffer("first", torch.zeros(self.size + 1, dtype=torch.int64))
        self.register_buffer("items", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("similarity", torch.zeros(0))
        self._support = torch.zeros(self.size, dtype=torch.int64)
        self._pairs = torch.zeros(0, dtype=torch.int64)
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def observe(self, batch: SequenceBatch) -> None:
        windows = torch.cat([batch.history, batch.targets[:, -1:]], dim=1)
        row, column = (windows > 0).nonzero(as_tuple=True)
        keys, times = (row * self.size + windows[row, column]).unique(return_counts=True)
        row, item = keys // self.size, keys % self.size
        size = torch.bincount(row, minlength=len(windows))
        which, other = spread((size.cumsum(0) - size)[row], size[row])
        self._pending.append((item[which] * self.size + item[other], times[which]))
        self._support += torch.bincount(windows[windows > 0], minlength=self.size)
        if sum(len(pairs) for pairs, _ in self._pending) > max(PENDING, len(self._pairs)):
            self._sum()

    def finish(self) -> None:
        self._sum()
        item, other = self._pairs // self.size, self._pairs % self.size
        support = self._support + self.config.regularisation
        alpha = self.config.balance
        norm = support.double() ** alpha, support.double() ** (1 - alpha)
        similarity = self._counts / (norm[0][item] * norm[1][other])
        kept = (item != other).nonzero()[:, 0]
        kept = kept[similarity[kept].argsort(descending=True, stable=True)]
        kept = kept[item[kept].argsort(stable=True)]
        kept = kept[leading(item[kept], self.config.neighbours)]
        self.first = torch.searchsorted(item[kept], torch.arange(self.size + 1))
        self.items, self.similarity = other[kept], similarity[kept].float()

    def scores(self, history: Int[Tensor, "B L"], noise: Tensor) -> Float[Tensor, "B V"]:
        last = history[:, -1]  # padding has no neighbours
        row, at = spread(self.first[last], self.first[last + 1] - self.first[last])
        out = self.similarity.new_zeros(len(history), self.size)
        out[row, self.items[at]] = self.similarity[at]
        return out

    def _sum(self) -> None:
        """Add up what is pending."""
        pairs = torch.cat([self._pairs, *(pairs for pairs, _ in self._pending)])
        counts = torch.cat([self._counts, *(counts for _, counts in self._pending)])
        self._pairs, inverse = pairs.unique(return_inverse=True)
        self._counts = torch.zeros_like(self._pairs).index_add_(0, inverse, counts)
        self._pending = []
