"""ACVAE: a variational autoencoder of sequences, made by an adversary and a contrast.

Xie, Liu, Zhang, Lu, Wang and Ding, "Adversarial and Contrastive Variational Autoencoder for
Sequential Recommendation", WWW 2021; official code: github.com/ACVAE/ACVAE-PyTorch. A recurrent
network and a causal convolution, both fed with noise, make a latent z of every prefix, whose
distribution has no formula. Hence adversarial variational Bayes (Mescheder et al. 2017): an
adversary T(x, z) learns to tell z from a draw of the prior, and its logit stands in for
log q(z | x) - log p(z) in the KL divergence. A second critic tells z from another user's, and z is
to make that easy: it keeps what is personal (the Jensen-Shannon bound of mutual information).

Of what the paper leaves open the code decides:
- Of the encoders in it, the one that its training script names: 1x1, width 5, 1x1, a residual.
- The adversary gives a logit for every coordinate of z, plus z^2 / 2; the divergence is their mean.
- The second critic is recurrent, and compares with the z of the next user in the batch.
- No annealing of the KL divergence. Noise is drawn when recommending too.
Where this file differs from the code:
- One Adam for all in the place of three optimisers (AdamW; SGD for the critic and, again, for the
  encoder; SGD for the adversary). Who learns from what is the same: the adversary's weights see
  its own loss alone, the rest of the network everything but that.
- All parts are means over the targets; the code has sums over a user's, means over users.
- The adversary's loss is computed from logits, without 1e-9 inside a logarithm.
- When recommending, the last item alone is decoded, so that the noise of its last five suffices.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Rate, Struct, Weight
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.transformer import dropout

KERNEL = 5  # positions that the convolution sees
CRITIC = 128  # width of both critics
CRITIC_DROPOUT = 0.2


class Config(Struct, frozen=True):
    """ACVAE's options; the defaults are those of the official code for ML-1M.

    Attributes:
        width: of the input's item vectors and of the decoder's hidden layer.
        hidden: of the recurrent layer and the convolution.
        latent: of z.
        dropout: rate on the input's item vectors and before z while training.
        kl: alpha, weight of the KL divergence.
        contrast: beta, weight of the contrast.
        softmax: see its struct; published: all items, raw inner products.
    """

    width: Annotated[int, Meta(ge=2)] = 128
    hidden: Positive = 100
    latent: Positive = 64
    dropout: Rate = 0.5
    kl: Weight = 0.05
    contrast: Weight = 0.1
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        if self.softmax.unit:
            raise ValueError("softmax.unit must be false: item vectors hold a bias")


class Encoder(nn.Module):
    """z of every recurrent state and the four before it, and of noise."""

    def __init__(self, hidden: int, latent: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.noise = nn.Linear(hidden, hidden)
        self.before, self.after = nn.Linear(hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.wide = nn.Conv1d(hidden, 2 * hidden, KERNEL)
        self.out = nn.Linear(hidden, latent)

    def forward(
        self,
        x: Float[Tensor, "B L h"],
        noise: Float[Tensor, "2 B L h"],
        real: Bool[Tensor, "B L"],
        rng: Generator | None = None,
    ) -> Float[Tensor, "B L z"]:
        """Standard normal `noise`; positions that are not `real` are as if before the first."""
        first, second = torch.tanh(self.noise(noise))
        y = F.softplus(self.before(x + first))
        y = ((y + second) * real.unsqueeze(-1)).transpose(1, 2)
        y = F.softplus(self.wide(F.pad(y, (KERNEL - 1, 0)))).transpose(1, 2)
        y = x + F.softplus(self.after(y))
        return self.out(dropout(y, self.rate, rng))


class Adversary(nn.Module):
    """T(x, z): logits, one a coordinate, that z is of q(z | x) and not of the prior."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width + latent, CRITIC), nn.Linear(CRITIC, latent)
        self.inner = nn.ModuleList(nn.Linear(CRITIC, CRITIC) for _ in range(2))
        self.outer = nn.ModuleList(nn.Linear(CRITIC, CRITIC) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "N w"], z: Float[Tensor, "N z"], rng: Generator | None
    ) -> Float[Tensor, "N z"]:
        """`rng` drives dropout; None switches it off."""
        y = dropout(self.first(torch.cat([x, z], dim=-1)), CRITIC_DROPOUT, rng)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            y = F.elu(y + outer(inner(y)))
        return dropout(self.last(y), CRITIC_DROPOUT, rng) + 0.5 * z.square()


