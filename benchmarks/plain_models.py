"""SASRec, DreamRec and DiffuRec in straightforward PyTorch, as their papers' code computes them.

What `bench_models.py` holds the package's models against. They know nothing of the package but the
batch they are given.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimerec.batch import SequenceBatch

WIDTH = 64


class PlainSASRec(nn.Module):
    """SASRec's block as published: the query is normalised, the residual carries what was
    normalised, keys and values are not; all positions at once, each with negatives of its own."""

    def __init__(self, items: int, length: int, rate: float = 0.2) -> None:
        super().__init__()
        self.items, self.rate = nn.Embedding(items + 1, WIDTH, padding_idx=0), rate
        self.positions = nn.Embedding(length, WIDTH)
        self.layers = nn.ModuleList(SASRecLayer(rate) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-8)
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, batch: SequenceBatch) -> Tensor:
        x = self.items(batch.history) * WIDTH**0.5 + self.positions.weight
        real = (batch.history > 0).unsqueeze(-1)
        x = F.dropout(x, self.rate) * real
        for layer in self.layers:
            x = layer(x, self.mask) * real
        x = self.norm(x)
        targets = batch.targets.unsqueeze(-1)
        candidates = torch.cat([targets, batch.negatives], dim=-1)
        logits = torch.einsum("bld,blmd->blm", x, self.items(candidates))
        hit = candidates == targets
        hit[..., 0] = False  # the target itself
        logits = logits.masked_fill(hit, -torch.inf)[batch.targets > 0]
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))

    @torch.no_grad()
    def take_weights(self, model: Any) -> None:
        """Those of the package's SASRec, so that both sides start alike."""
        self.items.weight.copy_(model.items.weight)
        self.positions.weight.copy_(model.transformer.position)
        self.norm.load_state_dict(model.transformer.norm.state_dict())
        for layer, block in zip(self.layers, model.transformer.blocks, strict=True):
            theirs = block.state_dict()
            for kind in ("weight", "bias"):
                parts = [theirs.pop(f"{name}.{kind}") for name in "qkv"]
                theirs[f"attention.in_proj_{kind}"] = torch.cat(parts)
                theirs[f"attention.out_proj.{kind}"] = theirs.pop(f"o.{kind}")
            layer.load_state_dict(theirs)


class SASRecLayer(nn.Module):
    """One of its blocks."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-8), nn.LayerNorm(WIDTH, eps=1e-8)
        self.attention = nn.MultiheadAttention(WIDTH, 1, dropout=rate, batch_first=True)
        self.inner, self.outer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query = self.norm1(x)
        x = query + self.attention(query, x, x, attn_mask=mask, need_weights=False)[0]
        hidden = self.norm2(x)
        inner = F.dropout(F.relu(self.inner(hidden)), self.rate)
        return hidden + F.dropout(self.outer(inner), self.rate)


class PlainDreamRec(nn.Module):
    """One target a sequence: attention over the history, its last state, one noised target."""

    def __init__(self, items: int, length: int) -> None:
        super().__init__()
        self.items, self.null = nn.Embedding(items + 1, WIDTH), nn.Parameter(torch.randn(WIDTH))
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
        self.alpha_bar = (1 - torch.linspace(0.013125, 0.635, 32)).cumprod(0)

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
        self.heads = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        for layer in (self.out, self.inner, self.outer):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        normed = self.norms[0](x)
        q, k, v = (h(normed).unflatten(-1, (4, -1)).transpose(1, 2) for h in self.heads)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~real[:, None, :, None], -1e9).softmax(-1)
        mixed = (F.dropout(weights, 0.1) @ v).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.out(mixed), 0.1)
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
