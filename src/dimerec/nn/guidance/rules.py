"""Rule-based guidance: K of the history's own items."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor


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


def _top(value: Float[Tensor, "B L"], history: Int[Tensor, "B L"], count: int) -> Tensor:
    """Positions of the `count` largest values among real items, `[B, count]`, -1 where absent."""
    value = value.masked_fill(history == 0, -torch.inf)
    best, position = value.topk(min(count, value.shape[1]), dim=1)
    position = position.masked_fill(best == -torch.inf, -1)
    return F.pad(position, (0, count - position.shape[1]), value=-1)
