"""ComiRec: K interests, by self-attention or routing, each a query.

Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020; official code:
github.com/THUDM/ComiRec. `guidance.kind` decides: "self-attentive" is ComiRec-SA,
"dynamic-routing" ComiRec-DR. Where the paper and its code differ, the code is followed, since it
made the published figures:

- DR: the paper writes a map W_ij for item i and capsule j; the code has one for each place of the
  window, the oldest item first. It passes no gradient through the rounds of routing before the
  last, of which the paper says nothing.
- SA: position vectors are added before the scores only, not to what is summed. The code counts
  them from the oldest item; here positions count from the latest.

Every position is trained in one pass; the code trains one random position of a user a step, from
the fifth on. Closest to the published loss, TensorFlow's sampled softmax over log-uniform draws,
are raw inner products (`softmax.unit = false`, `temperature = 1`) with logQ; that one draws without
repeats and corrects the target's logit too. The
controllable aggregation of the paper is `dimerec.retrieval.diversity`.
"""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.guidance import GuidanceConfig, extractor
from dimerec.nn.losses import Candidates, SoftmaxConfig, guidance_loss


class Config(Struct, frozen=True):
    """Attributes:
    width: d.
    guidance, softmax: see their structs.
    """

    width: Annotated[int, Meta(ge=2)] = 64
    guidance: GuidanceConfig = GuidanceConfig()
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        self.guidance.check(self.width)


class Model(SequentialModel):
    """DimeRec's guidance extractor on its own: trained on the interest closest to the target."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        self.gem = extractor(config.guidance, config.width, catalogue.length, catalogue.counts)
        self.targets = "all" if self.gem.causal else "last"

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        guidance, at = self.gem.train_on(self.items(batch.history), batch, rng)
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        return LossParts({"gem": guidance_loss(candidates, guidance)}, {"gem": 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.gem(self.items(history), history)

    def item_vectors(self) -> Tensor:
        return self.items.table()
