"""The schedule against the chain it describes, simulated."""

import math

import numpy as np
import pytest
import torch

from dimerec.diffusion.schedule import NoiseSchedule, ScheduleConfig

KINDS = ["linear", "scaled-linear", "cosine", "sqrt", "truncated-linear", "exponential"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 20, 100])
def test_signal_falls_from_one(kind: str, steps: int) -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind=kind, steps=steps))
    assert schedule.beta.shape == schedule.alpha_bar.shape == (steps + 1,)
    assert schedule.beta[0] == 0 and schedule.alpha_bar[0] == 1
    assert bool((schedule.beta[1:] > 0).all()) and bool((schedule.beta < 1).all())
    assert bool((schedule.alpha_bar.diff() < 0).all()) and bool((schedule.alpha_bar > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_bar_is_the_product(kind: str) -> None:
    """Eq. 3, by a plain loop."""
    schedule = NoiseSchedule(ScheduleConfig(kind=kind, steps=12))
    product = 1.0
    for t in range(1, 13):
        product *= 1 - float(schedule.beta[t])
        assert float(schedule.alpha_bar[t]) == pytest.approx(product, rel=1e-3)


def test_linear_ends_by_hand() -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind="linear", steps=3, first=0.1, last=0.3))
    assert schedule.beta.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert schedule.alpha_bar.tolist() == pytest.approx([1, 0.9, 0.72, 0.504])


@pytest.mark.parametrize(
    ("kind", "beta"),
    [
        # from 0.0001 to 0.02 in thirds of 0.0199
        ("linear", [0.0001, 0.0067333, 0.0133667, 0.02]),
        # 250 times that: from 0.025 to 5 in thirds of 4.975, and nothing above 0.999
        ("scaled-linear", [0.025, 0.999, 0.999, 0.999]),
        # f = 0.9998446, 0.8468805, 0.4937668, 0.1442497, 0: 1 less the ratios of neighbours
        ("cosine", [0.1529878, 0.4169581, 0.7078587, 0.999]),
        # 1 - sqrt(t + 1e-4) = 0.99, 0.4999000, 0.2928225, 0.1339169, -0.00005
        ("sqrt", [0.4950505, 0.4142378, 0.5426688, 0.999]),
        # 250 times and 0.01 more: 0.035 to 5.01, above 1; so to 0.25 + 0.01, in thirds of 0.225
        ("truncated-linear", [0.035, 0.11, 0.185, 0.26]),
        # rates 0.1 / 4 + 4.95 (1, 11/3, 19/3, 9) / 16 = 0.334375, 1.159375, 1.984375, 2.809375
        ("exponential", [0.2842147, 0.6863178, 0.8625335, 0.9397574]),
    ],
)
def test_four_steps_by_hand(kind: str, beta: list[float]) -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind=kind, steps=4))
    assert schedule.beta[1:].tolist() == pytest.approx(beta, abs=1e-6)


def test_scaled_linear_stretches_with_T() -> None:
    short = NoiseSchedule(ScheduleConfig(kind="scaled-linear", steps=100))
    assert float(short.beta[1]) == pytest.approx(1e-3)
    assert float(short.beta[50]) == pytest.approx(1e-3 + 49 / 99 * 0.199)
    assert float(short.beta[100]) == pytest.approx(0.2)
    assert float(NoiseSchedule(ScheduleConfig(steps=20)).beta[20]) == pytest.approx(0.999)


def test_truncated_linear_by_hand() -> None:
    """DiffuRec's: from 0.1 / T + 0.01 to 20 / T + 0.01, or to 1 / T + 0.01 if that is above 1.

    T = 200: from 0.0105 to 0.11 in 199 steps of 0.0005. T = 10: the end would be 2.01; from 0.02 to
    0.11 in 9 steps of 0.01. T = 21 is the first that goes all the way, to 0.962381; T = 20 would
    end at 1.01, and ends at 0.06. The published T = 32: from 0.013125 to 0.635.
    """

    def beta(steps: int, **ends: float) -> list[float]:
        config = ScheduleConfig(kind="truncated-linear", steps=steps, **ends)
        return NoiseSchedule(config).beta.tolist()

    assert beta(200)[1:] == pytest.approx([0.01 + 0.0005 * t for t in range(1, 201)], rel=1e-5)
    assert beta(10)[1:] == pytest.approx([0.01 + 0.01 * t for t in range(1, 11)], rel=1e-5)
    for steps, first, last in [
        (20, 0.015, 0.06),
        (21, 0.0147619, 0.962381),
        (32, 0.013125, 0.635),
    ]:
        assert [beta(steps)[1], beta(steps)[-1]] == pytest.approx([first, last], rel=1e-5)
    # other ends, T = 10: 0.02 + 0.01, and for 4 + 0.01 a twentieth of the 4
    assert beta(10, first=2e-4, last=0.04)[1::9] == pytest.approx([0.03, 0.21], rel=1e-5)


