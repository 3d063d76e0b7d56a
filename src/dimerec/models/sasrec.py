"""SASRec (Kang and McAuley 2018): a causal transformer whose last state is the query."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.transformer import Transformer, TransformerConfig


class Config(Struct, frozen=True):
    """SASRec's options.

    Attributes:
        width: d, divisible by `transformer.heads`.
        transformer, softmax: see their structs. The published loss is binary cross-entropy with
            one negative; here it is the (sampled) softmax that `[negatives]` implies, the
            stronger choice in the literature.
    """

    width: Annotated[int, Meta(ge=2)] = 64
    transformer: TransformerConfig = TransformerConfig()
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        if self.width % self.transformer.heads:
            heads = self.transformer.heads
            raise ValueError(f"width = {self.width} must be divisible by heads = {heads}")


class Model(SequentialModel):
    """One query: the transformer's state at the last item."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        self.transformer = Transformer(config.transformer, config.width, catalogue.length)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        at = batch.targets > 0
        states = self.transformer(self.items(batch.history), batch.history, rng)[at]
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        name = self.config.softmax.loss
        return LossParts({name: softmax_loss(candidates, states.unsqueeze(1))}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.transformer(self.items(history), history)[:, -1:]

    def item_vectors(self) -> Tensor:
        return self.items.table()
