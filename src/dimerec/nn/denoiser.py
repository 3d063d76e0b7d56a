"""The conditional denoiser f_theta(x_t, t, g): the network of DAM."""

from typing import Literal

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

    What depends on t alone is computed once for each of the T + 1 steps, and looked up.

    Implements: Eq. 20
    """

    def __init__(self, config: DenoiserConfig, width: int, interests: int, steps: int) -> None:
        super().__init__()
        self.pools = config.kind == "attention"
        self.step = StepEmbedding(steps, width)
        self.on_x = nn.Linear(width, config.hidden, bias=False)
        self.on_t = nn.Linear(width, config.hidden)
        self.on_g = nn.Linear(width if self.pools else interests * width, config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, width)
        if self.pools:
            self.query_x = nn.Linear(width, width, bias=False)
            self.query_t = nn.Linear(width, width)
            self.key = nn.Linear(width, width, bias=False)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Float[Tensor, "N S d"], t: Int[Tensor, "N S"], guidance: Float[Tensor, "N K d"]
    ) -> Float[Tensor, "N S d"]:
        step = self.step()  # [T+1, d]
        hidden = self.on_x(x) + F.embedding(t, self.on_t(step))
        if not self.pools:
            return self.out(F.gelu(hidden + self.on_g(guidance.flatten(1)).unsqueeze(1)))
        query = self.query_x(x) + F.embedding(t, self.query_t(step))  # [N, S, d]
        scores = query @ self.key(guidance).transpose(1, 2) / x.shape[-1] ** 0.5  # [N, S, K]
        pooled = scores.softmax(-1) @ guidance  # [N, S, d]
        return pooled + self.out(F.gelu(hidden + self.on_g(pooled)))
