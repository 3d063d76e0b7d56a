"""Caser: the last items as an image, read by horizontal and vertical convolution filters.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence
Embedding", WSDM 2018; official code: github.com/graytowne/caser_pytorch, and in Matlab
github.com/graytowne/caser. Horizontal filters of
every height slide over the last `order` items and keep their largest value, vertical ones weigh
these items; a ReLU layer makes z of both, and [z, P_u] is the query. It learns the next T items by
binary cross-entropy against 3 uniform negatives each, which the user never saw.

Where paper and code differ:
- The paper and the Matlab code sum over targets and over 3 negatives for each of them, the latter
  divided by the number of all terms; the PyTorch code adds the mean over targets to the mean over
  negatives, of which it draws 3 for all targets of a position together. Here it is as in Matlab,
  which is the paper's: 3 negatives a target, and its terms are divided by 1 + M
  (see `dimerec.nn.pairwise`).
Where this file differs from the PyTorch code:
- Users are not known here, a user is a history: P_u is the mean of vectors of the distinct items
  of the history so far, in a table of their own (`user = "history"`). `user = "none"` leaves it
  away, which the paper has as a variant.
- All positions of a window are learned in one pass, each filter runs over the window once. The
  next T items end with the window. The code takes histories of at least `order` items alone where
  a user has `order` + T events, and one padded history where not; here the first positions count
  too.
- Places before the first item are zero, as in Matlab; the PyTorch code learns a vector for them.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import NonNegative, Positive, Rate, Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.bags import Taste
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.transformer import dropout


class Config(Struct, frozen=True):
    """Caser's options; the defaults are those of the official code.

    Attributes:
        width: d, of items, z and user each; queries are 2 d + 1 wide (d + 1 without a user).
        order: how many last items the filters look at (the paper's L).
        ahead: how many of the next items are targets of a position (T).
        horizontal: filters of each height 1..order; 0 leaves them away.
        vertical: filters that weigh the `order` places; 0 leaves them away.
        dropout: rate on what all filters found, while training.
        user: "history" makes the user of the items so far, "none" has no user.
        softmax: see its struct; published: BCE of raw inner products.
    """

    width: Annotated[int, Meta(ge=1)] = 50
    order: Positive = 5
    ahead: Positive = 3
    horizontal: NonNegative = 16
    vertical: NonNegative = 4
    dropout: Rate = 0.5
    user: Literal["history", "none"] = "history"
    softmax: SoftmaxConfig = SoftmaxConfig(loss="bce")

    def __post_init__(self) -> None:
        if not self.horizontal and not self.vertical:
            raise ValueError("horizontal = 0 and vertical = 0: one of them must be at least 1")
        if self.softmax.unit:
            raise ValueError("softmax.unit must be false: item vectors hold a bias")


class Model(SequentialModel):
    """One query: z of the last items, the user, and a 1 for the bias."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        d, known = config.width, config.user == "history"
        self.width = d * (1 + known) + 1
        self.image = ItemEmbedding(catalogue.size, d)
        self.filters = Filters(d, config.order, config.horizontal, config.vertical)
        self.mix = nn.Linear(self.filters.outputs, d)
        self.items = ItemEmbedding(catalogue.size, self.width)
        tables = [self.image.weight, self.items.weight[:, :-1]]
        if known:
            self.taste = Taste(catalogue.size, d)
            tables.append(self.taste.items.weight)
        with torch.no_grad():
            self.items.weight[:, -1] = 0
            for table in tables:
                nn.init.normal_(table, std=1 / table.shape[1])
                table[0] = 0

    def states(
        self, history: Int[Tensor, "B L"], rng: Generator | None = None
    ) -> Float[Tensor, "B L d"]:
        """The query after every position; `rng` drives dropout, None switches it off."""
        found = dropout(self.filters(self.image(history)), self.config.dropout, rng)
        parts = [F.relu(self.mix(found))]
        if self.config.user == "history":
            parts.append(self.taste(history))
        return F.pad(torch.cat(parts, dim=-1), (0, 1), value=1.0)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """Over all pairs of a position and one of the next T items, with that item's negatives."""
        name, states = self.config.softmax.loss, self.states(batch.history, rng)
        private = batch.negatives.dim() == 3
        negatives, log_q = [batch.negatives], [batch.log_q]
        if private:
            negatives, log_q = [], []
        queries, targets = [], []
        length = batch.history.shape[1]
        for ahead in range(min(self.config.ahead, length)):
            later = batch.targets[:, ahead:]
            at = (later > 0) & (batch.history[:, : length - ahead] > 0)
            queries.append(states[:, : length - ahead][at])
            targets.append(later[at])
            if private:
                negatives.append(batch.negatives[:, ahead:][at])
                log_q.append(batch.log_q[:, ahead:][at])
        candidates = Candidates(
            self.config.softmax,
            self.items,
            torch.cat(targets),
            torch.cat(negatives),
            torch.cat(log_q),
        )
        loss = softmax_loss(candidates, torch.cat(queries).unsqueeze(1))
        return LossParts({name: loss}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.states(history)[:, -1:]

    def item_vectors(self) -> Tensor:
        return self.items.table()


class Filters(nn.Module):
    """What horizontal and vertical filters find in the last `order` items of every position.

    A horizontal filter of height h is a convolution over time, followed by a ReLU and the largest
    value of its order - h + 1 places; a vertical one is a weighted sum of the `order` vectors. As
    the filters of two positions meet the same items, each runs over the history once.
    """

    def __init__(self, width: int, order: int, horizontal: int, vertical: int) -> None:
        super().__init__()
        self.order = order
        heights = range(1, order + 1) if horizontal else ()
        self.horizontal = nn.ModuleList(nn.Conv1d(width, horizontal, h) for h in heights)
        self.vertical = nn.Conv1d(1, vertical, order) if vertical else None
        self.outputs = vertical * width + horizontal * order

    def forward(self, image: Float[Tensor, "B L d"]) -> Float[Tensor, "B L o"]:
        """All vertical outputs, filter by filter, then the horizontal ones, the lowest first."""
        rows, length, width = image.shape
        time = F.pad(image.transpose(1, 2), (self.order - 1, 0))  # [B, d, order - 1 + L]
        found = []
        if self.vertical is not None:
            weighed = self.vertical(time.reshape(rows * width, 1, -1))  # [B d, n_v, L]
            weighed = weighed.unflatten(0, (rows, width)).permute(0, 3, 2, 1)
            found.append(weighed.reshape(rows, length, -1))
        for height, conv in enumerate(self.horizontal, 1):
            heat = F.relu(conv(time))  # [B, n_h, order - h + L]
            found.append(F.max_pool1d(heat, self.order - height + 1, stride=1).transpose(1, 2))
        return torch.cat(found, dim=-1)
