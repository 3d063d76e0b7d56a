"""The reverse process: rows of noise, trace, and convergence on a problem with a known answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dimerec.diffusion.sampler import noise_rows, sample
from dimerec.diffusion.schedule import NoiseSchedule, ScheduleConfig
from dimerec.diffusion.spaces import space

SCHEDULE = NoiseSchedule(ScheduleConfig(kind="cosine", steps=50))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rows() -> None:
    assert noise_rows(7, stochastic=True) == 7
    assert noise_rows(7, stochastic=False) == 1


@pytest.mark.parametrize("name", ["euclidean", "sphere-exponential", "sphere"])
@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("stochastic", [True, False])
def test_a_perfect_denoiser_is_believed(name: str, steps: int, stochastic: bool) -> None:
    where = space(name, SCHEDULE)
    truth = where.project(noise(0, 4, 6))
    rows = noise(1, noise_rows(steps, stochastic), 4, 6)
    trace: list[tuple[int, Tensor, Tensor]] = []
    got = sample(lambda x, t: truth, where, rows, steps, trace)
    torch.testing.assert_close(got, truth)
    assert [t for t, _, _ in trace] == SCHEDULE.times(steps)
    assert torch.equal(trace[0][1], where.project(rows[0]))


def test_the_chain_reproduces_a_gaussian() -> None:
    """For x_0 ~ N(m, v) the best denoiser is linear in x_t; the chain must return that law."""
    mean, variance, steps = 1.5, 0.25, 400  # the error of a step's size vanishes with many steps
    schedule = NoiseSchedule(ScheduleConfig(kind="cosine", steps=steps))

    def denoise(x: Tensor, t: int) -> Tensor:
        abar = schedule.alpha_bar[t]
        gain = variance * abar.sqrt() / (variance * abar + 1 - abar)
        return mean + gain * (x - abar.sqrt() * mean)

    where = space("euclidean", schedule)
    for rows in (steps, 1):
        got = sample(denoise, where, noise(2, rows, 20_000, 1), steps)
        assert float(got.mean()) == pytest.approx(mean, abs=0.02)
        assert float(got.var()) == pytest.approx(variance, rel=0.05)


def test_the_chain_reproduces_two_modes_on_the_sphere() -> None:
    """x_0 is one of two points; the posterior mean, put on the sphere, must split the samples."""
    modes = F.normalize(torch.tensor([[1.0, 0.2, 0.0], [-1.0, 0.2, 0.0]]), dim=-1)
    where = space("sphere", SCHEDULE)

    def denoise(x: Tensor, t: int) -> Tensor:
        # the exact posterior under the sphere's kernel concentrates on the nearer mode as t falls
        sharp = 1 / (1 - SCHEDULE.alpha_bar[t]).clamp_min(1e-3)
        return torch.softmax(sharp * (x @ modes.T), dim=-1) @ modes

    got = sample(denoise, where, noise(4, 50, 2000, 3), 50)
    near = (got @ modes.T).max(dim=-1)
    assert float((near.values > 0.95).float().mean()) > 0.95
    assert 0.4 < float((near.indices == 0).float().mean()) < 0.6


def test_any_number_of_steps_but_no_more_than_T() -> None:
    where = space("sphere", SCHEDULE)
    with pytest.raises(ValueError, match="1..50"):
        sample(lambda x, t: x, where, noise(0, 1, 2, 3), 51)
