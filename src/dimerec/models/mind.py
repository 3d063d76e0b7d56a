"""MIND: behaviours routed to interests, told apart by the target.

Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", CIKM 2019. No
code of the authors is known to us; two others were read, github.com/THUDM/ComiRec (of some of
MIND's authors' company) and github.com/shenweichen/DeepMatch, and the paper is followed where they
leave it:

- Both draw new routing logits in every pass, when serving too, so that a user's answers change by
  themselves (DeepMatch up to 0.2 drew them once, but took the softmax over behaviours and added
  the whole batch's agreement). Here they are drawn once: Alg. 1 with a fixed draw.
- As in ComiRec's code, only the last round of routing has gradients; the paper does not say.
- The paper raises inner products to the power p, which negative ones do not admit; here the sign
  is kept, sign(x) |x|^p. Hard attention, its limit and its recommendation, is the default.
- User profiles do not exist here, so the ReLU layers read interests alone.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from msgspec import Meta
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import NonNegative, Positive, Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.guidance import GuidanceConfig, extractor
from dimerec.nn.guidance.routing import opened
from dimerec.nn.losses import Candidates, SoftmaxConfig, guidance_loss, softmax_loss


class Config(Struct, frozen=True):
    """MIND's options.

    Attributes:
        width: d.
        interests: K, at most.
        iterations: rounds of routing.
        adaptive: a history of n items has max(1, min(K, log2 n)) interests, rounded down; off,
            all have K.
        layers: ReLU layers of width d that turn interests into queries.
        attention: how training reads the interests. "hard" takes the one closest to the target,
            "soft" mixes them by softmax(pow(logit, power)) over the interests' target logits.
        power: p of the soft attention, 1 to 8.
        softmax: see its struct.
    """

    width: Annotated[int, Meta(ge=2)] = 64
    interests: Positive = 4
    iterations: Positive = 3
    adaptive: bool = True
    layers: NonNegative = 1
    attention: Literal["hard", "soft"] = "hard"
    power: Annotated[float, Meta(ge=1.0, le=8.0)] = 1.0
    softmax: SoftmaxConfig = SoftmaxConfig()


class Model(SequentialModel):
    """Every interest is a query; an item is as good as the best of them says."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        routing = GuidanceConfig(
            kind="dynamic-routing",
            interests=config.interests,
            routing="shared",
            iterations=config.iterations,
            adaptive=config.adaptive,
        )
        self.capsules = extractor(routing, config.width, catalogue.length, catalogue.counts)
        self.layers = nn.ModuleList(
            nn.Linear(config.width, config.width) for _ in range(config.layers)
        )

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """The loss of what label-aware attention reads at every target."""
        config, name = self.config, self.config.softmax.loss
        interests, at = self.capsules.train_on(self.items(batch.history), batch)
        queries = self._relu(interests)  # [N, K, d]
        candidates = Candidates.of(batch, at, config.softmax, self.items)
        if config.attention == "hard":
            return LossParts({name: guidance_loss(candidates, queries)}, {name: 1.0})
        count = (batch.history > 0).cumsum(1)[at]  # [N]
        active = opened(count, config.interests)
        if not config.adaptive:
            active = torch.ones_like(active)
        if config.softmax.unit:
            queries = F.normalize(queries, dim=-1)
        labels = candidates.positive / config.softmax.temperature
        read = label_aware(queries, labels, active, config.power)
        return LossParts({name: softmax_loss(candidates, read.unsqueeze(1))}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self._relu(self.capsules(self.items(history), history))

    def item_vectors(self) -> Tensor:
        return self.items.table()

    def _relu(self, interests: Float[Tensor, "*n K d"]) -> Float[Tensor, "*n K d"]:
        for layer in self.layers:
            interests = F.relu(layer(interests))
        return interests


def label_aware(
    queries: Float[Tensor, "N K d"],
    labels: Float[Tensor, "N d"],
    active: Bool[Tensor, "N K"],
    power: float,
) -> Float[Tensor, "N d"]:
    """V softmax(pow(V^T e, p)): the active queries mixed by how well they fit the label's vector.

    Negative inner products keep their sign: pow(x, p) = sign(x) |x|^p.
    """
    fit = torch.einsum("nkd,nd->nk", queries, labels)
    fit = fit.sign() * fit.abs().pow(power)
    attention = fit.masked_fill(~active, -torch.inf).softmax(1)
    return torch.einsum("nk,nkd->nd", attention, queries)
