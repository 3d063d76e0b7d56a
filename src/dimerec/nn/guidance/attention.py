"""Self-attentive guidance: K learned weightings of the history (ComiRec-SA's extractor)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor


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
        self.position = nn.Parameter(
            torch.zeros(shape) if self.causal else 0.02 * torch.randn(shape)
        )

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


def _softmax(scores: Tensor, seen: Bool[Tensor, "..."]) -> Tensor:
    """Softmax over the last axis where `seen`; zeros where nothing is (an all-padding row)."""
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return F.softmax(scores, dim=-1) * seen
