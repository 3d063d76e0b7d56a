"""The causal encoder of left-padded histories, of SASRec's blocks or of BERT's."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from dimerec.config import Positive, Rate, Struct
from dimerec.nn.pieces import by_length


class TransformerConfig(Struct, frozen=True):
    """Attributes:
    kind: "sasrec" has the blocks of Kang and McAuley's code (2018), "bert" those of BERT: norms
        behind the residuals and a feed-forward four times as wide, with GELU. What S3-Rec's code
        and RecBole call SASRec has the latter.
    layers, heads: depth and attention heads; the width must be divisible by `heads`.
    dropout: rate on embeddings, attention weights and hidden layers while training.
    """

    kind: Literal["sasrec", "bert"] = "sasrec"
    layers: Positive = 2
    heads: Positive = 1
    dropout: Rate = 0.2


def check_heads(width: int, heads: int, name: str = "heads") -> None:
    """ValueError where attention heads cannot share the width; it names those that can, and the
    option `name` that says how many there are."""
    if width % heads:
        small = [n for n in range(1, math.isqrt(width) + 1) if width % n == 0]
        allowed = ", ".join(map(str, sorted({*small, *(width // n for n in small)})))
        raise ValueError(
            f"width = {width} must be divisible by {name} = {heads}, which can be {allowed}"
        )


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
    """Hidden states `[B, L, d]` of embedded histories, each position seeing those up to it."""

    def __init__(self, config: TransformerConfig, width: int, length: int) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.bert = config.kind == "bert"
        made = BertBlock if self.bert else Block
        self.blocks = nn.ModuleList(
            made(width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-12 if self.bert else 1e-8)

    def forward(
        self,
        x: Float[Tensor, "B L d"],
        history: Int[Tensor, "B L"],
        rng: Generator | None = None,
    ) -> Float[Tensor, "B L d"]:
        """`rng` drives dropout; None switches it off."""
        return by_length(self._read, x, history > 0, rng)

    def _read(
        self, x: Float[Tensor, "B L d"], real: Bool[Tensor, "B L"], rng: Generator | None
    ) -> Float[Tensor, "B L d"]:
        length = x.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        seen = causal & real.unsqueeze(1)  # [B, L, L]
        seen = (seen | torch.eye(length, dtype=torch.bool, device=x.device)).unsqueeze(1)
        real = real.unsqueeze(-1)
        if self.bert:  # normalised before the blocks and not behind them
            x = dropout(self.norm(x + self.position[-length:]), self.config.dropout, rng)
            for block in self.blocks:
                x = block(x, seen, rng)
            return x * real
        x = x * x.shape[-1] ** 0.5 + self.position[-length:]
        x = dropout(x, self.config.dropout, rng) * real
        for block in self.blocks:
            x = block(x, seen, rng) * real
        return self.norm(x) * real


class Block(nn.Module):
    """Attention and feed-forward, each with a residual, as in SASRec's published code: the query
    is normalised, keys and values are not; the feed-forward is two width-d layers with a ReLU."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B L d"], seen: Bool[Tensor, "..."], rng: Generator | None
    ) -> Float[Tensor, "B L d"]:
        query = self.norm1(x)
        q, k, v = (
            layer(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, value in ((self.q, query), (self.k, x), (self.v, x))
        )  # [B, heads, L, d / heads]
        x = query + self.o(attention(q, k, v, seen, self.rate, rng))
        hidden = self.norm2(x)
        inner = dropout(F.relu(self.inner(hidden)), self.rate, rng)
        return hidden + dropout(self.outer(inner), self.rate, rng)


class BertBlock(nn.Module):
    """BERT's layer: attention and a feed-forward, each with a residual, then a norm."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)

    def forward(
        self, x: Float[Tensor, "B W d"], seen: Bool[Tensor, "..."], rng: Generator | None
    ) -> Float[Tensor, "B W d"]:
        """`seen` (`[B, 1, 1, W]` or `[B, 1, W, W]`) are what is attended to; `rng` drives dropout,
        None: none."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )  # [B, heads, W, d / heads]
        mixed = self.o(attention(q, k, v, seen, self.rate, rng))
        x = self.norm1(x + dropout(mixed, self.rate, rng))
        hidden = self.outer(F.gelu(self.inner(x)))
        return self.norm2(x + dropout(hidden, self.rate, rng))
