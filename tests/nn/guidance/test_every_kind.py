"""What holds for each extractor that serves every position in one pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dimerec import config
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.nn.guidance import GuidanceConfig, GuidanceExtractor, extractor

L, D, K, V = 6, 4, 3, 9
KINDS = {
    "self-attentive": {"kind": "self-attentive"},
    "routing": {"kind": "dynamic-routing"},
    "routing-shared": {"kind": "dynamic-routing", "routing": "shared"},
    "routing-adaptive": {"kind": "dynamic-routing", "routing": "shared", "adaptive": True},
    "transformer": {"kind": "transformer"},
    "mlp": {"kind": "mlp"},
    "rule": {"kind": "rule"},
    "rule-popular": {"kind": "rule", "rule": "popular"},
    "rule-explore": {"kind": "rule", "rule": "explore", "explore": 0.67},
}
COUNTS = torch.tensor(
    [0.0, 5.0, 2.0, 5.0, 1.0, 7.0, 2.0, 0.0, 9.0]
)  # equals are told apart by place
# the transformer counts its positions from the end of the window, so a prefix is another input
of_prefixes = pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"transformer"}))
every_kind = pytest.mark.parametrize("kind", KINDS)
histories = st.lists(st.integers(1, V - 1), min_size=1, max_size=L)


def build(kind: str) -> GuidanceExtractor:
    made = config.convert({**KINDS[kind], "interests": K}, GuidanceConfig, "guidance")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return extractor(made, D, L, COUNTS).requires_grad_(False)


def hidden(history: Tensor) -> Tensor:
    table = torch.randn(V, D, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table[history]


def padded(items: list[int], length: int = L) -> Tensor:
    return torch.tensor([[0] * (length - len(items)) + items])


@of_prefixes
@settings(max_examples=10)
@given(items=histories)
def test_every_position_at_once_is_one_at_a_time(kind: str, items: list[int]) -> None:
    gem, history = build(kind), padded(items)
    every = gem.every(hidden(history), history)
    for n in range(1, len(items) + 1):
        prefix = padded(items[:n])
        at = L - len(items) + n - 1
        torch.testing.assert_close(every[:, at], gem(hidden(prefix), prefix))


@every_kind
@settings(max_examples=10)
@given(items=histories)
def test_padding_changes_nothing(kind: str, items: list[int]) -> None:
    gem, history, tight = build(kind), padded(items), padded(items, len(items))
    torch.testing.assert_close(gem(hidden(history), history), gem(hidden(tight), tight))


@every_kind
def test_the_future_is_not_seen(kind: str) -> None:
    gem, one, other = build(kind), padded([1, 2, 3, 4, 5]), padded([1, 2, 3, 8, 6])
    before = slice(0, L - 2)
    torch.testing.assert_close(
        gem.every(hidden(one), one)[:, before], gem.every(hidden(other), other)[:, before]
    )


@every_kind
def test_rows_do_not_meet(kind: str) -> None:
    gem = build(kind)
    history = torch.cat([padded([1, 2, 3]), padded([4]), padded([5, 6, 7, 8, 1, 2])])
    together = gem(hidden(history), history)
    assert together.shape == (3, K, D)
    for row in range(3):
        one = history[row : row + 1]
        torch.testing.assert_close(together[row : row + 1], gem(hidden(one), one))


@every_kind
def test_nothing_is_finite(kind: str) -> None:
    history = torch.zeros(2, L, dtype=torch.int64)
    assert bool(build(kind)(hidden(history), history).isfinite().all())


@every_kind
def test_training_reads_every_position(kind: str) -> None:
    gem, history = build(kind), padded([1, 2, 3, 4])
    targets = torch.tensor([[0, 0, 2, 3, 4, 5]])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = SequenceBatch(history, targets, empty, empty.float())
    guidance, at = gem.train_on(hidden(history), batch)
    assert torch.equal(at, targets > 0)
    torch.testing.assert_close(guidance, gem.every(hidden(history), history)[at])


def test_dropout_is_drawn_from_the_generator_given() -> None:
    gem, history = build("transformer"), padded([1, 2, 3, 4])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = SequenceBatch(history, history, empty, empty.float())
    a, b, c = (
        gem.train_on(hidden(history), batch, torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mpl"}, "kind = 'mpl': must be one of .*'dynamic-routing'.*'mlp'"),
        ({"routing": "random"}, "routing = 'random': must be one of 'private', 'shared'"),
        ({"iterations": 0}, "iterations = 0: must be an integer >= 1"),
        ({"transformer": {"dropout": 2.0}}, "transformer.dropout = 2.0: must be a number"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, GuidanceConfig, "guidance")
