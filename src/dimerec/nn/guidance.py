"""GEM: a history becomes K interests, the guidance of the diffusion (Eq. 13)."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class GuidanceConfig(Struct, frozen=True):
    """Which extractor, and its size.

    Attributes:
        kind: "self-attentive" (Eqs. 16-17), "rule" (Eq. 15).
        interests: K.
        positions: where the self-attentive scores get their sense of order. "end" adds position
            vectors counted from the end of the history inside the MLP, as Eq. 16 is written; one
            target a history can be learned. "distance" adds a learned bias for each distance to
            the current position outside it, so that one pass serves every position.
        rule: "last" keeps the latest K, "popular" the K most popular by training counts,
            "explore" reserves `explore` of the K places for the least exposed ones.
        explore: share of the K places that "explore" reserves.
    """

    kind: Literal["self-attentive", "rule"] = "self-attentive"
    interests: Positive = 4
    positions: Literal["distance", "end"] = "distance"
    rule: Literal["last", "popular", "explore"] = "last"
    explore: Share = 0.25


class GuidanceExtractor(nn.Module, ABC):
    """K interests of a history's last position, or of all its positions at once.

    Attributes:
        causal: whether `every` exists, so that one pass trains all positions.
    """

    causal: bool = False

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        """Interests g^u after the last position; `hidden` is H^u, the encoded history."""

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        """Interests after every position, each from the positions up to it."""
        raise TypeError(f"{type(self).__name__} extracts guidance for the last position only")

    def train_on(
        self, hidden: Float[Tensor, "B L d"], batch: SequenceBatch
    ) -> tuple[Float[Tensor, "N K d"], Bool[Tensor, "B L"]]:
        """Interests before each of the batch's N targets, and where those stand: every position
        in one pass when `causal`, else the last column alone."""
        at = batch.targets > 0
        if self.causal:
            return self.every(hidden, batch.history)[at], at
        at[:, :-1] = False
        return self(hidden, batch.history)[at[:, -1]], at


class SelfAttentive(GuidanceExtractor):
    """A = softmax(MLP(H + P)), g = A^T H: K learned weightings of the history.

    Implements: Eqs. 16-17
    """

    def __init__(self, config: GuidanceConfig, width: int, length: int) -> None:
        super().__init__()
        self.causal = config.positions == "distance"
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, config.interests, bias=False)
        # row j belongs to the position j steps before the current one
        shape = (length, config.interests if self.causal else width)
        self.position = nn.Parameter(torch.zeros(shape) if self.causal else 0.02 * torch.randn(shape))

    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        distance = torch.arange(hidden.shape[1] - 1, -1, -1, device=hidden.device)
        position = self.position[distance]  # [L, K] or [L, d]
        if self.causal:
            scores = self._mlp(hidden) + position
        else:
            scores = self._mlp(hidden + position)
        attention = _softmax(scores.transpose(1, 2), (history > 0).unsqueeze(1))  # [B, K, L]
        return attention @ hidden

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        if not self.causal:
            return super().every(hidden, history)
        length = hidden.shape[1]
        at = torch.arange(length, device=hidden.device)
        distance = at.unsqueeze(1) - at  # [L, L]: from position i back to j
        bias = self.position[distance.clamp_min(0)].permute(2, 0, 1)  # [K, L, L]
        scores = self._mlp(hidden).transpose(1, 2).unsqueeze(2) + bias  # [B, K, L, L]
        seen = (history > 0).unsqueeze(1) & (distance >= 0)  # [B, L, L]
        attention = _softmax(scores, seen.unsqueeze(1))
        mixed = attention.flatten(1, 2) @ hidden  # [B, K * L, d]
        return mixed.unflatten(1, (-1, length)).transpose(1, 2)

    def _mlp(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n K"]:
        return self.out(torch.tanh(self.hidden(x)))


class RuleBased(GuidanceExtractor):
    """No learnable parameter: K of the history's own items, in their order of preference.

    Implements: Eq. 15
    """

    counts: Tensor

    def __init__(self, config: GuidanceConfig, counts: Float[Tensor, "V"]) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", counts)

    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        chosen = self.choose(history)  # [B, K]
        index = chosen.clamp_min(0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        return hidden.gather(1, index) * (chosen >= 0).unsqueeze(-1)

    def choose(self, history: Int[Tensor, "B L"]) -> Int[Tensor, "B K"]:
        """Positions kept, best first; -1 where the history is too short. Latest wins ties."""
        length, count = history.shape[1], self.config.interests
        recency = torch.arange(length, device=history.device) / length  # in [0, 1)
        exposure = self.counts[history]  # whole numbers, so recency only breaks ties
        if self.config.rule == "last":
            best = _top(recency.expand(history.shape), history, count)
        elif self.config.rule == "popular":
            best = _top(exposure + recency, history, count)
        else:
            reserved = round(self.config.explore * count)
            best = _top(exposure + recency, history, count - reserved)
            taken = torch.zeros_like(history, dtype=torch.bool)
            rows, slots = (best >= 0).nonzero(as_tuple=True)
            taken[rows, best[rows, slots]] = True
            left = history.masked_fill(taken, 0)
            best = torch.cat([best, _top(recency - exposure, left, reserved)], dim=1)
        return best


def extractor(
    config: GuidanceConfig, width: int, length: int, counts: Float[Tensor, "V"]
) -> GuidanceExtractor:
    """The extractor that `config` names."""
    if config.kind == "rule":
        return RuleBased(config, counts)
    return SelfAttentive(config, width, length)


def _softmax(scores: Tensor, seen: Bool[Tensor, "..."]) -> Tensor:
    """Softmax over the last axis where `seen`; zeros where nothing is (an all-padding row)."""
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return F.softmax(scores, dim=-1) * seen


def _top(value: Float[Tensor, "B L"], history: Int[Tensor, "B L"], count: int) -> Tensor:
    """Positions of the `count` largest values among real items, `[B, count]`, -1 where absent."""
    value = value.masked_fill(history == 0, -torch.inf)
    best, position = value.topk(min(count, value.shape[1]), dim=1)
    position = position.masked_fill(best == -torch.inf, -1)
    return F.pad(position, (0, count - position.shape[1]), value=-1)
