"""Embeddings of diffusion steps for models that put them through two layers."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StepMLP(nn.Module):
    """Sinusoids of the steps 0..T, a linear layer, an activation, and another linear layer.

    Args:
        steps: T.
        width: d, of the sinusoids and of the result.
        hidden: width between the layers.
        activation: stands between them; it has no weights.
        stretch: the sinusoids are those of `stretch * t`.
    """

    angles: Tensor

    def __init__(
        self, steps: int, width: int, hidden: int, activation: nn.Module, stretch: float = 1.0
    ) -> None:
        super().__init__()
        half = width // 2
        frequency = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        angle = stretch * torch.arange(steps + 1).unsqueeze(1) * frequency
        self.register_buffer("angles", torch.cat([angle.cos(), angle.sin()], 1), persistent=False)
        self.inner, self.outer = nn.Linear(2 * half, hidden), nn.Linear(hidden, width)
        self.activation = activation

    def forward(self) -> Float[Tensor, "T1 d"]:
        """Embeddings of all steps, `[T+1, d]`: there are few, so they are made once a pass."""
        return self.outer(self.activation(self.inner(self.angles)))
