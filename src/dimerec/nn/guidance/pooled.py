"""MLP guidance: a small network of the history's mean."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor


class PooledMLP(GuidanceExtractor):
    """MLP([4d, K d], Tanh) of the mean of the items so far, cut into K interests.

    DimeRec's Table 3 only says "a simple MLP"; this reading is YouTube's network (Covington et
    al. 2016, ComiRec's baseline "DNN") with the hidden layer of Eq. 16. It knows no order.
    """

    causal = True

    def __init__(self, config: GuidanceConfig, width: int) -> None:
        super().__init__()
        self.interests = config.interests
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, config.interests * width)

    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        real = (history > 0).unsqueeze(-1)  # [B, L, 1]
        return self._mlp((hidden * real).sum(1) / real.sum(1).clamp_min(1))

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        real = (history > 0).unsqueeze(-1)
        return self._mlp((hidden * real).cumsum(1) / real.cumsum(1).clamp_min(1))

    def _mlp(self, mean: Float[Tensor, "*n d"]) -> Float[Tensor, "*n K d"]:
        return self.out(torch.tanh(self.hidden(mean))).unflatten(-1, (self.interests, -1))
