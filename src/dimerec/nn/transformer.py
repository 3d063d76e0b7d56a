"""The causal transformer encoder (Kang and McAuley 2018) over left-padded histories."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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


SHORT = 2**16  # values of 16 random bits


def dropout(x: Tensor, rate: float, rng: Generator | None) -> Tensor:
    """Inverted dropout drawn from `rng`; the identity when `rng` is None (not training).

    Each element takes 16 bits, so that one draw of the generator serves four; that is a third of
    the time of a Bernoulli draw each. The rate is therefore a multiple of 2^-16, and the scale is
    that of the rate as it is.
    """
    if rng is None or rate == 0:
        return x
    dropped = min(round(rate * SHORT), SHORT - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    bits = draws.random_(-(2**63), None, generator=rng).view(torch.int16)[: x.numel()]
    keep = bits.view(x.shape) >= dropped - SHORT // 2
    return x * keep.to(x.dtype).mul_(SHORT / (SHORT - dropped))


def attention(
    q: Float[Tensor, "B h Q c"],
    k: Float[Tensor, "B h L c"],
    v: Float[Tensor, "B h L c"],
    seen: Bool[Tensor, "..."] | None,
    rate: float,
    rng: Generator | None,
) -> Float[Tensor, "B Q hc"]:
    """Scaled dot-product attention of h heads of width c over what is `seen`, which spreads to
    `[B, h, Q, L]` (None: all); heads side by side. Where there is a `rng`, weights are dropped at
    `rate`."""
    if rng is None or rate == 0:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    else:  # the stock kernel draws its dropout from the global generator
        scores = (q / q.shape[-1] ** 0.5) @ k.transpose(2, 3)
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        mixed = dropout(scores.softmax(-1), rate, rng) @ v
    return mixed.transpose(1, 2).flatten(2)


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
        x = query + self.o(attention(q, k, v, seen, self.rate, rng))
        hidden = self.norm2(x)
        inner = dropout(F.relu(self.inner(hidden)), self.rate, rng)
        return hidden + dropout(self.outer(inner), self.rate, rng)