class Critic(nn.Module):
    """A logit for every position that the z up to it are those of the items up to it."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(width + latent, CRITIC, batch_first=True)
        self.out = nn.Linear(CRITIC, 1)

    def forward(self, x: Float[Tensor, "B L w"], z: Float[Tensor, "B L z"]) -> Float[Tensor, "B L"]:
        states, _ = self.recurrent(torch.cat([x, z], dim=-1))
        return self.out(F.gelu(states)).squeeze(-1)


class Model(SequentialModel):
    """One query: the decoder's hidden layer, and a 1 for the bias."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width + 1
        self.inputs = ItemEmbedding(catalogue.size, config.width)
        self.recurrent = nn.GRU(config.width, config.hidden, batch_first=True)
        self.encoder = Encoder(config.hidden, config.latent, config.dropout)
        self.decoder = nn.Linear(config.latent, config.width)
        self.items = ItemEmbedding(catalogue.size, self.width)
        self.adversary = Adversary(config.width, config.latent)
        self.critic = Critic(config.width, config.latent)
        bound = config.width**-0.5
        with torch.no_grad():
            self.inputs.weight.mul_(config.width**0.5)  # standard normal
            nn.init.xavier_normal_(self.items.weight[1:, :-1])
            nn.init.uniform_(self.items.weight[1:, -1], -bound, bound)
            nn.init.xavier_normal_(self.decoder.weight)
        self.noise_draws = -(-2 * KERNEL * config.hidden // self.width)
        self.sampling = {"samples": 1, "steps": 1}

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """Cross-entropy, divergence, contrast and the adversary's own loss: means over targets."""
        config, at = self.config, batch.targets > 0
        turn = to_front(batch.history)
        history, here = batch.history.gather(1, turn), at.gather(1, turn)  # the same order
        x = self.inputs(history)
        states, _ = self.recurrent(dropout(x, config.dropout, rng))
        noise = torch.randn((2, *states.shape), generator=rng, device=x.device)
        z = self.encoder(states, noise, history > 0, rng)  # [B, L, z]
        candidates = Candidates.of(batch, at, config.softmax, self.items)
        joint, shuffled = self.critic(x, z)[here], self.critic(x, z.roll(-1, 0))[here]
        frozen = {name: p.detach() for name, p in self.adversary.named_parameters()}
        kl = torch.func.functional_call(self.adversary, frozen, (x[here], z[here], rng))
        name = config.softmax.loss
        parts = {
            name: softmax_loss(candidates, self.query(z[here]).unsqueeze(1)),
            "kl": kl.mean(),
            "contrast": (F.softplus(-joint) + F.softplus(shuffled)).mean(),
            "adversary": self.doubt(x[here].detach(), z[here].detach(), rng),
        }
        weights = {name: 1.0, "kl": config.kl, "contrast": config.contrast, "adversary": 1.0}
        return LossParts(parts, weights)

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        """Noise, flattened: that of both draws for the last five positions."""
        states, _ = self.recurrent(self.inputs(history.gather(1, to_front(history))))
        count = (history > 0).sum(1, keepdim=True)
        last = count + torch.arange(-KERNEL, 0, device=history.device)  # [B, 5]
        index = last.clamp_min(0).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        draws = noise.flatten(1)[:, : 2 * KERNEL * self.config.hidden]
        draws = draws.unflatten(1, (2, KERNEL, -1)).transpose(0, 1)  # [2, B, 5, h]
        z = self.encoder(states.gather(1, index), draws, last >= 0)
        return self.query(z[:, -1:])

    def item_vectors(self) -> Tensor:
        return self.items.table()

    def query(self, z: Float[Tensor, "*n z"]) -> Float[Tensor, "*n d"]:
        """The decoder but for its last layer, and a 1."""
        return F.pad(torch.tanh(self.decoder(z)), (0, 1), value=1.0)

    def doubt(
        self, x: Float[Tensor, "N w"], z: Float[Tensor, "N z"], rng: Generator
    ) -> Float[Tensor, ""]:
        """What it costs the adversary to tell z from draws of the prior."""
        prior = torch.randn(z.shape, generator=rng, device=z.device)
        made, drawn = self.adversary(x, z, rng), self.adversary(x, prior, rng)
        return (F.softplus(-made) + F.softplus(drawn)).mean()


def to_front(history: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Where to gather from so that padding stands behind the items, which stay in order."""
    length = history.shape[1]
    padding = (history == 0).sum(1, keepdim=True)
    return (torch.arange(length, device=history.device) + padding) % length
