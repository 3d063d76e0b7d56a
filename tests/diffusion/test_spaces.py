"""Spaces against identities, simulation, and a many-step geodesic random walk."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dimerec.diffusion.schedule import NoiseSchedule, ScheduleConfig
from dimerec.diffusion.spaces import (
    Euclidean,
    ExponentialSphere,
    Sphere,
    exponential_map,
    space,
    tangent,
)

SCHEDULE = NoiseSchedule(ScheduleConfig(kind="cosine", steps=10))
NAMES = ["euclidean", "sphere-exponential", "sphere"]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(draw(seed, *shape), dim=-1)


@given(st.integers(0, 2**32), st.floats(0, 3 * math.pi), st.integers(2, 70))
def test_exponential_map_stays_on_the_sphere_at_the_right_angle(
    seed: int, length: float, width: int
) -> None:
    x = F.normalize(draw(seed, 1, width).double(), dim=-1)
    v = length * F.normalize(tangent(x, draw(seed + 1, 1, width).double()), dim=-1)
    y = exponential_map(x, v)
    assert float(y.norm()) == pytest.approx(1, abs=1e-9)
    assert float((x * y).sum()) == pytest.approx(math.cos(length), abs=1e-9)
    if 0 < length < math.pi:  # the way back: the tangent at x towards y has the angle's length
        back = F.normalize(tangent(x, y), dim=-1) * length
        torch.testing.assert_close(back, v, atol=1e-6, rtol=0)


def test_exponential_map_of_nothing() -> None:
    x = unit(0, 3, 5)
    torch.testing.assert_close(exponential_map(x, torch.zeros_like(x)), x)


def test_exponential_map_by_hand() -> None:
    x, v = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, math.pi / 6, 0.0])
    want = torch.tensor([math.sqrt(3) / 2, 0.5, 0.0])
    torch.testing.assert_close(exponential_map(x, v), want)


@given(st.integers(0, 2**32))
def test_tangent_is_orthogonal(seed: int) -> None:
    x = F.normalize(draw(seed, 4, 8).double(), dim=-1)
    v = draw(seed + 1, 4, 8).double()
    assert float((tangent(x, v) * x).sum(-1).abs().max()) < 1e-12


@pytest.mark.parametrize("t", [1, 4, 10])
def test_sphere_keeps_the_schedules_signal_exactly(t: int) -> None:
    x0 = unit(0, 500, 16)
    xt = Sphere(SCHEDULE).diffuse(x0, torch.full((500,), t), draw(1, 500, 16))
    cosine = (x0 * xt).sum(-1)
    want = SCHEDULE.alpha_bar[t].sqrt().expand(500)
    torch.testing.assert_close(cosine, want, atol=1e-5, rtol=0)
    torch.testing.assert_close(xt.norm(dim=-1), torch.ones(500))


def test_sphere_noise_is_uniform_around_x0() -> None:
    """Every direction orthogonal to x_0 has mean zero and the same variance."""
    n, d = 100_000, 5
    x0 = torch.eye(d)[0].expand(n, d)
    xt = Sphere(SCHEDULE).diffuse(x0, torch.full((n,), 6), draw(2, n, d))
    rest = xt[:, 1:] / (1 - SCHEDULE.alpha_bar[6]).sqrt()
    assert float(rest.mean(0).abs().max()) < 0.01
    torch.testing.assert_close(rest.T @ rest / n, torch.eye(d - 1) / (d - 1), atol=0.01, rtol=0)


def test_sphere_against_a_geodesic_random_walk() -> None:
    """Many small isotropic tangent steps: mean cosine exp(-(d-1) s / 2) after time s.

    The walk's law at the time where that equals sqrt(alpha_bar_t) has the same mean as the
    variance-preserving form, and, given its angle, the same uniform direction.
    """
    n, d, steps = 20_000, 8, 400
    target = 0.5
    duration = -2 * math.log(target) / (d - 1)
    start = torch.eye(d)[0].expand(n, d)
    x = start
    for i in range(steps):
        x = exponential_map(x, tangent(x, draw(10 + i, n, d)) * math.sqrt(duration / steps))
    assert float((x * start).sum(-1).mean()) == pytest.approx(target, abs=0.01)
    schedule = NoiseSchedule(ScheduleConfig(kind="linear", steps=1, first=0.75, last=0.75))
    ours = Sphere(schedule).diffuse(start, torch.ones(n, dtype=torch.int64), draw(5, n, d))
    torch.testing.assert_close(x.mean(0), ours.mean(0), atol=0.015, rtol=0)
    walk = F.normalize(tangent(start, x), dim=-1)
    jump = F.normalize(tangent(start, ours), dim=-1)
    torch.testing.assert_close(walk.T @ walk / n, jump.T @ jump / n, atol=0.01, rtol=0)


def test_the_literal_exponential_step_wraps_round_the_sphere() -> None:
    """The measured reason for the variance-preserving form: at d = 64 x_t is the antipode."""
    schedule = NoiseSchedule(ScheduleConfig(kind="linear", steps=20))
    x0 = unit(0, 4000, 64)
    xt = ExponentialSphere(schedule).diffuse(x0, torch.full((4000,), 20), draw(1, 4000, 64))
    assert float((x0 * xt).sum(-1).mean()) < -0.85


def test_euclidean_marginal() -> None:
    x0 = torch.tensor([1.0, -2.0]).expand(100_000, 2)
    xt = Euclidean(SCHEDULE).diffuse(x0, torch.full((100_000,), 5), draw(3, 100_000, 2))
    abar = SCHEDULE.alpha_bar[5]
    torch.testing.assert_close(xt.mean(0), abar.sqrt() * x0[0], atol=0.02, rtol=0)
    torch.testing.assert_close(xt.var(0), (1 - abar).expand(2), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_t_zero_is_noiseless(name: str) -> None:
    where = space(name, SCHEDULE)
    x0 = where.project(draw(0, 6, 4))
    got = where.diffuse(x0, torch.zeros(6, dtype=torch.int64), draw(1, 6, 4))
    torch.testing.assert_close(got, x0, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_stepping_to_zero_lands_on_the_prediction(name: str) -> None:
    where = space(name, SCHEDULE)
    x0, xt = where.project(draw(0, 6, 4)), where.project(draw(1, 6, 4))
    for noise in (draw(2, 6, 4), None):
        got = where.step(xt, x0, 1, 0, noise)
        torch.testing.assert_close(got, x0, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["euclidean", "sphere"])
def test_a_deterministic_step_with_the_truth_follows_the_same_path(name: str) -> None:
    """With the true x_0, going from t to s keeps the noise that made x_t.

    (Not so with the exponential map, whose reverse step is the Euclidean one put back.)
    """
    where = space(name, SCHEDULE)
    x0, noise = where.project(draw(0, 6, 4)), draw(1, 6, 4)
    xt = where.diffuse(x0, torch.full((6,), 7), noise)
    want = where.diffuse(x0, torch.full((6,), 3), noise)
    torch.testing.assert_close(where.step(xt, x0, 7, 3, None), want, atol=1e-5, rtol=1e-4)


def test_stochastic_step_has_the_posteriors_spread() -> None:
    x0, xt = torch.zeros(200_000, 1), torch.ones(200_000, 1)
    got = Euclidean(SCHEDULE).step(xt, x0, 6, 5, draw(4, 200_000, 1))
    on_xt, _, variance = SCHEDULE.posterior(6, 5)
    assert float(got.mean()) == pytest.approx(on_xt, abs=0.01)
    assert float(got.std()) == pytest.approx(math.sqrt(variance), rel=0.01)  # not beta~ itself


@pytest.mark.parametrize("name", ["sphere-exponential", "sphere"])
def test_the_sphere_is_never_left(name: str) -> None:
    where = space(name, SCHEDULE)
    x = where.project(draw(0, 9, 6))
    for t, s in ((10, 7), (7, 3), (3, 1)):
        x = where.step(x, where.project(draw(t, 9, 6)), t, s, draw(s, 9, 6))
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(9))
