"""FPMC: a matrix factorisation of users and items plus a factorised Markov chain of items.

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket
Recommendation", WWW 2010. Code of the authors is not public; that of He and McAuley, C++ which has
an FPMC beside Fossil (it lives on in the code of REBUS, arXiv 2008.05587), was read beside the
paper. Both agree: the score of item i for user u after item l is
<V_u^{U,I}, V_i^{I,U}> + <V_i^{I,L}, V_l^{L,I}>, learned by BPR against one uniform negative.

Where this file differs:
- Users are not known here, a user is a history: V_u is the mean of vectors of the distinct items
  of the history so far, in a table of their own (`user = "history"`). `user = "none"` leaves the
  term away, which is FMC, the paper's factorised chain without users.
- A basket is the one last item, as in every later comparison.
- All positions of a window are learned in one pass, with Adam, instead of single triples drawn
  with replacement, by SGD. Every position weighs the same; in the C++ every user does.
- Vectors start from N(0, 1/d); there from U(0, 1). L2 regularisation is `training.weight_decay`.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.bags import Taste
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss


class Config(Struct, frozen=True):
    """FPMC's options.

    Attributes:
        width: d, of each of the two factorisations.
        user: "history" makes the user of the items so far, "none" has no user (FMC).
        softmax: see its struct; published: BPR of raw inner products.
    """

    width: Annotated[int, Meta(ge=1)] = 32
    user: Literal["history", "none"] = "history"
    softmax: SoftmaxConfig = SoftmaxConfig(loss="bpr")


class Model(SequentialModel):
    """One query: the last item's vector, and beside it the user's."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        self.width = config.width * (1 if config.user == "none" else 2)
        self.last = ItemEmbedding(catalogue.size, config.width)
        if config.user == "history":
            self.taste = Taste(catalogue.size, config.width)
        self.items = ItemEmbedding(catalogue.size, self.width, unit=config.softmax.unit)

    def states(self, history: Int[Tensor, "B L"]) -> Float[Tensor, "B L d"]:
        """The query after every position: [V_l^{L,I}, V_u^{U,I}]."""
        last = self.last(history)
        if self.config.user == "none":
            return last
        return torch.cat([last, self.taste(history)], dim=-1)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        at, name = batch.targets > 0, self.config.softmax.loss
        states = self.states(batch.history)[at]
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        return LossParts({name: softmax_loss(candidates, states.unsqueeze(1))}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.states(history)[:, -1:]

    def item_vectors(self) -> Tensor:
        return self.items.table()
