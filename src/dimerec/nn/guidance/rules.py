"""Rule-based guidance: K of the history's own items."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor


class RuleBased(GuidanceExtractor):
    """No learnable parameter: K of the history's own items, in their order of preference.

    `every` looks at all items of a window from each of its positions: B · L · L numbers, 41 MB for
    128 windows of 200 items.

    Implements: Eq. 15
    """

    causal = True
    counts: Tensor

    def __init__(self, config: GuidanceConfig, counts: Float[Tensor, "V"]) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", counts)

    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        return _picked(hidden, self.choose(history).unsqueeze(1))[:, 0]

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        length = history.shape[1]
        past = torch.ones(length, length, dtype=torch.bool, device=history.device).tril()
        return _picked(hidden, self._chosen(history, past & (history > 0).unsqueeze(1)))

    def choose(self, history: Int[Tensor, "B L"]) -> Int[Tensor, "B K"]:
        """Positions kept, best first; -1 where the history is too short. Latest wins ties."""
        return self._chosen(history, (history > 0).unsqueeze(1))[:, 0]

    def _chosen(
        self, history: Int[Tensor, "B L"], seen: Bool[Tensor, "B T L"]
    ) -> Int[Tensor, "B T K"]:
        """`choose` for T prefixes, each of the positions `seen`."""
        count = self.config.interests
        if self.config.rule == "last":
            recency = torch.arange(history.shape[1], device=history.device)
            return _top(recency.expand(history.shape), seen, count)
        exposure = self.counts[history]
        reserved = round(self.config.explore * count) if self.config.rule == "explore" else 0
        best = _top(_order(exposure), seen, count - reserved)
        if reserved:
            left = seen & ~_marked(best, seen.shape[-1])
            best = torch.cat([best, _top(_order(-exposure), left, reserved)], dim=-1)
        return best


def _order(value: Float[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The place of each value in ascending order, from 0; of equals, the later stands higher.

    Counted and not sorted, since a stable sort has no counterpart in ONNX.
    """
    at = torch.arange(value.shape[1], device=value.device)
    one, other = value.unsqueeze(2), value.unsqueeze(1)  # place i, and each j beside it
    return ((other < one) | ((other == one) & (at < at.unsqueeze(1)))).sum(2)


def _top(
    value: Int[Tensor, "B L"], seen: Bool[Tensor, "B T L"], count: int
) -> Int[Tensor, "B T N"]:
    """Positions of the N = `count` largest values among those `seen`, -1 where there are fewer."""
    best, position = torch.where(seen, value.unsqueeze(1), -1).topk(min(count, seen.shape[-1]))
    position = position.masked_fill(best < 0, -1)
    return F.pad(position, (0, count - position.shape[-1]), value=-1)


def _marked(position: Int[Tensor, "B T N"], length: int) -> Bool[Tensor, "B T L"]:
    """True at each of the positions; -1 marks a column that is cut off."""
    marks = position.new_zeros((*position.shape[:2], length + 1), dtype=torch.bool)
    return marks.scatter(2, position % (length + 1), True)[..., :length]


def _picked(
    hidden: Float[Tensor, "B L d"], chosen: Int[Tensor, "B T K"]
) -> Float[Tensor, "B T K d"]:
    """The vectors at the positions chosen; zero for -1."""
    rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None, None]
    return hidden[rows, chosen.clamp_min(0)] * (chosen >= 0).unsqueeze(-1)
