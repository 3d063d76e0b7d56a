"""Where diffusion lives: Euclidean space or the unit sphere. Swapping it is the GRW ablation."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec.diffusion.schedule import NoiseSchedule

SpaceName = Literal["euclidean", "sphere-exponential", "sphere"]


class NoiseSpace(ABC):
    """How a vector is put into the space, noised, and moved one step back.

    All vectors are float `[..., d]`; `noise` is standard normal of the same shape.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the space."""

    @abstractmethod
    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t drawn from q(x_t | x_0); `x0` in the space, `t` int64 `[...]` in 0..T."""

    @abstractmethod
    def step(self, xt: Tensor, x0: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
        """x_s from x_t and the predicted x_0, s < t; without noise the step is deterministic."""


class Euclidean(NoiseSpace):
    """Plain DDPM: the space without the geodesic walk.

    Implements: Eq. 4
    """

    def project(self, x: Tensor) -> Tensor:
        return x

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        abar = self.schedule.alpha_bar[t].unsqueeze(-1)
        return abar.sqrt() * x0 + (1 - abar).sqrt() * noise

    def step(self, xt: Tensor, x0: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
        if noise is None:  # DDIM (Song et al. 2021): keep the noise that x_t implies
            signal, spread = self.schedule.signal, self.schedule.spread
            implied = (xt - signal[t] * x0) / spread[t]
            return signal[s] * x0 + spread[s] * implied
        on_xt, on_x0, variance = self.schedule.posterior(t, s)
        return on_xt * xt + on_x0 * x0 + variance**0.5 * noise


class ExponentialSphere(Euclidean):
    """The paper's geodesic step as written: a tangent Gaussian through the exponential map.

    In d dimensions the step is about sqrt((1 - alpha_bar_t) d) radians long, so for d = 64 it
    wraps round the sphere. The reverse step is the Euclidean one, put back on the sphere.

    Implements: Alg. 1 lines 5-7
    """

    def project(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        spread = (1 - self.schedule.alpha_bar[t]).sqrt().unsqueeze(-1)
        return exponential_map(x0, spread * tangent(x0, noise))

    def step(self, xt: Tensor, x0: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
        return self.project(super().step(xt, x0, t, s, noise))


class Sphere(NoiseSpace):
    """Variance-preserving diffusion on the sphere: DDPM's signal share becomes an angle.

    x_t = cos(theta_t) x_0 + sin(theta_t) u with u a uniform unit tangent vector at x_0 and
    cos(theta_t) = sqrt(alpha_bar_t).
    """

    def project(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        unit = F.normalize(tangent(x0, noise), dim=-1)
        abar = self.schedule.alpha_bar[t].unsqueeze(-1)
        return abar.sqrt() * x0 + (1 - abar).sqrt() * unit

    def step(self, xt: Tensor, x0: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
        direction = xt if noise is None else noise
        unit = F.normalize(tangent(x0, direction), dim=-1)
        return self.schedule.signal[s] * x0 + self.schedule.spread[s] * unit


def tangent(x: Tensor, v: Tensor) -> Tensor:
    """The part of `v` orthogonal to the unit vector `x`, `[..., d]`."""
    return v - (v * x).sum(-1, keepdim=True) * x


def exponential_map(x: Tensor, v: Tensor) -> Tensor:
    """exp_x(v) = cos(|v|) x + sin(|v|) v / |v| on the unit sphere; `v` tangent at `x`."""
    length = v.norm(dim=-1, keepdim=True)
    return torch.cos(length) * x + torch.sinc(length / torch.pi) * v


def space(name: SpaceName, schedule: NoiseSchedule) -> NoiseSpace:
    """The space called `name`, over a schedule."""
    kinds = {"euclidean": Euclidean, "sphere-exponential": ExponentialSphere, "sphere": Sphere}
    return kinds[name](schedule)
