"""Steps drawn by their recent losses: what is remembered, how it is drawn, and that it is fair."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec.nn.importance import StepSampler


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.lists(st.integers(1, 3), max_size=25), max_size=4))
def test_the_last_ten_losses_of_each_step_are_remembered(batches: list[list[int]]) -> None:
    sampler, wanted, value = StepSampler(3), {1: [], 2: [], 3: []}, 0.0
    for steps in batches:
        losses = []
        for t in steps:
            value += 1
            losses.append(value)
            wanted[t].append(value)
        sampler.remember(torch.tensor(steps, dtype=torch.int64), torch.tensor(losses))
    for t, values in wanted.items():
        assert int(sampler.drawn[t - 1]) == len(values)
        assert sorted(sampler.recent[t - 1].tolist())[-len(values) or 10 :] == values[-10:]


def test_draws_are_uniform_until_every_step_has_ten_losses() -> None:
    sampler = StepSampler(4)
    sampler.remember(torch.tensor([1, 2, 3] * 10), torch.full((30,), 100.0))
    sampler.remember(torch.tensor([4] * 9), torch.ones(9))
    t, odds = sampler.draw(20_000, generator())
    assert torch.bincount(t).tolist()[1:] == pytest.approx([5000] * 4, rel=0.05)
    assert torch.equal(odds, torch.ones(20_000))


def test_then_by_the_root_mean_square_of_the_losses() -> None:
    """Step 1 lost 3 ten times. Step 2 lost 1 and 7 five times each: sqrt((1 + 49) / 2) = 5.

    3/8 and 5/8, of which a thousandth is drawn evenly: 0.999 * 3/8 + 0.0005 = 0.375125.
    """
    sampler = StepSampler(2)
    sampler.remember(torch.tensor([1] * 10 + [2] * 10), torch.tensor([3.0] * 10 + [1.0, 7.0] * 5))
    t, odds = sampler.draw(40_000, generator())
    assert set(t.tolist()) == {1, 2}
    for step, p in ((1, 0.375125), (2, 0.624875)):
        assert float((t == step).float().mean()) == pytest.approx(p, abs=0.01)
        assert float(odds[t == step][0]) == pytest.approx(2 * p, rel=1e-6)


def test_a_loss_divided_by_its_odds_has_the_mean_of_uniform_draws() -> None:
    sampler, loss = StepSampler(3), torch.tensor([0.1, 2.0, 30.0])
    for _ in range(10):
        sampler.remember(torch.tensor([1, 2, 3]), loss)
    t, odds = sampler.draw(100_000, generator())
    assert float((loss[t - 1] / odds).mean()) == pytest.approx(float(loss.mean()), rel=0.02)


def test_losses_of_zero_do_not_stop_it() -> None:
    sampler = StepSampler(2)
    sampler.remember(torch.tensor([1, 2] * 10), torch.zeros(20))
    t, odds = sampler.draw(10, generator())
    assert bool(torch.isfinite(odds).all()) and set(t.tolist()) <= {1, 2}
