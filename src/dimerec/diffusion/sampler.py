"""The reverse process: from pure noise to x_0, in any number of steps up to T."""

from collections.abc import Callable

from torch import Tensor

from dimerec.diffusion.spaces import NoiseSpace

Denoiser = Callable[[Tensor, int], Tensor]
Trace = list[tuple[int, Tensor, Tensor]]


def noise_rows(steps: int, stochastic: bool) -> int:
    """How many rows of noise one sample takes: its start, and one a step that stays noisy."""
    return steps if stochastic else 1


def sample(
    denoise: Denoiser, space: NoiseSpace, noise: Tensor, steps: int, trace: Trace | None = None
) -> Tensor:
    """Run the chain and return x_0, `[B, d]`-like, in the space.

    The guidance does not depend on t, so the caller extracts it once and closes over it. With
    one row of noise the chain is deterministic after its start; with `steps` rows every step but
    the last is stochastic, with standard deviation sqrt(beta~_t). The last step always lands on
    the prediction itself, since alpha_bar_0 = 1.

    Args:
        denoise: (x_t `[..., d]`, t) -> x_0-hat `[..., d]`.
        noise: standard normal `[rows, ..., d]`, rows = `noise_rows(steps, stochastic)`.
        steps: reverse steps, 1..T.
        trace: filled, when given, with (t, x_t, x_0-hat) of every step.

    Implements: Eqs. 5-7; Alg. 2
    """
    times = space.schedule.times(steps)
    x = space.project(noise[0])
    for i, t in enumerate(times):
        x0 = space.project(denoise(x, t))
        if trace is not None:
            trace.append((t, x, x0))
        if i + 1 == len(times):
            return x0
        fresh = noise[i + 1] if len(noise) > 1 else None
        x = space.step(x, x0, t, times[i + 1], fresh)
    raise AssertionError("times() is never empty")
