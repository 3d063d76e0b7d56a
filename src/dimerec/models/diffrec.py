"""DiffRec: diffusion over the vector of a user's interactions; T-DiffRec weighs them by age.

Wang, Xu, Feng, Lin, He and Chua, "Diffusion Recommender Model", SIGIR 2023; official code:
github.com/YiyanXu/DiffRec. x_0 holds a number for every item, 1 where the user met it. A little
Gaussian noise is added in T steps, never so much that x_T is noise; an MLP predicts x_0 from x_t
and t, and learns by squared error, each t weighed as in the bound and drawn by its recent losses.
To recommend, the T steps are run back from the history itself (or from x_T' of it, T' < T), by
means alone; what the last of them predicts are the scores. T-DiffRec has weights in x_0, rising
from `w_min` for a user's oldest interaction to `w_max` for the newest. L-DiffRec is not here.

The paper knows no next item: it rebuilds the whole vector, and ranks what was held out of it. Two
readings are offered, as for Mult-VAE:
- `predict = "next"` (default): the noised history is read, and the vector that is predicted has a
  1 at the item after it and 0 elsewhere. One pass learns from every position of a window, whose
  positions share t, noise and dropout; each by itself has the paper's distribution. The history is
  known when recommending: nothing is run back, and the network is asked once.
- `predict = "window"` is the paper: a window with its targets is noised and rebuilt, the chain is
  run back. What was read ranks high then: evaluate with seen items hidden, as the paper does.

Where paper and code differ, this file follows the code, which made the published figures:
- The squared error is the mean over the items, not their sum, and without the paper's half for
  t > 1, so that step 1 counts half as much beside the others.
- beta_1 is set to 1e-5 after the schedule is made, which shifts all of alpha-bar.
- A user's only interaction has the weight w_min, of which the paper's formula says nothing.
Where this file differs from the code: the code's branch without re-weighting has no loss, here it
is the squared error; an item met twice has the weight of its last time (the code adds them up, its
data has none); the first layer is a sum of rows, the noise alone is dense; with all positions as
targets the squared error over all items is expanded, so that no vector over items is made.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import NonNegative, Positive, Rate, Struct, Weight
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.importance import StepSampler
from dimerec.nn.losses import Candidates, SoftmaxConfig
from dimerec.nn.transformer import dropout

FIRST_BETA = 1e-5

Variance = Annotated[float, Meta(gt=0.0, lt=1.0)]


class Config(Struct, frozen=True):
    """DiffRec's options; the defaults are the published command for ML-1M, but for `predict`.

    Attributes:
        dims: widths of the decoder's layers before the last; the encoder mirrors them.
        embedding: width of the step embedding.
        dropout: rate on the entries of x_t while training.
        steps: T.
        noise_scale, noise_min, noise_max: 1 - alpha-bar_t goes evenly from scale * min at t = 1
            to scale * max at t = T.
        corrupted: T', the noise put on a history before recommending; 0 is none.
        w_min, w_max: entry of the oldest and of the newest interaction; both 1 is DiffRec.
        reweight: losses are weighed by SNR(t - 1) - SNR(t); otherwise all alike.
        predict: "next" predicts the item after each history, "window" rebuilds the whole window.
        loss: "squared" is the published one; "softmax" (or, in its place, what `softmax.loss`
            says) goes with "next".
        softmax: see its struct.
    """

    dims: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (200, 600)
    embedding: Annotated[int, Meta(ge=2)] = 10
    dropout: Rate = 0.5
    steps: Positive = 40
    noise_scale: Annotated[float, Meta(gt=0.0)] = 0.005
    noise_min: Variance = 0.005
    noise_max: Variance = 0.01
    corrupted: NonNegative = 0
    w_min: Weight = 1.0
    w_max: Annotated[float, Meta(gt=0.0)] = 1.0
    reweight: bool = True
    predict: Literal["next", "window"] = "next"
    loss: Literal["squared", "softmax"] = "squared"
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        if self.corrupted > self.steps:
            raise ValueError(f"corrupted = {self.corrupted} must be in 0..T = {self.steps} (steps)")
        if self.noise_min > self.noise_max:
            raise ValueError(
                f"noise_min = {self.noise_min:g} must be at most noise_max = {self.noise_max:g}"
            )
        if self.noise_scale * self.noise_max >= 1:
            raise ValueError(
                f"noise_scale = {self.noise_scale:g} must be below 1 / noise_max = "
                f"{1 / self.noise_max:g}: the noise's variance is below 1"
            )
        if self.w_min > self.w_max:
            raise ValueError(f"w_min = {self.w_min:g} must be at most w_max = {self.w_max:g}")
        if self.predict == "window" and self.loss != "squared":
            raise ValueError(f'predict = "window" needs loss = "squared", not "{self.loss}"')
        if self.softmax.unit:
            raise ValueError("softmax.unit must be false: item vectors hold a bias")
        if self.loss == "squared" and self.softmax != SoftmaxConfig():
            raise ValueError('softmax is read with loss = "softmax" alone, not with "squared"')

    @property
    def needs_negatives(self) -> bool:
        """Whether the loss is made of sampled negatives."""
        return self.softmax.needs_negatives

    @property
    def without_negatives(self) -> str:
        """Why the loss takes no negatives."""
        if self.predict == "window":
            return "predict = 'window' compares with all items"
        if self.loss == "squared":
            return "loss = 'squared' compares with all items; loss = 'softmax' takes negatives"
        return ""


class Model(SequentialModel):
    """One query: the MLP's last hidden layer, and a 1 for the bias."""

    signal: Tensor
    spread: Tensor
    weight: Tensor
    angles: Tensor

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.size, T = config, catalogue.size, config.steps
        width, half = config.dims[-1], config.embedding // 2
        self.width = width + 1
        self.rows = ItemEmbedding(catalogue.size, width)  # of the encoder's first layer
        self.step_in = nn.Linear(2 * half, config.embedding)
        self.step_out = nn.Linear(config.embedding, width)  # the rest of that layer
        widths = [*reversed(config.dims), *config.dims[1:]]
        self.inner = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.items = ItemEmbedding(catalogue.size, self.width)
        self._initialise()
        abar = alpha_bar(config)
        snr = abar / (1 - abar)
        bound = torch.where(torch.arange(T + 1) > 1, snr.roll(1) - snr, 1.0)
        frequency = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        angle = torch.arange(T).unsqueeze(1) * frequency
        self.chain = [posterior(abar, t) for t in range(1, T + 1)]
        fixed = {
            "signal": abar.sqrt(),
            "spread": (1 - abar).sqrt(),
            "weight": bound if config.reweight else torch.ones(T + 1),
            "angles": torch.cat([angle.cos(), angle.sin()], 1),
        }
        for name, tensor in fixed.items():
            self.register_buffer(name, tensor.float(), persistent=False)
        self.sampler = StepSampler(T)
        self.noise_draws = -(-catalogue.size // self.width) if config.corrupted else 0
        if config.predict == "window":
            self.sampling = {"samples": 1, "steps": T}

    def _initialise(self) -> None:
        """Xavier's normal distribution for weights, a narrow normal for biases."""
        first = self.size - 1 + self.config.embedding + self.rows.width
        last = self.size - 1 + self.rows.width
        with torch.no_grad():
            self.rows.weight[1:].normal_(std=(2 / first) ** 0.5)
            self.items.weight[1:, :-1].normal_(std=(2 / last) ** 0.5)
            self.items.weight[1:, -1].normal_(std=0.001)
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight)
                    nn.init.normal_(layer.bias, std=0.001)
            self.step_out.weight.normal_(std=(2 / first) ** 0.5)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """The mean over the positions ("next") or windows of the weighted loss at a drawn t."""
        row = (batch.targets > 0).any(1)
        t, odds = self.sampler.draw(int(row.sum()), rng)
        noise = torch.randn(len(t), self.size, generator=rng, device=t.device)
        noise[:, 0] = 0
        kept = dropout(torch.ones_like(noise), self.config.dropout, rng)
        spread = self.spread[t].unsqueeze(1) * ((kept * noise) @ self.rows.weight)
        offset = spread + self.step()[t - 1]  # [b, d]: what does not depend on the history
        if self.config.predict == "window":
            each = cost = self._rebuild(batch, row, t, kept, offset)
            which = torch.arange(len(t), device=t.device)
        else:
            each, which = self._continue(batch, row, t, kept, offset)
            cost = _means(each, which, len(t))
        weight = self.weight[t]
        loss = (each * (weight / odds)[which]).mean()
        if loss.requires_grad:  # a loss that is only looked at is not remembered
            seen = (weight * cost).detach()
            loss.register_hook(lambda _: self.sampler.remember(t, seen))
        name = "squared" if self.config.loss == "squared" else self.config.softmax.loss
        return LossParts({name: loss}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        config, x, steps = self.config, self.bags(history)[:, -1], self.step()
        if config.corrupted:
            dense = noise.flatten(1)[:, : self.size].clone()
            dense[:, 0] = 0
            signal, spread = self.signal[config.corrupted], self.spread[config.corrupted]
            x = signal * x + spread * (dense @ self.rows.weight)
        if config.predict == "next":
            return self.query(x + steps[max(config.corrupted, 1) - 1]).unsqueeze(1)
        # x_t enters the network through its first layer alone, so the chain is run behind it.
        through = self.items.table().T @ self.rows.weight  # [w, d]: from a query to its x_0-hat
        for t in range(config.steps, 1, -1):
            on_x0, on_xt = self.chain[t - 1]
            x = on_x0 * (self.query(x + steps[t - 1]) @ through) + on_xt * x
        return self.query(x + steps[0]).unsqueeze(1)  # the last step's x_0 is its prediction

    def item_vectors(self) -> Tensor:
        return self.items.table()

    def bags(
        self, history: Int[Tensor, "B L"], kept: Float[Tensor, "B V"] | None = None
    ) -> Float[Tensor, "B L d"]:
        """The vector x of the history up to every position through the first layer's rows;
        `kept` has a factor for every entry of a row's x."""
        rows, gain, first = self.rows(history), *steps_up(history)
        if kept is not None:
            rows = rows * kept.gather(1, history).unsqueeze(-1)
        low, rise = self.config.w_min, self.config.w_max - self.config.w_min
        total = low * (rows * first.unsqueeze(-1)).cumsum(1)
        if rise:
            later = ((history > 0).cumsum(1) - 1).clamp_min(1).unsqueeze(-1)  # n - 1
            total = total + rise / later * (rows * gain.unsqueeze(-1)).cumsum(1)
        return total

    def vector(self, window: Int[Tensor, "B W"]) -> Float[Tensor, "B V"]:
        """x of whole rows: w_min at the oldest item up to w_max at the newest; 0 elsewhere."""
        gain, first = steps_up(window)
        low, rise = self.config.w_min, self.config.w_max - self.config.w_min
        later = ((window > 0).sum(1, keepdim=True) - 1).clamp_min(1)
        x = self.signal.new_zeros(len(window), self.size)
        return x.scatter_add_(1, window, low * first + rise * gain / later)

    def step(self) -> Float[Tensor, "T d"]:
        """What every step adds to the first layer, with that layer's bias."""
        return self.step_out(self.step_in(self.angles))

    def query(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n w"]:
        """The network behind its first layer's sum, but for the last layer, and a 1."""
        hidden = torch.tanh(x)
        for layer in self.inner:
            hidden = torch.tanh(layer(hidden))
        return F.pad(hidden, (0, 1), value=1.0)

    def _rebuild(
        self, batch: SequenceBatch, row: Tensor, t: Tensor, kept: Tensor, offset: Tensor
    ) -> Float[Tensor, " b"]:
        """The mean squared error of each window's whole vector."""
        x0 = self.vector(torch.cat([batch.history, batch.targets[:, -1:]], dim=1)[row])
        x = self.signal[t].unsqueeze(1) * ((kept * x0) @ self.rows.weight) + offset
        return (self.query(x) @ self.items.table().T - x0)[:, 1:].square().mean(1)

    def _continue(
        self, batch: SequenceBatch, row: Tensor, t: Tensor, kept: Tensor, offset: Tensor
    ) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
        """What each target costs, and which of the rows it stands in."""
        at = batch.targets > 0
        bags = self.bags(batch.history[row], kept)
        x = self.signal[t][:, None, None] * bags + offset.unsqueeze(1)
        queries = self.query(x[at[row]])
        which = at[row].nonzero()[:, 0]
        if self.config.loss == "softmax":
            candidates = Candidates.of(batch, at, self.config.softmax, self.items)
            return candidates.losses(queries.unsqueeze(1))[:, 0], which
        return one_hot_error(queries, self.items.table(), batch.targets[at]), which


def alpha_bar(config: Config) -> Float[Tensor, "T1"]:
    """alpha-bar_0 .. alpha-bar_T, float64: they differ from 1 by less than float32 can tell."""
    line = torch.linspace(config.noise_min, config.noise_max, config.steps, dtype=torch.float64)
    wanted = 1 - config.noise_scale * line
    kept = torch.cat([wanted.new_tensor([1.0, 1 - FIRST_BETA]), wanted[1:] / wanted[:-1]])
    return kept.cumprod(0)


def posterior(abar: Float[Tensor, "T1"], t: int) -> tuple[float, float]:
    """What x_0 and x_t weigh in the mean of q(x_{t-1} | x_t, x_0)."""
    now, before = float(abar[t]), float(abar[t - 1])
    kept, rest = now / before, 1 - now
    return math.sqrt(before) * (1 - kept) / rest, math.sqrt(kept) * (1 - before) / rest


def steps_up(history: Int[Tensor, "B L"]) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """How far an item's last place rises at each position, places counting from 0; and 1 where it
    stands for the first time, else 0. Both are 0 at padding."""
    real = history > 0
    place = real.cumsum(1)  # from 1
    numbers, order = history.sort(dim=1, stable=True)
    sorted_place = place.gather(1, order)
    again = F.pad(numbers[:, 1:] == numbers[:, :-1], (1, 0))
    earlier = torch.where(again, sorted_place.roll(1, 1), 0)
    earlier = torch.zeros_like(earlier).scatter_(1, order, earlier)
    first = (real & (earlier == 0)).to(place.dtype)
    return (place - earlier - first) * real, first


def one_hot_error(
    queries: Float[Tensor, "N w"], table: Float[Tensor, "V w"], targets: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """The squared error against a 1 at the target and 0 at all other items, the mean over items.

    sum_i <q, v_i>^2 = <q, (sum_i v_i v_i^T) q>: no score of an item is made but the target's.
    """
    everything = ((queries @ (table.T @ table)) * queries).sum(1)
    target = (queries * F.embedding(targets, table)).sum(1)
    return (everything - 2 * target + 1) / (len(table) - 1)


def _means(values: Float[Tensor, " N"], which: Int[Tensor, " N"], rows: int) -> Float[Tensor, " b"]:
    total = values.new_zeros(rows).index_add_(0, which, values.detach())
    return total / torch.bincount(which, minlength=rows)
