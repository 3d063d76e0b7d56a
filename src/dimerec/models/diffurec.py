"""DiffuRec: items as distributions, with the noised target mixed into the whole history.

Li, Sun and Li, "DiffuRec: A Diffusion Model for Sequential Recommendation", ACM TOIS 42(3), 2023;
official code: github.com/WHUIR/DiffuRec. The noised target x_t and its step embedding d_t are
added to every item of the history, weighed by a random lambda; a transformer, the Approximator,
reads x_0-hat off the last position; it learns by cross-entropy over all items.

Where paper and code differ, this file follows the code, which made the published figures:
- lambda ~ N(delta, delta) has the standard deviation delta there, and is drawn for every position
  and every coordinate.
- The code draws t uniformly: it names a loss-aware sampler that it never tells a loss.
- The Approximator attends both ways and has no position vectors (they are commented out): a
  history is a set with a marked last item.
Where this file differs from the code:
- Padding is not attended to. The code masks the rows of padding instead of its columns, so that
  its answers depend on how much padding stands before a history.
- The last block computes the last position alone: no other is read.
- In the reverse chain the draws of lambda are one Gaussian row a position, turned by one
  coordinate a step, instead of T such rows: independent within a step, and for each coordinate
  over as many steps as the width.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import NonNegative, Positive, Rate, Struct, Weight
from dimerec.diffusion.sampler import noise_rows, sample
from dimerec.diffusion.schedule import NoiseSchedule, ScheduleConfig
from dimerec.diffusion.spaces import space
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn import pieces
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.steps import StepMLP
from dimerec.nn.transformer import attention, check_heads, dropout


class Config(Struct, frozen=True):
    """DiffuRec's options; the defaults are those of the official code.

    Attributes:
        width: d, divisible by `heads`.
        start: item vectors are drawn from N(0, 1) ("normal", the code's), or from Xavier's uniform
            distribution of the whole table, sqrt(V / 2) times shorter ("xavier"): logits then
            begin near 0 instead of as far apart as sqrt(d).
        layers, heads: depth and attention heads of the Approximator.
        dropout: rate inside the Approximator while training.
        item_dropout: rate on the history's item vectors while training.
        uncertainty: delta, mean and standard deviation of lambda.
        schedule, softmax: see their structs.
        steps: reverse steps when recommending, at most T; 0 takes all T.
    """

    width: Annotated[int, Meta(ge=2)] = 128
    start: Literal["normal", "xavier"] = "normal"
    layers: Positive = 4
    heads: Positive = 4
    dropout: Rate = 0.1
    item_dropout: Rate = 0.3
    uncertainty: Weight = 0.001
    schedule: ScheduleConfig = ScheduleConfig(kind="truncated-linear", steps=32)
    softmax: SoftmaxConfig = SoftmaxConfig()
    steps: NonNegative = 0

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        self.schedule.check_steps("steps", self.steps, 0)


def inject(
    items: Float[Tensor, "N L d"],
    x: Float[Tensor, "N d"],
    draws: Float[Tensor, "N L d"],
    uncertainty: float,
) -> Float[Tensor, "N L d"]:
    """z = e + lambda x for every item e, with lambda = delta (1 + draw) ~ N(delta, delta^2)."""
    return items + uncertainty * (1 + draws) * x.unsqueeze(1)


class Block(nn.Module):
    """Attention both ways, then a feed-forward; each on normalised input, with a residual."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.o, self.inner, self.outer):
            nn.init.xavier_normal_(layer.weight)

    def forward(
        self, x: Float[Tensor, "N L d"], seen: Tensor | None, rng: Generator | None, last: bool
    ) -> Tensor:
        """`seen` is bool `[N, 1, 1, L]`, None for all; `last` asks for the last position alone,
        `[N, 1, d]`."""
        normed = self.norm1(x)
        if last:
            x = x[:, -1:]
        q, k, v = (
            layer(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, value in (
                (self.q, normed[:, -x.shape[1] :]),
                (self.k, normed),
                (self.v, normed),
            )
        )  # [N, heads, L, d / heads]
        x = x + dropout(self.o(attention(q, k, v, seen, self.rate, rng)), self.rate, rng)
        inner = dropout(F.gelu(self.inner(self.norm2(x)), approximate="tanh"), self.rate, rng)
        x = x + dropout(self.outer(inner), self.rate, rng)
        return dropout(x, self.rate, rng)


class Approximator(nn.Module):
    """x_0-hat from the injected history z `[N, L, d]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.rate = config.dropout
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-8)

    def forward(
        self,
        z: Float[Tensor, "N L d"],
        seen: Bool[Tensor, "N L"] | None = None,
        rng: Generator | None = None,
    ) -> Float[Tensor, "N d"]:
        """The state of the last position, from what is `seen` and itself; None sees all. `rng`
        drives dropout, None switches it off."""
        if seen is not None:
            last = torch.arange(z.shape[1], device=z.device) == z.shape[1] - 1
            seen = (seen | last)[:, None, None]  # an empty history attends to something
        for depth, block in enumerate(self.blocks, 1):
            z = block(z, seen, rng, last=depth == len(self.blocks))
        return self.norm(dropout(z[:, -1], self.rate, rng))


class Model(SequentialModel):
    """One query: x_0-hat at the end of the reverse chain.

    x_t of one target is mixed into the whole history, which is read both ways: each pass serves
    one target.
    """

    targets = "last"

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width, self.length = config, config.width, catalogue.length
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        if config.start == "xavier":
            self.items.draw_xavier()
        else:
            with torch.no_grad():
                self.items.weight.mul_(config.width**0.5)  # standard normal
        self.norm = nn.LayerNorm(config.width, eps=1e-8)
        T = config.schedule.steps
        self.step = StepMLP(T, config.width, 4 * config.width, nn.SiLU(), stretch=1000 / T)
        self.approximator = Approximator(config)
        self.schedule = NoiseSchedule(config.schedule)
        self.space = space("euclidean", self.schedule)
        self.steps = config.steps or T
        self.noise_draws = noise_rows(self.steps, stochastic=True) + catalogue.length
        self.sampling = {"samples": 1, "steps": self.steps}

    def embed(
        self, history: Int[Tensor, "N L"], rng: Generator | None = None
    ) -> Float[Tensor, "N L d"]:
        """The history's normalised item vectors."""
        return self.norm(dropout(self.items(history), self.config.item_dropout, rng))

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        at = batch.targets > 0
        at[:, :-1] = False
        history = batch.history[at[:, -1]]  # [N, L]
        candidates = Candidates.of(batch, at, self.config.softmax, self.items)
        x0 = candidates.positive
        device = x0.device
        t = torch.randint(1, self.schedule.steps + 1, (len(x0),), generator=rng, device=device)
        noise = torch.randn(x0.shape, generator=rng, device=device)
        draws = torch.randn((*history.shape, self.width), generator=rng, device=device)
        x = self.space.diffuse(x0, t, noise) + F.embedding(t, self.step())
        predicted = torch.empty_like(x0)
        for rows, part in pieces.pieces(history > 0):
            items = history[rows, part]
            embedded = self.embed(items, rng)
            z = inject(embedded, x[rows], draws[rows, part], self.config.uncertainty)
            seen = None if bool(items.all()) else items > 0
            predicted[rows] = self.approximator(z, seen, rng)
        predicted = predicted.unsqueeze(1)
        name = self.config.softmax.loss
        return LossParts({name: softmax_loss(candidates, predicted)}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        """Rows of noise: the chain's, then one a position for lambda, the last position's last."""
        chain, spread = noise[:, : -self.length], noise[:, -history.shape[1] :]
        step = self.step()
        if pieces.whole(history > 0):
            return self._chain(history, chain, spread, step)
        x0 = noise.new_empty(len(history), 1, self.width)
        for rows, part in pieces.pieces(history > 0):
            x0[rows] = self._chain(history[rows, part], chain[rows], spread[rows, part], step)
        return x0

    def _chain(
        self,
        history: Int[Tensor, "B L"],
        chain: Float[Tensor, "B R d"],
        spread: Float[Tensor, "B L d"],
        step: Float[Tensor, "T1 d"],
    ) -> Float[Tensor, "B 1 d"]:
        """x_0 at the end of the reverse chain from the first of the R rows `chain`; `spread` are
        the draws of lambda, `step` the embeddings of the steps 0..T."""
        items = self.embed(history)
        turn = {t: i for i, t in enumerate(self.schedule.times(self.steps))}

        def denoise(x: Tensor, t: int) -> Tensor:
            draws = spread.roll(turn[t], dims=-1)
            z = inject(items, x + step[t], draws, self.config.uncertainty)
            return self.approximator(z, history > 0)

        return sample(denoise, self.space, chain.transpose(0, 1), self.steps).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        return self.items.table()
