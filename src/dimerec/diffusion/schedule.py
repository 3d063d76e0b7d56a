"""Noise schedules: how much of the signal is left after t steps, and the way back."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor, nn

from dimerec.config import Positive, Struct

LARGEST_BETA = 0.999


class ScheduleConfig(Struct, frozen=True):
    """Which schedule, and its length.

    Attributes:
        kind: "linear" (beta from `first` to `last`), "scaled-linear" (the same times 1000 / T, so
            that the end is noise whatever T), "cosine" (Nichol and Dhariwal 2021), "sqrt" (Li et
            al. 2022, Diffusion-LM), "truncated-linear" (Li et al. 2023, DiffuRec), "exponential"
            (Yang et al. 2023, DreamRec: Song et al.'s 2021 variance-preserving SDE with rates from
            0.1 to 10, in T slices).
        steps: T.
        first, last: beta_1 and beta_T of the linear kinds, before scaling.
    """

    kind: Literal[
        "linear", "scaled-linear", "cosine", "sqrt", "truncated-linear", "exponential"
    ] = "scaled-linear"
    steps: Positive = 20
    first: Annotated[float, Meta(gt=0.0, lt=1.0)] = 1e-4
    last: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.02

    def check_steps(self, name: str, value: int, least: int) -> None:
        """ValueError where the option `name`, `least` at least, asks for more than T steps."""
        if value > self.steps:
            raise ValueError(
                f"{name} = {value} must be in {least}..T = {self.steps} (schedule.steps)"
            )


class NoiseSchedule(nn.Module):
    """`beta` and `alpha_bar`, float32 `[T+1]`; the index is the paper's t, and 0 is noiseless.

    `signal` and `spread` are the square roots of alpha_bar_t and 1 - alpha_bar_t as plain numbers,
    rounded to float32 as the tensors are: a chain's constants, known before it runs.

    Implements: Eqs. 1-3 (DDPM, Ho et al. 2020)
    """

    beta: Tensor
    alpha_bar: Tensor

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        beta = torch.cat([torch.zeros(1, dtype=torch.float64), _betas(config)])
        self.steps = config.steps
        self.register_buffer("beta", beta.float(), persistent=False)
        alpha_bar = torch.cumprod(1 - beta, 0).float()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        self._alpha_bar: list[float] = alpha_bar.tolist()
        self.signal: list[float] = alpha_bar.sqrt().tolist()
        self.spread: list[float] = (1 - alpha_bar).sqrt().tolist()

    def posterior(self, t: int, s: int) -> tuple[float, float, float]:
        """Coefficients of `q(x_s | x_t, x_0)` for 0 <= s < t <= T.

        Returns (weight of x_t, weight of x_0, variance); with s = t - 1 these are the paper's
        mu~_t and beta~_t, and a longer jump follows from the same Gaussian algebra.

        Implements: Eqs. 8-9
        """
        abar_t, abar_s = self._alpha_bar[t], self._alpha_bar[s]
        kept = abar_t / abar_s  # prod of (1 - beta) over (s, t]
        rest = 1 - abar_t
        on_xt = math.sqrt(kept) * (1 - abar_s) / rest
        on_x0 = math.sqrt(abar_s) * (1 - kept) / rest
        return on_xt, on_x0, (1 - abar_s) / rest * (1 - kept)

    def times(self, steps: int) -> list[int]:
        """`steps` descending times from T, evenly spaced down towards 0 (0 itself left out)."""
        if not 1 <= steps <= self.steps:
            raise ValueError(f"steps must be in 1..{self.steps} (T), got {steps}")
        return [round(self.steps * (steps - i) / steps) for i in range(steps)]


def _betas(config: ScheduleConfig) -> Float[Tensor, "T"]:
    """beta_1 .. beta_T, float64."""
    steps = config.steps
    scale = 1000 / steps
    if config.kind == "linear":
        beta = _line(config.first, config.last, steps)
    elif config.kind == "scaled-linear":
        beta = _line(config.first * scale, config.last * scale, steps)
    elif config.kind == "truncated-linear":
        first, last = scale * config.first + 0.01, scale * config.last + 0.01
        if last > 1:
            last = scale * config.last / 20 + 0.01
        beta = _line(first, last, steps)
    elif config.kind == "exponential":
        rate = 0.1 / steps + (10 - 0.1) / 2 * _line(1.0, 2.0 * steps + 1, steps) / steps**2
        beta = 1 - torch.exp(-rate)
    else:
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        if config.kind == "cosine":
            alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        else:
            alpha_bar = 1 - torch.sqrt(t + 1e-4)
        beta = 1 - alpha_bar[1:].clamp_min(0) / alpha_bar[:-1]
    return beta.clamp(max=LARGEST_BETA)


def _line(first: float, last: float, steps: int) -> Float[Tensor, "T"]:
    return torch.linspace(first, last, steps, dtype=torch.float64)
