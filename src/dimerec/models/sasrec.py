"""SASRec: a causal transformer whose state at an item is the query for the next one.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018; official code:
github.com/kang205/SASRec. gSASRec is this model with another loss: Petrov and Macdonald,
"gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative Sampling",
RecSys 2023; official code: github.com/asash/gSASRec-pytorch.

Where paper and code differ, the code is followed, since its block is what the published figures
come from: residuals carry the normalised input. Where this file differs from the code: the heads go
through a linear layer, there they are concatenated; item vectors start about as long as 1, in the
code with Xavier's much shorter ones (`start`); gSASRec's code has a second table, for the histories
(`tied`). The published loss, BCE with one negative, is
the recipe `sasrec-bce`; gBCE is `gsasrec`; `sasrec` has the sampled softmax of DimeRec's default,
the stronger choice in the literature.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Generator, Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.transformer import Transformer, TransformerConfig, check_heads


class Config(Struct, frozen=True):
    """SASRec's options.

    Attributes:
        width: d, divisible by `transformer.heads`.
        start: item vectors are drawn from N(0, 1/d) ("normal"), or from Xavier's uniform
            distribution of the whole table, sqrt(V / 2d) times shorter ("xavier", the published
            code's): what an item has learned outweighs its draw after far fewer steps.
        tied: histories are read with the same vectors that are ranked (SASRec); otherwise with a
            table of their own (gSASRec's code).
        transformer, softmax: see their structs.
    """

    width: Annotated[int, Meta(ge=2)] = 64
    start: Literal["normal", "xavier"] = "normal"
    tied: bool = True
    transformer: TransformerConfig = TransformerConfig()
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        check_heads(self.width, self.transformer.heads, "transformer.heads")


class Model(SequentialModel):
    """One query: the transformer's state at the last item."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        tables = [self.items]
        if not config.tied:
            self.inputs = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
            tables.append(self.inputs)
        for table in tables:
            if config.start == "xavier":
                table.draw_xavier()
        self.transformer = Transformer(config.transformer, config.width, catalogue.length)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        at = batch.targets > 0
        states = self._states(batch.history, rng)[at]
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        name = self.config.softmax.loss
        return LossParts({name: softmax_loss(candidates, states.unsqueeze(1))}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self._states(history)[:, -1:]

    def item_vectors(self) -> Tensor:
        return self.items.table()

    def _states(
        self, history: Int[Tensor, "B L"], rng: Generator | None = None
    ) -> Float[Tensor, "B L d"]:
        table = self.items if self.config.tied else self.inputs
        return self.transformer(table(history), history, rng)
