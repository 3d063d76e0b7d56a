"""The conditional denoiser f_theta(x_t, t, g): the network of DAM."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dimerec.config import Positive, Struct
from dimerec.nn.embeddings import StepEmbedding


class DenoiserConfig(Struct, frozen=True):
    """Which network, and its size.

    Attributes:
        kind: "mlp" on [x_t, t, all interests], as the paper writes it; "attention" pools the
            interests by a query made of x_t and t, and adds a residual MLP that starts at zero.
        hidden: width of the hidden layer.
    """

    kind: Literal["mlp", "attention"] = "attention"
    hidden: Positive = 256


class Denoiser(nn.Module):
    """x_0-hat from x_t `[N, S, d]` (S samples a history), t `[N, S]` and guidance `[N, K, d]`.

    The last layer's part that sees only the guidance does not depend on t.

    Implements: Eq. 20
    """

    def __init__(self, config: DenoiserConfig, width: int, interests: int) -> None:
        super().__init__()
        self.pools = config.kind == "attention"
        self.step = StepEmbedding(width)
        self.on_x = nn.Linear(width, config.hidden, bias=False)
        self.on_t = nn.Linear(width, config.hidden)
        self.on_g = nn.Linear(width if self.pools else interests * width, config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, width)
        if self.pools:
            self.query = nn.Linear(2 * width, width)
            self.key = nn.Linear(width, width, bias=False)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Float[Tensor, "N S d"], t: Int[Tensor, "N S"], guidance: Float[Tensor, "N K d"]
    ) -> Float[Tensor, "N S d"]:
        step = self.step(t)
        if not self.pools:
            g = self.on_g(guidance.flatten(1)).unsqueeze(1)
            return self.out(F.gelu(self.on_x(x) + self.on_t(step) + g))
        query = self.query(torch.cat([x, step], dim=-1))  # [N, S, d]
        scores = query @ self.key(guidance).transpose(1, 2) / x.shape[-1] ** 0.5  # [N, S, K]
        pooled = scores.softmax(-1) @ guidance  # [N, S, d]
        hidden = self.on_x(x) + self.on_t(step) + self.on_g(pooled)
        return pooled + self.out(F.gelu(hidden))
