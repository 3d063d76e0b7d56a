"""Dynamic routing: behaviours vote for interests, and interests that agree gain weight.

Sabour et al. 2017, turned to users by MIND (behaviour to interest, B2I) and ComiRec-DR.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor


def squash(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """x with its direction kept and its length s made s^2 / (1 + s^2)."""
    square = x.square().sum(-1, keepdim=True)
    return x * (square / (1 + square) / (square + 1e-9).sqrt())


def opened(count: Int[Tensor, "*n"], interests: int) -> Bool[Tensor, "*n K"]:
    """Which of the K interests a history of `count` items has: the first
    max(1, min(K, log2 count)), rounded down."""
    needed = 2.0 ** torch.arange(1, interests + 1, device=count.device)
    needed[0] = 0
    return count.unsqueeze(-1) >= needed


def route(
    votes: Float[Tensor, "B G L d"],
    logits: Float[Tensor, "B K L"],
    seen: Bool[Tensor, "B T L"],
    active: Bool[Tensor, "B K T"],
    iterations: int,
) -> Float[Tensor, "B K T d"]:
    """The interests of T prefixes of each history; zero where not active.

    As in ComiRec's code, the rounds before the last only find the weights: no gradient.

    Args:
        votes: what each item says an interest is; G is K, or 1 where all interests hear the same.
        logits: before the first round.
        seen: the items of each prefix.
        active: the interests of each prefix; the first one always.
        iterations: at least 1.
    """
    heard = votes.detach()
    closed = torch.where(active, 0.0, -torch.inf).unsqueeze(-1)  # [B, K, T, 1]
    current = logits.unsqueeze(2)  # [B, K, 1, L], then [B, K, T, L]
    for _ in range(iterations - 1):
        weights = (current + closed).softmax(1) * seen.unsqueeze(1)
        current = current + squash(weights @ heard) @ heard.transpose(2, 3)
    weights = (current + closed).softmax(1) * seen.unsqueeze(1)
    return squash(weights @ votes)


class DynamicRouting(GuidanceExtractor):
    """K capsules. Items are told apart by their place, the oldest of the history first.

    Attributes:
        logits: fixed; drawn once, so that a history always has the same interests.
    """

    causal = True
    logits: Tensor

    def __init__(self, config: GuidanceConfig, width: int, length: int) -> None:
        super().__init__()
        self.config = config
        interests, scale = config.interests, width**-0.5
        if config.routing == "shared":
            self.maps = nn.Parameter(scale * torch.randn(width, width))
            self.register_buffer("logits", torch.randn(interests, length))
        else:
            self.maps = nn.Parameter(scale * torch.randn(length, width, interests * width))
            self.register_buffer("logits", torch.zeros(interests, length))

    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        return self._interests(hidden, history, (history > 0).unsqueeze(1))[:, 0]

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        length = history.shape[1]
        past = torch.ones(length, length, dtype=torch.bool, device=history.device).tril()
        return self._interests(hidden, history, past & (history > 0).unsqueeze(1))

    def _interests(
        self,
        hidden: Float[Tensor, "B L d"],
        history: Int[Tensor, "B L"],
        seen: Bool[Tensor, "B T L"],
    ) -> Float[Tensor, "B T K d"]:
        config = self.config
        count = seen.sum(-1)  # [B, T]
        active = opened(count, config.interests)
        if not config.adaptive:
            active = torch.ones_like(active)
        place = ((history > 0).cumsum(1) - 1).clamp_min(0)  # [B, L]
        logits = self.logits[:, place].transpose(0, 1)  # [B, K, L]
        votes = self._votes(hidden, history)
        made = route(votes, logits, seen, active.transpose(1, 2), config.iterations)
        made = made.transpose(1, 2)  # [B, T, K, d]
        return torch.where(active.unsqueeze(-1), made, made[:, :, :1])

    def _votes(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B G L d"]:
        if self.config.routing == "shared":
            return (hidden @ self.maps).unsqueeze(1)
        length = history.shape[1]
        # each place has its map: bring the items to their places, and back behind the padding
        at = torch.arange(length, device=history.device)
        count = (history > 0).sum(1, keepdim=True)  # [B, 1]
        to_place, back = (at - count) % length, (at + count) % length  # [B, L]
        placed = hidden.gather(1, to_place.unsqueeze(-1).expand_as(hidden))
        made = (placed.transpose(0, 1) @ self.maps[:length]).transpose(0, 1)  # [B, L, K * d]
        made = made.gather(1, back.unsqueeze(-1).expand_as(made))
        return made.unflatten(-1, (self.config.interests, -1)).transpose(1, 2)
