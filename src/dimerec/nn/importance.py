"""Drawing diffusion steps by their recent losses (Nichol and Dhariwal 2021; DiffRec)."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

REMEMBERED = 10  # losses of each step
UNIFORM = 0.001  # share of draws without regard to them


class StepSampler(nn.Module):
    """Draws steps 1..T in proportion to the root mean square of their last ten losses.

    Its state stands among the weights, so that a resumed run draws the same steps.

    Attributes:
        recent: `[T, 10]`, the last losses of every step; older ones are written over.
        drawn: int64 `[T]`, how many losses every step has had.
    """

    recent: Tensor
    drawn: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("recent", torch.zeros(steps, REMEMBERED))
        self.register_buffer("drawn", torch.zeros(steps, dtype=torch.int64))

    def draw(self, count: int, rng: Generator) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """`count` steps, and T times the probability of each: a loss divided by that has the mean
        of uniform draws. Uniform until every step has ten losses."""
        device = self.recent.device
        if bool((self.drawn < REMEMBERED).any()):
            t = torch.randint(1, self.steps + 1, (count,), generator=rng, device=device)
            return t, torch.ones(count, device=device)
        size = self.recent.square().mean(1).sqrt()
        p = (1 - UNIFORM) * size / size.sum().clamp_min(1e-30) + UNIFORM / self.steps
        t = torch.multinomial(p, count, replacement=True, generator=rng)
        return t + 1, p[t] * self.steps

    def remember(self, t: Int[Tensor, " n"], losses: Float[Tensor, " n"]) -> None:
        """Take note of the losses of steps `t`, the oldest first."""
        t, order = (t - 1).sort(stable=True)
        start, end = torch.searchsorted(t, t), torch.searchsorted(t, t, right=True)
        at = torch.arange(len(t), device=t.device)
        fresh = end - at <= REMEMBERED  # of more than ten at once, the last
        slot = (self.drawn[t] + at - start) % REMEMBERED
        self.recent[t[fresh], slot[fresh]] = losses[order][fresh].to(self.recent.dtype)
        self.drawn += torch.bincount(t, minlength=self.steps)
