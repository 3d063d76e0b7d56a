"""ComiRec-SA (Cen et al. 2020): K self-attentive interests, each of them a query."""

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


class Model(SequentialModel):
    """DimeRec's guidance extractor on its own: trained on the interest closest to the target."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        self.gem = extractor(config.guidance, config.width, catalogue.length, catalogue.counts)
        self.targets = "all" if self.gem.causal else "last"

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        guidance, at = self.gem.train_on(self.items(batch.history), batch)
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        return LossParts({"gem": guidance_loss(candidates, guidance)}, {"gem": 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.gem(self.items(history), history)

    def item_vectors(self) -> Tensor:
        return self.items.table()