def test_cosine_by_hand() -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind="cosine", steps=10))

    def f(t: int) -> float:
        return math.cos((t / 10 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert float(schedule.alpha_bar[5]) == pytest.approx(f(5) / f(0), rel=1e-5)


def test_sqrt_by_hand() -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind="sqrt", steps=4))
    kept = (1 - math.sqrt(0.5 + 1e-4)) / (1 - math.sqrt(1e-4))
    assert float(schedule.alpha_bar[2]) == pytest.approx(kept, rel=1e-5)


def test_exponential_by_hand() -> None:
    """T = 2: rates 0.1 / 2 + 4.95 (1, 5) / 4 = 1.2875 and 6.2375; the signal falls by their exp."""
    schedule = NoiseSchedule(ScheduleConfig(kind="exponential", steps=2))
    want = [1, math.exp(-1.2875), math.exp(-1.2875 - 6.2375)]
    assert schedule.alpha_bar.tolist() == pytest.approx(want, rel=1e-4)


def test_exponential_forgets_as_much_whatever_T() -> None:
    """All rates add up to 0.1 + 4.95 (1 + 1 / T)."""
    for steps in (10, 500):
        schedule = NoiseSchedule(ScheduleConfig(kind="exponential", steps=steps))
        want = math.exp(-0.1 - 4.95 * (1 + 1 / steps))
        assert float(schedule.alpha_bar[steps]) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize(("t", "s"), [(6, 5), (6, 2), (3, 1)])
def test_posterior_against_a_simulated_chain(t: int, s: int) -> None:
    """Simulate x_0 -> x_s -> x_t by Eq. 1 one step at a time; regress x_s on x_t and x_0."""
    schedule = NoiseSchedule(ScheduleConfig(kind="linear", steps=6, first=0.1, last=0.4))
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=400_000)
    path = [x0]
    for beta in schedule.beta[1:].tolist():
        path.append(math.sqrt(1 - beta) * path[-1] + math.sqrt(beta) * rng.normal(size=x0.shape))
    design = np.stack([path[t], x0], axis=1)
    weights, residual, *_ = np.linalg.lstsq(design, path[s], rcond=None)
    on_xt, on_x0, variance = schedule.posterior(t, s)
    assert weights == pytest.approx([on_xt, on_x0], abs=5e-3)
    assert residual[0] / len(x0) == pytest.approx(variance, rel=1e-2)


def test_last_posterior_step_is_x0_itself() -> None:
    on_xt, on_x0, variance = NoiseSchedule(ScheduleConfig()).posterior(1, 0)
    assert (on_xt, on_x0, variance) == pytest.approx((0, 1, 0), abs=1e-6)


def test_times() -> None:
    schedule = NoiseSchedule(ScheduleConfig(steps=20))
    assert schedule.times(1) == [20]
    assert schedule.times(2) == [20, 10]
    assert schedule.times(5) == [20, 16, 12, 8, 4]
    assert schedule.times(20) == list(range(20, 0, -1))
    for steps in range(1, 21):
        times = schedule.times(steps)
        assert len(set(times)) == steps and times == sorted(times, reverse=True) and times[-1] >= 1
    for bad in (0, 21):
        with pytest.raises(ValueError, match="1..20"):
            schedule.times(bad)


def test_marginal_of_the_simulated_chain() -> None:
    """Eq. 2 from Eq. 1: mean and variance after t small steps."""
    schedule = NoiseSchedule(ScheduleConfig(kind="cosine", steps=8))
    generator = torch.Generator().manual_seed(0)
    x = torch.full((200_000,), 2.0)
    for t in range(1, 9):
        beta = schedule.beta[t]
        x = (1 - beta).sqrt() * x + beta.sqrt() * torch.randn(x.shape, generator=generator)
        abar = float(schedule.alpha_bar[t])
        assert float(x.mean()) == pytest.approx(2 * math.sqrt(abar), abs=0.02)
        assert float(x.var()) == pytest.approx(1 - abar, abs=0.02)
