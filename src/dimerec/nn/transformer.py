"""The causal transformer encoder (Kang and McAuley 2018) over left-padded histories."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from dimerec.config import Positive, Rate, Struct


class TransformerConfig(Struct, frozen=True):
    """Attributes:
    layers, heads: depth and attention heads; the width must be divisible by `heads`.
    dropout: rate on embeddings, attention weights and hidden layers while training.
    """

    layers: Positive = 2
    heads: Positive = 1
    dropout: Rate = 0.2


def dropout(x: Tensor, rate: float, rng: Generator | None) -> Tensor:
    """Inverted dropout drawn from `rng`; the identity when `rng` is None (not training)."""
    if rng is None or rate == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - rate, generator=rng)
    return x * keep / (1 - rate)


class Transformer(nn.Module):
    """Hidden states `[B, L, d]` of embedded histories, each position seeing those up to it.

    Blocks as in SASRec's published code: the query is normalised, keys and values are not; the
    feed-forward is two width-d layers with a ReLU.
    """

    def __init__(self, config: TransformerConfig, width: int, length: int) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(config, width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps=1e-8)

    def forward(
        self,
        x: Float[Tensor, "B L d"],
        history: Int[Tensor, "B L"],
        rng: Generator | None = None,
    ) -> Float[Tensor, "B L d"]:
        """`rng` drives dropout; None switches it off."""
        real = (history > 0).unsqueeze(-1)  # [B, L, 1]
        length = x.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        seen = causal & (history > 0).unsqueeze(1)  # [B, L, L]
        seen = (seen | torch.eye(length, dtype=torch.bool, device=x.device)).unsqueeze(1)
        x = x * x.shape[-1] ** 0.5 + self.position[-length:]
        x = dropout(x, self.config.dropout, rng) * real
        for block in self.blocks:
            x = block(x, seen, rng) * real
        return self.norm(x) * real


class Block(nn.Module):
    """Attention and feed-forward, each with a residual."""

    def __init__(self, config: TransformerConfig, width: int) -> None:
        super().__init__()
        self.heads, self.rate = config.heads, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor, rng: Generator | None) -> Tensor:
        query = self.norm1(x)
        q, k, v = (
            layer(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, value in ((self.q, query), (self.k, x), (self.v, x))
        )  # [B, heads, L, d / heads]
        if rng is None or self.rate == 0:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        else:  # the stock kernel draws its dropout from the global generator
            scores = (q @ k.transpose(2, 3)) / q.shape[-1] ** 0.5
            weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            mixed = dropout(weights, self.rate, rng) @ v
        x = query + self.o(mixed.transpose(1, 2).flatten(2))
        hidden = self.norm2(x)
        inner = dropout(F.relu(self.inner(hidden)), self.rate, rng)
        return hidden + dropout(self.outer(inner), self.rate, rng)
