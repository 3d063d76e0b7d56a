"""The latest K states of the transformer."""

import pytest
import torch

from dimerec.nn.guidance import GuidanceConfig, TransformerStates
from dimerec.nn.transformer import TransformerConfig

L, D = 5, 4


def build(interests: int) -> TransformerStates:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GuidanceConfig(kind="transformer", interests=interests)
        return TransformerStates(config, D, L).requires_grad_(False)


def test_the_latest_come_first_and_the_oldest_is_repeated() -> None:
    gem = build(3)
    history = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 0, 4, 5]])
    hidden = torch.randn(2, L, D, generator=torch.Generator().manual_seed(1))
    hidden = hidden * (history > 0).unsqueeze(-1)
    states = gem.transformer(hidden, history)
    got = gem(hidden, history)
    torch.testing.assert_close(got[0], states[0, [4, 3, 2]])
    torch.testing.assert_close(got[1], states[1, [4, 3, 3]])
    torch.testing.assert_close(gem.every(hidden, history)[0, 1], states[0, [1, 0, 0]])


def test_one_interest_is_sasrecs_state() -> None:
    gem = build(1)
    history = torch.tensor([[0, 0, 3, 4, 5]])
    hidden = torch.ones(1, L, D) * (history > 0).unsqueeze(-1)
    torch.testing.assert_close(gem(hidden, history), gem.transformer(hidden, history)[:, -1:])


def test_the_width_must_be_divisible_by_the_heads() -> None:
    three = TransformerConfig(heads=3)
    GuidanceConfig(kind="transformer", transformer=three).check(66)
    GuidanceConfig(kind="mlp", transformer=three).check(64)
    with pytest.raises(
        ValueError, match=r"width = 64 must be divisible by guidance.transformer.heads = 3"
    ):
        GuidanceConfig(kind="transformer", transformer=three).check(64)
