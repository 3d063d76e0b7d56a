"""Fossil: similarity to all that was seen, fused with a Markov chain of higher order.

He and McAuley, "Fusing Similarity Models with Markov Chains for Sparse Sequential
Recommendation", ICDM 2016; code: distributed by the authors as C++, carried on in the code of
REBUS (arXiv 2008.05587), which was read. Item j after the history S of user u scores
beta_j + <1/|I_u|^alpha sum_{i in I_u} P_i + sum_k (eta_k + eta_k^u) P_{S_{t-k}}, Q_j>, with I_u
the set of the user's items and k = 1..order; learned by BPR against one uniform negative.

As in the code, alpha is fixed at 0.2, and |I_u| counts events.
Where this file differs from the code:
- Users are not known here, a user is a history: eta_k^u, the user's own weights of the last items,
  are left away. That is what the paper has for a new user, whose eta^u its regulariser holds at 0.
- I_u are the items up to the position. The code takes the user's whole training history, what
  came after the position too.
- The paper leaves j out of I_u and of the last items when it scores j, so that no single query
  serves all items; here they stay. It matters for items that were seen already.
- Negatives equal to one of the last items are kept (`negatives.exclude = "window"` masks all
  those of the window); the code draws them again.
- All positions of a window are learned in one pass, with Adam, instead of single triples drawn
  with replacement, by SGD, where eta has a smaller rate than the rest. Every position weighs the
  same; in the code every user does.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.bags import pooled
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss


class Config(Struct, frozen=True):
    """Fossil's options.

    Attributes:
        width: d of P and Q; item vectors have one column more, for the bias.
        order: how many last items the Markov chain looks at.
        alpha: the sum over n distinct items is divided by n^alpha; 0 leaves it, 1 is the mean.
        softmax: see its struct; published: BPR of raw inner products.
    """

    width: Annotated[int, Meta(ge=1)] = 64
    order: Positive = 3
    alpha: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    softmax: SoftmaxConfig = SoftmaxConfig(loss="bpr")

    def __post_init__(self) -> None:
        if self.softmax.unit:
            raise ValueError("softmax.unit must be false: item vectors hold a bias")


class Model(SequentialModel):
    """One query: the two sums of the history's vectors, and a 1 for the bias."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width + 1
        self.seen = ItemEmbedding(catalogue.size, config.width)  # P
        self.items = ItemEmbedding(catalogue.size, self.width)  # [Q, beta]
        self.eta = nn.Parameter(torch.zeros(config.order))
        with torch.no_grad():
            self.items.weight[:, -1] = 0

    def states(self, history: Int[Tensor, "B L"]) -> Float[Tensor, "B L d"]:
        """The query after every position."""
        vectors = self.seen(history)
        similar = pooled(vectors, history, self.config.alpha)
        return F.pad(similar + weighted(vectors, self.eta), (0, 1), value=1.0)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        at, name = batch.targets > 0, self.config.softmax.loss
        states = self.states(batch.history)[at]
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        return LossParts({name: softmax_loss(candidates, states.unsqueeze(1))}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.states(history)[:, -1:]

    def item_vectors(self) -> Tensor:
        return self.items.table()


def weighted(
    vectors: Float[Tensor, "B L d"], eta: Float[Tensor, " order"]
) -> Float[Tensor, "B L d"]:
    """sum_k eta_k times the vector k - 1 places back, k = 1..order; zero before the beginning."""
    length = vectors.shape[1]
    total = torch.zeros_like(vectors)
    for back, weight in enumerate(eta[:length]):
        total = total + weight * F.pad(vectors, (0, 0, back, 0))[:, :length]
    return total
