"""How fast do models train, beside plain PyTorch written as their papers' code is?

SASRec beside `nn.TransformerEncoder` with the same loss at all positions; DreamRec, all positions
in one pass, beside one target a sequence; DiffuRec beside a loop that computes all that its
official code does. Plain loops have `torch.optim.Adam` as it is. Both sides of a pair take turns in
one process on one thread, on random sequences. Prints training targets a CPU second (median of the
turns) and their ratio, writes `results/models.json`, and exits with 1 when a ratio is under what is
promised: 1, 3 and 1.5.

    python benchmarks/bench_models.py [--items 12000] [--turns 3] [--seconds 3]
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimerec import config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.model import Catalogue

WIDTH, NEGATIVES = 64, 10
PROMISED = {"sasrec": 1.0, "dreamrec": 3.0, "diffurec": 1.5}
LENGTH = {"sasrec": 50, "dreamrec": 10, "diffurec": 50}
ROWS = {"sasrec": (64, 64), "dreamrec": (256, 256), "diffurec": (64, 64)}  # here, reference
OPTIONS = {
    "sasrec": [
        "options.softmax.unit=false",
        "options.softmax.temperature=1.0",
        "options.softmax.logq=false",
    ],
    "dreamrec": [],
    "diffurec": [],
}


class PlainSASRec(nn.Module):
    """All positions of `nn.TransformerEncoder`, each with negatives of its own."""

    def __init__(self, items: int, length: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.positions = nn.Embedding(length, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 1, WIDTH, dropout=0.2, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), False)
        self.mask = nn.Transformer.generate_square_subsequent_mask(length)

    def forward(self, batch: SequenceBatch) -> Tensor:
        x = self.items(batch.history) * WIDTH**0.5 + self.positions.weight
        x = self.encoder(F.dropout(x, 0.2), mask=self.mask, is_causal=True)
        candidates = torch.cat([batch.targets.unsqueeze(-1), batch.negatives], dim=-1)
        logits = torch.einsum("bld,blmd->blm", x, self.items(candidates)).flatten(0, 1)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))


class PlainDreamRec(nn.Module):
    """One target a sequence: attention over the history, its last state, one noised target."""

    def __init__(self, items: int, length: int) -> None:
        super().__init__()
        self.items, self.null = nn.Embedding(items + 1, WIDTH), nn.Parameter(torch.zeros(WIDTH))
        self.positions = nn.Embedding(length, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.attention = nn.MultiheadAttention(WIDTH, 1, dropout=0.1, batch_first=True)
        self.feed = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(2))
        self.step = steps(WIDTH, 2 * WIDTH, nn.GELU())
        self.denoiser = nn.Linear(3 * WIDTH, WIDTH)
        self.mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.alpha_bar = (1 - torch.linspace(1e-4, 0.02, 500)).cumprod(0)

    def forward(self, batch: SequenceBatch) -> Tensor:
        x = F.dropout(self.items(batch.history) + self.positions.weight, 0.1)
        x = x * (batch.history > 0).unsqueeze(-1)
        normed = self.norms[0](x)
        x = x + self.attention(normed, x, x, attn_mask=self.mask, need_weights=False)[0]
        inner = self.norms[1](x).transpose(1, 2)
        inner = self.feed[1](F.dropout(F.relu(self.feed[0](inner)), 0.1)).transpose(1, 2)
        guidance = self.norms[2](x + F.dropout(inner, 0.1))[:, -1]
        guidance = torch.where(torch.rand(len(x), 1) < 0.1, self.null, guidance)
        target = self.items(batch.targets[:, -1])
        t = torch.randint(0, 500, (len(x),))
        kept = self.alpha_bar[t].unsqueeze(1)
        noisy = kept.sqrt() * target + (1 - kept).sqrt() * torch.randn_like(target)
        predicted = self.denoiser(torch.cat([noisy, guidance, self.step(sinusoids(t))], dim=1))
        return F.mse_loss(predicted, target)


class PlainDiffuRec(nn.Module):
    """One target a sequence: the target noised into all items, blocks over all positions."""

    def __init__(self, items: int, length: int) -> None:
        super().__init__()
        self.items, self.norm = nn.Embedding(items + 1, WIDTH), Norm()
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.step, self.last = steps(WIDTH, 4 * WIDTH, nn.SiLU()), Norm()
        self.alpha_bar = (1 - torch.linspace(0.013125, 0.04125, 32)).cumprod(0)

    def forward(self, batch: SequenceBatch) -> Tensor:
        x, real = self.norm(F.dropout(self.items(batch.history), 0.3)), batch.history > 0
        target = self.items(batch.targets[:, -1])
        t = torch.randint(0, 32, (len(x),))
        kept = self.alpha_bar[t].unsqueeze(1)
        noisy = kept.sqrt() * target + (1 - kept).sqrt() * torch.randn_like(target)
        noisy = noisy + self.step(sinusoids(t * 1000 / 32))
        share = torch.normal(torch.full(x.shape, 1e-3), torch.full(x.shape, 1e-3))
        x = x + share * noisy.unsqueeze(1)
        for block in self.blocks:
            x = block(x, real)
        x = self.last(F.dropout(x, 0.1))[:, -1]
        return F.cross_entropy(x @ self.items.weight.T, batch.targets[:, -1])


class Norm(nn.Module):
    """A layer norm spelt out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        spread = (x - mean).square().mean(-1, keepdim=True)
        return self.weight * (x - mean) / (spread + 1e-12).sqrt() + self.bias


