"""The conditional denoiser f_theta(x_t, t, g): the network of DAM."""

from typing import Literal, NamedTuple

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


class Constants(NamedTuple):
    """What stays the same down a chain: the shares of every step, and of the guidance.

    Attributes:
        on_t: `[T+1, h]`, what each step gives the hidden layer.
        query_t: `[T+1, d]`, what each step gives the query; None for "mlp".
        guidance: `[N, K, d]`.
        on_g: `[N, 1, h]`, what the guidance gives the hidden layer; None for "attention".
        keys: `[N, d, K]`, the interests' keys; None for "mlp".
    """

    on_t: Tensor
    query_t: Tensor | None
    guidance: Tensor
    on_g: Tensor | None
    keys: Tensor | None


class Denoiser(nn.Module):
    """x_0-hat from x_t `[N, S, d]` (S samples a history), t `[N, S]` and guidance `[N, K, d]`.

    What depends on t alone is computed once for each of the T + 1 steps, and looked up; a chain
    computes it, and what depends on the guidance alone, once for all its steps.

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
        return self.at(x, t, self.constants(guidance))

    def constants(self, guidance: Float[Tensor, "N K d"]) -> Constants:
        """What `at` needs of the steps and of `guidance`."""
        step = self.step()  # [T+1, d]
        on_t = self.on_t(step)
        if not self.pools:
            on_g = self.on_g(guidance.flatten(1)).unsqueeze(1)
            return Constants(on_t, None, guidance, on_g, None)
        keys = self.key(guidance).transpose(1, 2)
        return Constants(on_t, self.query_t(step), guidance, None, keys)

    def at(
        self, x: Float[Tensor, "N S d"], t: int | Int[Tensor, "N S"], fixed: Constants
    ) -> Float[Tensor, "N S d"]:
        """x_0-hat of x_t, given what does not change down the chain."""
        hidden = self.on_x(x) + _row(fixed.on_t, t)
        if fixed.on_g is not None:
            return self.out(F.gelu(hidden + fixed.on_g))
        assert fixed.query_t is not None and fixed.keys is not None
        query = self.query_x(x) + _row(fixed.query_t, t)  # [N, S, d]
        scores = query @ fixed.keys / x.shape[-1] ** 0.5  # [N, S, K]
        pooled = scores.softmax(-1) @ fixed.guidance  # [N, S, d]
        return pooled + self.out(F.gelu(hidden + self.on_g(pooled)))


def _row(table: Float[Tensor, "T1 h"], t: int | Int[Tensor, "N S"]) -> Tensor:
    return table[t] if isinstance(t, int) else F.embedding(t, table)
