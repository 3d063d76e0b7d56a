"""Mult-VAE: a variational autoencoder of the bag of a user's items.

Liang, Krishnan, Hoffman and Jebara, "Variational Autoencoders for Collaborative Filtering", WWW
2018; official code: github.com/dawenl/vae_cf. The encoder reads the bag of items (binary, scaled
to length 1, dropped at random) and gives a Gaussian over z; the decoder's softmax over all items
is the multinomial that the bag was drawn from; the KL divergence from the standard normal counts
with a weight beta that grows with the steps ("partially regularised").

The paper knows no order: it rebuilds a user's whole bag, and ranks what was held out of it. For
the next item of a history two readings are offered:
- `predict = "next"` (default): the history is the bag that is read, and the item after it is the
  one draw of the multinomial that is to be explained. Bags of all positions of a window are sums
  of the same rows, so one pass learns from every position.
- `predict = "window"` is the paper: a window with its targets is a bag, read and rebuilt whole.
  What was read ranks high then: evaluate with seen items hidden, as the paper does.

Of what the paper leaves open, the code decides: beta is step / 200,000 up to 0.2, and entries of
the bag are dropped after it is scaled to length 1. With "next" the likelihood is of one item, so
that beta must be smaller by as many times as a bag has items, to weigh as much as published (the
recipe's 0.003 is a 73rd of 0.2). Where this file differs from the code: windows
of `length` items instead of whole users; a sum of rows in the place of a product with a dense bag;
the decoder's last layer and its bias are the item vectors.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import NonNegative, Rate, Struct, Weight
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.bags import first_seen
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.transformer import dropout


class Config(Struct, frozen=True):
    """Mult-VAE's options; the defaults are those of the official code, but for `predict`.

    Attributes:
        latent: width of z.
        hidden: width of the tanh layer of both encoder and decoder; 0 leaves both linear.
        dropout: rate on the entries of the bag while training.
        beta: the largest weight of the KL divergence.
        anneal_steps: the weight is step / anneal_steps until it reaches `beta`; 0: `beta` always.
        predict: "next" explains the item after each history, "window" rebuilds the whole window.
        softmax: see its struct; published: all items, raw inner products.
    """

    latent: Annotated[int, Meta(ge=1)] = 200
    hidden: NonNegative = 600
    dropout: Rate = 0.5
    beta: Weight = 0.2
    anneal_steps: NonNegative = 200_000
    predict: Literal["next", "window"] = "next"
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        if self.softmax.unit:
            raise ValueError("softmax.unit must be false: item vectors hold a bias")
        if self.predict == "window" and self.softmax.loss != "softmax":
            raise ValueError(
                f'predict = "window" is a softmax over all items, not "{self.softmax.loss}"'
            )

    @property
    def without_negatives(self) -> str:
        """Why the loss takes no negatives."""
        return "predict = 'window' compares with all items" if self.predict == "window" else ""


class Model(SequentialModel):
    """One query: the decoder's last layer at the mean of z, and a 1 for the bias.

    `step` counts the losses that were differentiated, and so the optimiser's steps; it is stored
    with the weights, so that a resumed run goes on with the same beta.
    """

    step: Tensor

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        first = config.hidden or 2 * config.latent
        last = config.hidden or config.latent
        self.width = last + 1
        self.rows = ItemEmbedding(catalogue.size, first)  # of the encoder's first layer
        self.bias = nn.Parameter(torch.empty(first))
        self.encoder = nn.Linear(first, 2 * config.latent) if config.hidden else nn.Identity()
        self.decoder = nn.Linear(config.latent, last) if config.hidden else nn.Identity()
        self.items = ItemEmbedding(catalogue.size, self.width)
        with torch.no_grad():
            for table in (self.rows.weight, self.items.weight[:, :-1]):
                nn.init.xavier_uniform_(table)
                table[0] = 0
            for bias in (self.bias, self.items.weight[1:, -1]):
                _small(bias)
            for layer in (self.encoder, self.decoder):
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    _small(layer.bias)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def beta(self) -> float:
        """The weight of the KL divergence at the present step."""
        config = self.config
        if not config.anneal_steps:
            return config.beta
        return min(config.beta, int(self.step) / config.anneal_steps)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """The multinomial's negative log-likelihood and the KL divergence, means over the bags."""
        if self.config.predict == "window":
            likelihood, kl = self._rebuild(batch, rng)
        else:
            likelihood, kl = self._continue(batch, rng)
        if kl.requires_grad:  # a loss that is only looked at is no step
            kl.register_hook(self._count)
        loss = self.config.softmax.loss
        name = "multinomial" if loss == "softmax" else loss
        return LossParts({name: -likelihood, "kl": kl}, {name: 1.0, "kl": self.beta})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        mean, _ = self.posterior(self.bags(history)[:, -1:])
        return self.query(mean)

    def item_vectors(self) -> Tensor:
        return self.items.table()

    def bags(
        self, history: Int[Tensor, "B L"], rng: Generator | None = None
    ) -> Float[Tensor, "B L h"]:
        """The bag up to every position through the encoder's first layer, without its bias.

        The sum of the rows of its n distinct items, divided by sqrt(n). `rng` drops some of them.
        """
        new = first_seen(history).float()
        count = new.cumsum(1).clamp_min(1)
        kept = dropout(new, self.config.dropout, rng)
        total = (self.rows(history) * kept.unsqueeze(-1)).cumsum(1)
        return total / count.sqrt().unsqueeze(-1)

    def posterior(
        self, bags: Float[Tensor, "*n h"]
    ) -> tuple[Float[Tensor, "*n z"], Float[Tensor, "*n z"]]:
        """Mean and log-variance of z."""
        hidden = bags + self.bias
        if self.config.hidden:
            hidden = torch.tanh(hidden)
        mean, log_variance = self.encoder(hidden).chunk(2, dim=-1)
        return mean, log_variance

    def query(self, z: Float[Tensor, "*n z"]) -> Float[Tensor, "*n d"]:
        """The decoder but for its last layer, and a 1."""
        hidden = torch.tanh(self.decoder(z)) if self.config.hidden else z
        return F.pad(hidden, (0, 1), value=1.0)

    def _sampled(
        self, bags: Float[Tensor, "N h"], rng: Generator
    ) -> tuple[Float[Tensor, "N d"], Float[Tensor, ""]]:
        """The query of a sample of z for each bag, and the mean KL divergence."""
        mean, log_variance = self.posterior(bags)
        noise = torch.randn(mean.shape, generator=rng, device=mean.device)
        z = mean + noise * (0.5 * log_variance).exp()
        return self.query(z), kl_divergence(mean, log_variance).mean()

    def _continue(self, batch: SequenceBatch, rng: Generator) -> tuple[Tensor, Tensor]:
        at = batch.targets > 0
        queries, kl = self._sampled(self.bags(batch.history, rng)[at], rng)
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        return -softmax_loss(candidates, queries.unsqueeze(1)), kl

    def _rebuild(self, batch: SequenceBatch, rng: Generator) -> tuple[Tensor, Tensor]:
        window = torch.cat([batch.history, batch.targets[:, -1:]], dim=1)
        window = window[(window > 0).any(1)]
        queries, kl = self._sampled(self.bags(window, rng)[:, -1], rng)
        logits = queries @ self.items.table().T / self.config.softmax.temperature
        return multinomial(logits, window, first_seen(window)).mean(), kl

    def _count(self, gradient: Tensor) -> None:
        self.step.add_(1)


def kl_divergence(
    mean: Float[Tensor, "*n z"], log_variance: Float[Tensor, "*n z"]
) -> Float[Tensor, "*n"]:
    """KL(N(mean, variance) || N(0, 1)), summed over z."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def multinomial(
    logits: Float[Tensor, "B V"], items: Int[Tensor, "B W"], counted: Bool[Tensor, "B W"]
) -> Float[Tensor, " B"]:
    """log-likelihood of the counted items, each once, under the softmax of all but padding."""
    padding = torch.arange(logits.shape[1], device=logits.device) == 0
    log_p = logits.masked_fill(padding, -torch.inf).log_softmax(1)
    return torch.where(counted, log_p.gather(1, items), 0.0).sum(1)


def _small(bias: Tensor) -> None:
    nn.init.trunc_normal_(bias, std=0.001, a=-0.002, b=0.002)