class Block(nn.Module):
    """Attention of four heads spelt out, then a feed-forward with GELU's tanh spelt out."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm() for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        normed = self.norms[0](x)
        q, k, v = (h(normed).unflatten(-1, (4, -1)).transpose(1, 2) for h in self.heads[:3])
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~real[:, None, :, None], -1e9).softmax(-1)
        mixed = (F.dropout(weights, 0.1) @ v).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.heads[3](mixed), 0.1)
        y = self.inner(self.norms[1](x))
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y.pow(3))))
        return F.dropout(x + F.dropout(self.outer(F.dropout(y, 0.1)), 0.1), 0.1)


def steps(width: int, hidden: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))


def sinusoids(t: Tensor) -> Tensor:
    """`[N, WIDTH]` of times `[N]`."""
    rate = torch.exp(-math.log(10000) * torch.arange(WIDTH // 2) / (WIDTH // 2))
    angle = t.unsqueeze(1) * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)


REFERENCE = {"sasrec": PlainSASRec, "dreamrec": PlainDreamRec, "diffurec": PlainDiffuRec}


def batch(name: str, rows: int, items: int, every: bool) -> SequenceBatch:
    """Random sequences with targets at every position or at the last alone."""
    rng, length = torch.Generator().manual_seed(0), LENGTH[name]
    windows = torch.randint(1, items + 1, (rows, length + 1), generator=rng)
    history, targets = windows[:, :-1], windows[:, 1:].clone()
    if not every:
        targets[:, :-1] = 0
    negatives = torch.zeros(0, dtype=torch.int64)
    if name == "sasrec":
        negatives = torch.randint(1, items + 1, (rows, length, NEGATIVES), generator=rng)
    return SequenceBatch(history, targets, negatives, torch.zeros(negatives.shape))


class Side:
    """One side of a pair: `take` runs optimiser steps and says how many targets a second."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[int], Tensor],
        fed: SequenceBatch,
        fused: bool | None = None,
    ) -> None:
        self.loss, self.targets, self.step = loss, int((fed.targets > 0).sum()), 0
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        model.train()

    def take(self, seconds: float) -> float:
        """At least two steps, and as many as `seconds` hold."""
        start, done = time.process_time(), 0
        while done < 2 or time.process_time() - start < seconds:
            loss = self.loss(self.step)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            self.step, done = self.step + 1, done + 1
        return done * self.targets / (time.process_time() - start)


def here(name: str, items: int) -> Side:
    """The package's model, with the training loop's optimiser."""
    recipe = config.load(name, [f"length={LENGTH[name]}", *OPTIONS[name]])
    counts = torch.ones(items + 1)
    catalogue = Catalogue(size=items + 1, length=LENGTH[name], counts=counts)
    with randomness.torch_scope(0, "init"):
        model = plugins.load("dimerec.models", name).Model(recipe.model_config(), catalogue)
    fed = batch(name, ROWS[name][0], items, model.targets == "all")

    def loss(step: int) -> Tensor:
        return model.loss(fed, randomness.torch_stream(0, "loss", step)).total

    return Side(model, loss, fed, fused=True)


def reference(name: str, items: int) -> Side:
    """Plain PyTorch."""
    with randomness.torch_scope(0, "init"):
        model = REFERENCE[name](items, LENGTH[name])
    fed = batch(name, ROWS[name][1], items, every=name == "sasrec")
    return Side(model, lambda _: model(fed), fed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, promised in PROMISED.items():
        sides = {"here": here(name, given.items), "reference": reference(name, given.items)}
        for side in sides.values():
            side.take(0)
        rates: dict[str, list[float]] = {which: [] for which in sides}
        for _ in range(given.turns):
            for which, side in sides.items():
                rates[which].append(side.take(given.seconds))
        median = {which: statistics.median(values) for which, values in rates.items()}
        ratio = median["here"] / median["reference"]
        found[name] = {**median, "ratio": ratio, "promised": promised, "length": LENGTH[name]}
        print(
            f"{name:>8}: {median['here']:>8,.0f} targets/s here, {median['reference']:>8,.0f} in "
            f"plain PyTorch, ratio {ratio:.2f} (promised {promised:g})"
        )
    result = {
        "items": given.items,
        "width": WIDTH,
        "rows": ROWS,
        "targets_per_cpu_second": found,
        "threads": 1,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    out = Path(__file__).parent / "results" / "models.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(f["ratio"] >= f["promised"] for f in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
