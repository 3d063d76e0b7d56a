"""The causal encoder: what it may see, and its dropout."""

from typing import Literal

import pytest
import torch

from dimerec.nn import pieces
from dimerec.nn.transformer import Transformer, TransformerConfig, dropout

L, D = 6, 8


Kind = Literal["sasrec", "bert"]
both = pytest.mark.parametrize("kind", ["sasrec", "bert"])


def encoder(kind: Kind, rate: float = 0.5) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer(TransformerConfig(kind=kind, layers=2, heads=2, dropout=rate), D, L)


def embedded(history: torch.Tensor) -> torch.Tensor:
    table = torch.randn(10, D, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table[history]


@both
def test_the_future_is_not_seen_and_the_past_is(kind: Kind) -> None:
    net = encoder(kind)
    a, b = torch.tensor([[0, 1, 2, 3, 4, 5]]), torch.tensor([[0, 1, 2, 3, 9, 8]])
    x, y = net(embedded(a), a), net(embedded(b), b)
    torch.testing.assert_close(x[:, :4], y[:, :4])
    c = torch.tensor([[0, 7, 2, 3, 4, 5]])
    assert float((net(embedded(c), c)[:, -1] - x[:, -1]).abs().max().detach()) > 1e-3


@both
def test_padding_is_zero_and_changes_nothing(kind: Kind) -> None:
    net = encoder(kind)
    short = torch.tensor([[1, 2, 3]])
    long = torch.tensor([[0, 0, 0, 1, 2, 3]])
    got = net(embedded(long), long)
    assert not bool(got[:, :3].any())
    torch.testing.assert_close(got[:, 3:], net(embedded(short), short))


@both
def test_attention_with_and_without_the_stock_kernel_agree(kind: Kind) -> None:
    """Dropout has its own attention path: at a rate near zero it gives the same states."""
    history = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 1, 2, 2, 3, 3]])
    net = encoder(kind, rate=1e-9)
    plain = net(embedded(history), history)
    dropped = net(embedded(history), history, torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain, dropped)


@both
@pytest.mark.parametrize("piece", [1, 2 * L, 2048])
def test_a_training_batch_read_in_pieces_has_the_same_states(
    kind: Kind, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", piece)
    history = torch.randint(1, 10, (7, L), generator=torch.Generator().manual_seed(2))
    history *= torch.arange(L, 0, -1) <= torch.tensor([3, 6, 0, 1, 5, 2, 3])[:, None]
    net = encoder(kind, rate=1e-9)
    got = net(embedded(history), history, torch.Generator().manual_seed(0))
    real = (history > 0).unsqueeze(-1)
    torch.testing.assert_close(got, net(embedded(history), history) * real)


def test_berts_blocks_stand_between_one_norm_and_nothing() -> None:
    """x = LN(e + p), then each block; positions are counted from the latest."""
    net = encoder("bert")
    history = torch.tensor([[1, 2, 3]])
    x = net.norm(embedded(history) + net.position[-3:])
    seen = torch.ones(3, 3, dtype=torch.bool).tril()[None, None]
    for block in net.blocks:
        x = block(x, seen, None)
    torch.testing.assert_close(net(embedded(history), history), x)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_each_element_is_dropped_by_itself_at_the_given_rate(rate: float) -> None:
    """Four elements share a draw of the generator: neighbours must still be independent."""
    shape = 501, 401  # no multiple of four
    y = dropout(torch.full(shape, 2.0), rate, torch.Generator().manual_seed(3)).flatten()
    kept = (y != 0).double()
    share = float(kept.mean())
    error = (rate * (1 - rate) / len(y)) ** 0.5
    assert abs(share - (1 - rate)) < 4 * error + 2**-16
    assert y[y != 0].unique().tolist() == [pytest.approx(2 / (1 - rate), rel=2**-16 / (1 - rate))]
    for lag in (1, 2, 3, 4):
        together = float((kept[lag:] * kept[:-lag]).mean())
        assert abs(together - share**2) < 5 * share * (1 - share) / len(y) ** 0.5 + 1e-9


def test_dropout_keeps_the_mean_and_draws_from_its_generator() -> None:
    x = torch.ones(200_000)
    rng = torch.Generator().manual_seed(0)
    y = dropout(x, 0.3, rng)
    assert float(y.mean()) == pytest.approx(1, abs=0.01)
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(y, dropout(x, 0.3, torch.Generator().manual_seed(0)))
    assert dropout(x, 0.3, None) is x and dropout(x, 0.0, rng) is x
