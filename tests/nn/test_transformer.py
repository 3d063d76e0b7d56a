"""The causal encoder: what it may see, SASRec's block by hand and by loops, and its dropout."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from dimerec import randomness
from dimerec.nn import pieces
from dimerec.nn.transformer import Block, Transformer, TransformerConfig, dropout

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


def test_sasrecs_blocks_stand_between_scaled_items_and_one_norm() -> None:
    """x = sqrt(d) e + p, then each block, then LN; positions are counted from the latest."""
    net = encoder("sasrec")
    history = torch.tensor([[1, 2, 3]])
    x = math.sqrt(D) * embedded(history) + net.position[-3:]
    seen = torch.ones(3, 3, dtype=torch.bool).tril()[None, None]
    for block in net.blocks:
        x = block(x, seen, None)
    torch.testing.assert_close(net(embedded(history), history), net.norm(x))


def test_sasrecs_block_by_hand() -> None:
    """d = 2, one head, identities for q, k, v and o; x = (4, 1), (0, 2), each seeing both.

    The first norm makes queries of them, (1, -1) and (-1, 1); keys and values stay what they are.
    Scores of the first: (4 - 1) / sqrt 2 and (0 - 2) / sqrt 2, weights 0.971682 and 0.028318: it
    mixes to 0.971682 (4, 1) + 0.028318 (0, 2) = (3.886728, 1.028318), and the query is added to it:
    (4.886728, 0.028318). The second has the weights the other way round: (0.113272, 1.971682), and
    (-0.886728, 2.971682) with its query. In the place of the second norm, which would leave 1 and
    -1 of any two numbers, stands a doubling: (9.773457, 0.056636) and (-1.773457, 5.943364).
    The feed-forward's only way leads from the first coordinate to the second. It adds 9.773457 to
    the first row and relu(-1.773457) = 0 to the second; what it adds to is the doubled state.
    """
    block = Block(2, 1, 0.0)
    block.norm2 = nn.Linear(2, 2, bias=False)  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        for layer in (block.q, block.k, block.v, block.o, block.inner, block.outer):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        block.norm2.weight.copy_(2 * torch.eye(2))
        block.inner.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    got = block(torch.tensor([[[4.0, 1.0], [0.0, 2.0]]]), torch.ones(1, 1, 2, 2).bool(), None)
    want = [[9.773457, 0.056636 + 9.773457], [-1.773457, 5.943364]]
    torch.testing.assert_close(got, torch.tensor([want]), atol=1e-5, rtol=0)


def test_sasrecs_block_against_plain_loops() -> None:
    width, heads = 4, 2
    with randomness.torch_scope(1, "init"):
        block = Block(width, heads, rate=0.5)
        for norm in (block.norm1, block.norm2):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 3, 3).bool()
    seen[0, 0, 1] = seen[0, 1, 0] = seen[1, 2, 0] = False
    with torch.no_grad():
        want = torch.zeros_like(x)
        for n in range(2):
            for i in range(3):
                query, mixed = normed(x[n, i], block.norm1), torch.zeros(width)
                for h in range(heads):
                    part = slice(2 * h, 2 * h + 2)
                    weight = {
                        j: math.exp(
                            float(block.q(query)[part] @ block.k(x[n, j])[part]) / math.sqrt(2)
                        )
                        for j in range(3)
                        if seen[n, i, j]
                    }
                    for j, w in weight.items():
                        mixed[part] += w / sum(weight.values()) * block.v(x[n, j])[part]
                hidden = normed(query + block.o(mixed), block.norm2)
                want[n, i] = hidden + block.outer(block.inner(hidden).clamp_min(0))
        torch.testing.assert_close(block(x, seen[:, None], None), want, atol=1e-5, rtol=1e-5)


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return (x - x.mean()) / x.var(correction=0).sqrt() * norm.weight + norm.bias


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
