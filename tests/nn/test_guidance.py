"""GEM against plain loops; every position at once against one position at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.nn.guidance import GuidanceConfig, RuleBased, SelfAttentive, extractor

L, D, K = 5, 3, 2
COUNTS = torch.tensor([0.0, 50.0, 10.0, 40.0, 2.0, 30.0, 1.0, 20.0])


def self_attentive(positions: str, seed: int = 0) -> SelfAttentive:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = SelfAttentive(GuidanceConfig(interests=K, positions=positions), D, L)
        torch.nn.init.normal_(made.position)
        return made.requires_grad_(False)


def hidden(seed: int, history: Tensor) -> Tensor:
    table = torch.randn(len(COUNTS), D, generator=torch.Generator().manual_seed(seed))
    table[0] = 0
    return table[history]


def slow(gem: SelfAttentive, states: Tensor, history: Tensor) -> list[list[float]]:
    """Eqs. 16-17 for one history, item by item."""
    real = [j for j in range(len(history)) if history[j] > 0]
    scores = []
    for j in real:
        distance = len(history) - 1 - j
        x = states[j] if gem.causal else states[j] + gem.position[distance]
        inner = [math.tanh(float(v)) for v in gem.hidden.weight @ x + gem.hidden.bias]
        score = gem.out.weight @ torch.tensor(inner)
        scores.append(score + gem.position[distance] if gem.causal else score)
    out = []
    for k in range(K):
        weights = [math.exp(float(s[k])) for s in scores]
        share = [w / sum(weights) for w in weights]
        out.append(
            [
                sum(a * float(states[j][d]) for a, j in zip(share, real, strict=True))
                for d in range(D)
            ]
        )
    return out


@pytest.mark.parametrize("positions", ["distance", "end"])
def test_eqs_16_and_17_by_a_plain_loop(positions: str) -> None:
    gem = self_attentive(positions)
    history = torch.tensor([[0, 0, 3, 1, 2], [4, 5, 6, 7, 1], [0, 0, 0, 0, 5]])
    states = hidden(1, history)
    got = gem(states, history)
    for b in range(3):
        torch.testing.assert_close(got[b], torch.tensor(slow(gem, states[b], history[b])))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=L), st.integers(0, 99))
def test_every_position_at_once_is_one_at_a_time(items: list[int], seed: int) -> None:
    gem = self_attentive("distance", seed)
    history = torch.tensor([[0] * (L - len(items)) + items])
    states = hidden(seed, history)
    every = gem.every(states, history)
    for n in range(1, len(items) + 1):
        prefix = torch.tensor([[0] * (L - n) + items[:n]])
        at = L - len(items) + n - 1
        torch.testing.assert_close(every[:, at], gem(hidden(seed, prefix), prefix))


def test_the_future_is_not_seen() -> None:
    gem = self_attentive("distance")
    a, b = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 7, 6]])
    before = slice(0, 3)
    torch.testing.assert_close(
        gem.every(hidden(0, a), a)[:, before], gem.every(hidden(0, b), b)[:, before]
    )


def test_nothing_gives_nothing() -> None:
    for positions in ("distance", "end"):
        history = torch.zeros(2, L, dtype=torch.int64)
        assert not bool(self_attentive(positions)(hidden(0, history), history).any())


def test_end_positions_cannot_serve_every_position() -> None:
    history = torch.ones(1, L, dtype=torch.int64)
    with pytest.raises(TypeError, match="last position only"):
        self_attentive("end").every(hidden(0, history), history)


def test_what_is_trained_on() -> None:
    history = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 5, 6]])
    targets = torch.tensor([[0, 2, 3, 4, 5], [0, 0, 0, 6, 7]])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = SequenceBatch(history, targets, empty, empty.float())
    states = hidden(0, history)
    guidance, at = self_attentive("distance").train_on(states, batch)
    assert guidance.shape == (6, K, D) and torch.equal(at, targets > 0)
    last = self_attentive("end")
    guidance, at = last.train_on(states, batch)
    assert at.sum(1).tolist() == [1, 1] and bool(at[:, -1].all())
    torch.testing.assert_close(guidance, last(states, history))


def rule(**options) -> RuleBased:
    made = extractor(GuidanceConfig(kind="rule", **options), D, L, COUNTS)
    assert isinstance(made, RuleBased) and not list(made.parameters())
    return made


def chosen(gem: RuleBased, *items: int) -> list[int]:
    history = torch.tensor([[0] * (L - len(items)) + list(items)])
    positions = gem.choose(history)[0].tolist()
    return [int(history[0, p]) if p >= 0 else 0 for p in positions]


def test_eq_15_keeps_the_last() -> None:
    gem = rule(interests=3)
    assert chosen(gem, 1, 2, 3, 4, 5) == [5, 4, 3]
    assert chosen(gem, 6, 2) == [2, 6, 0]


def test_the_most_popular_with_the_latest_first_among_equals() -> None:
    gem = rule(interests=3, rule="popular")
    assert chosen(gem, 4, 1, 6, 3, 2) == [1, 3, 2]
    assert chosen(gem, 1, 4, 1) == [1, 1, 4]


def test_the_latest_of_equals_comes_first_however_often_they_were_taken() -> None:
    often = torch.full((len(COUNTS),), 2.0**25)
    gem = extractor(GuidanceConfig(kind="rule", interests=3, rule="popular"), D, L, often)
    assert isinstance(gem, RuleBased) and chosen(gem, 4, 1, 6, 3, 2) == [2, 3, 6]


def test_exploring_reserves_places_for_the_least_exposed() -> None:
    gem = rule(interests=4, rule="explore", explore=0.5)
    assert chosen(gem, 1, 3, 6, 4, 2) == [1, 3, 6, 4]
    assert chosen(gem, 1, 6) == [1, 6, 0, 0]
    every = rule(interests=2, rule="explore", explore=1.0)
    assert chosen(every, 1, 3, 6, 4, 2) == [6, 4]


def test_rules_return_the_items_own_vectors_and_zeros() -> None:
    gem = rule(interests=3)
    history = torch.tensor([[0, 0, 0, 6, 2]])
    states = hidden(3, history)
    got = gem(states, history)[0]
    torch.testing.assert_close(got, torch.stack([states[0, 4], states[0, 3], torch.zeros(D)]))
