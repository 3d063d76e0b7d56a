"""Item and step embeddings. `ItemEmbedding` is the sole owner of the V x d matrix."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class ItemEmbedding(nn.Module):
    """One vector an item; row 0 is padding and always zero.

    Args:
        size: V, padding included.
        width: d.
        unit: vectors are put on the unit sphere whenever they leave this module.
    """

    def __init__(self, size: int, width: int, unit: bool = False) -> None:
        super().__init__()
        self.size, self.width, self.unit = size, width, unit
        self.weight = nn.Parameter(torch.randn(size, width) / math.sqrt(width))
        with torch.no_grad():
            self.weight[0].zero_()

    @torch.no_grad()
    def draw_xavier(self) -> None:
        """Vectors from Xavier's uniform distribution of the whole table: each coordinate within
        sqrt(6 / (V + d)), which is sqrt((V + d) / 2d) times shorter than what they start from."""
        nn.init.xavier_uniform_(self.weight)[0] = 0

    def forward(self, numbers: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Vectors of `numbers`; zero for padding."""
        if not self.unit:
            return F.embedding(numbers, self.weight, padding_idx=0)
        # Cheaper to put the table on the sphere once; but an exported graph is one path for all B.
        if not torch.compiler.is_exporting() and numbers.numel() > self.size:
            return F.embedding(numbers, self.table(), padding_idx=0)
        return F.normalize(F.embedding(numbers, self.weight, padding_idx=0), dim=-1)

    def table(self) -> Float[Tensor, "V d"]:
        """All vectors."""
        return F.normalize(self.weight, dim=-1) if self.unit else self.weight


class StepEmbedding(nn.Module):
    """Sinusoidal embeddings of the diffusion steps 0..T through a linear layer."""

    angles: Tensor

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        half = width // 2
        frequency = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        angle = torch.arange(steps + 1).unsqueeze(1) * frequency
        self.register_buffer("angles", torch.cat([angle.sin(), angle.cos()], 1), persistent=False)
        self.project = nn.Linear(2 * half, width)

    def forward(self) -> Float[Tensor, "T1 d"]:
        """Embeddings of all steps, `[T+1, d]`: there are few, so they are made once a pass."""
        return self.project(self.angles)
