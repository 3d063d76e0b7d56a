"""BERT4Rec's own maths: which items are hidden, its layer, and the loss, by hand and by loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.bert4rec import Config, Model, cloze
from dimerec.nn import pieces
from dimerec.nn.transformer import BertBlock as Block

V, L = 20, 5
NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


def build(**options) -> Model:
    made = config.convert({"width": 8, "heads": 2} | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))
        for name, weight in model.named_parameters():
            if "norm" not in name:
                nn.init.normal_(weight, std=0.5)
        model.items.weight.data[0] = 0
    return model.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> SequenceBatch:
    items = torch.randint(1, V, (3, L + 1), generator=generator())
    items[1, :3] = 0
    targets = torch.where(items[:, :-1] > 0, items[:, 1:], 0)
    return SequenceBatch(items[:, :-1], targets, *NONE)


@settings(max_examples=30)
@given(st.integers(1, 30), st.floats(0.01, 1.0), st.integers(0, 9))
def test_a_share_of_the_real_items_is_hidden(count: int, share: float, seed: int) -> None:
    real = torch.zeros(4, 33, dtype=torch.bool)
    real[:, 33 - count :] = True
    hidden = cloze(real, share, 0.0, generator(seed))
    assert not bool((hidden & ~real).any())
    want = min(count, max(1, math.floor(count * share + 0.5)))
    assert hidden.sum(1).tolist() == [want] * 4


def test_every_item_is_hidden_as_often_as_any_other() -> None:
    real = torch.ones(20_000, 6, dtype=torch.bool)
    often = cloze(real, 1 / 3, 0.0, generator()).float().mean(0)
    assert often.tolist() == pytest.approx([1 / 3] * 6, abs=0.015)


def test_some_windows_hide_the_last_item_alone() -> None:
    """Always for a share of 1; for 1/4 of the windows beside one item of five at random."""
    real = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0]]).bool()
    assert cloze(real, 1.0, 1.0, generator()).int().tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]
    often = cloze(torch.ones(20_000, 5).bool(), 0.2, 0.25, generator()).float().mean(0)
    assert often.tolist() == pytest.approx([0.15] * 4 + [0.4], abs=0.015)


def test_a_layer_by_hand() -> None:
    """d = 2, one head, identities for q, k, v and o, no norms; x = (1, -1), (-1, 1).

    Scores of the first: 2 / sqrt 2 and -2 / sqrt 2, weights 0.944193 and 0.055807, so it mixes to
    0.888386 (1, -1), and with the residual to 1.888386 (1, -1). The feed-forward's only way leads
    from the first coordinate to the second: gelu(1.888386) = 1.888386 * 0.970512 = 1.832702.
    The second is the mirror image, but gelu(-1.888386) = -1.888386 * 0.029488 = -0.055684.
    """
    block = Block(2, 1, 0.0)
    block.norm1 = block.norm2 = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        for layer in (block.q, block.k, block.v, block.o):
            layer.weight.copy_(torch.eye(2))
        block.inner.weight[5, 0] = 1
        block.outer.weight[1, 5] = 1
    x = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    got = block(x, torch.ones(1, 1, 1, 2).bool(), None)
    want = [[1.888386, -1.888386 + 1.832702], [-1.888386, 1.888386 - 0.055684]]
    torch.testing.assert_close(got, torch.tensor([want]), atol=1e-5, rtol=0)


def test_a_layer_against_plain_loops() -> None:
    width, heads = 4, 2
    with randomness.torch_scope(1, "init"):
        block = Block(width, heads, rate=0.5)
    x = torch.randn(2, 3, width, generator=generator())
    seen = torch.tensor([[True, True, True], [False, True, True]])
    with torch.no_grad():
        want = torch.zeros_like(x)
        for n in range(2):
            for i in range(3):
                mixed = torch.zeros(width)
                for h in range(heads):
                    part = slice(2 * h, 2 * h + 2)
                    q = block.q(x[n, i])[part]
                    weight = {
                        j: math.exp(float(q @ block.k(x[n, j])[part]) / math.sqrt(2))
                        for j in range(3)
                        if seen[n, j]
                    }
                    for j, w in weight.items():
                        mixed[part] += w / sum(weight.values()) * block.v(x[n, j])[part]
                y = normed(x[n, i] + block.o(mixed))
                inner = block.inner(y)
                gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
                want[n, i] = normed(y + block.outer(gelu))
        torch.testing.assert_close(block(x, seen[:, None, None], None), want)
        block.rate = 1e-9  # attention without the stock kernel
        torch.testing.assert_close(block(x, seen[:, None, None], generator()), want)


def normed(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.var(correction=0).sqrt()


def test_a_hidden_item_is_not_seen_and_both_its_sides_are() -> None:
    model, hidden = build(), torch.tensor([[False, False, True, False, False]])
    window = torch.tensor([[3, 1, 4, 1, 5]])
    state = model.states(window, hidden)[0, 2]
    for place, moves in ((0, True), (2, False), (4, True)):
        other = window.clone()
        other[0, place] = 9
        change = float((model.states(other, hidden)[0, 2] - state).abs().max().detach())
        assert (change > 1e-3) == moves, place


def test_scores_are_those_of_a_mask_behind_the_history() -> None:
    """Embedding, positions from the end, layers, prediction layer, tied table and bias."""
    model, state = build(), dict(build().named_parameters())
    table, items = state["items.weight"], [7, 2]
    x = torch.stack([*(table[i, :-1] for i in items), state["mask"]])
    x = torch.stack([normed(v) for v in x + state["position"][-3:]]).unsqueeze(0)
    for block in model.blocks:
        x = block(x, torch.ones(1, 1, 1, 3).bool(), None)
    inner = x[0, -1] @ state["out.weight"].T + state["out.bias"]
    query = normed(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
    want = table[:, :-1] @ query + table[:, -1]
    got = model.scores(torch.tensor([[0, 0, 0, *items]]), torch.zeros(1, 0, model.width))
    torch.testing.assert_close(got[0], want, atol=1e-5, rtol=1e-5)
    assert model.width == 9 and build(bias=False).width == 8


@pytest.mark.parametrize(("bias", "piece"), [(True, 1), (False, 2048)])
def test_the_loss_is_the_mean_over_all_hidden_items(
    bias: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hidden item after the other, the softmax over all items written out; windows are read
    in pieces of like lengths here, whole there."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    model, data = build(dropout=0.0, masked=0.4, bias=bias), batch()
    got = model.loss(data, generator(4)).parts["softmax"]
    window = torch.cat([data.history, data.targets[:, -1:]], 1)
    hidden = cloze(window > 0, 0.4, model.config.last, generator(4))
    costs = []
    for row, column in hidden.nonzero().tolist():
        query = model.query(model.states(window[row : row + 1], hidden[row : row + 1]))[0, column]
        logits = [float((query @ model.items.weight[v]).detach()) for v in range(1, V)]
        target = int(window[row, column])
        costs.append(math.log(sum(math.exp(v) for v in logits)) - logits[target - 1])
    assert len(costs) > 3
    assert float(got.detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-4)


def test_private_negatives_are_those_of_the_hidden_targets() -> None:
    """A first item is no target and is never hidden, even when everything else is."""
    model, data = build(dropout=0.0, masked=1.0, last=0.0), batch()
    negatives = torch.randint(1, V, (3, L, 2), generator=generator(2))
    drawn = SequenceBatch(data.history, data.targets, negatives, torch.zeros(3, L, 2))
    got = model.loss(drawn, generator(4)).parts["softmax"]
    window = torch.cat([data.history, data.targets[:, -1:]], 1)
    hidden = torch.nn.functional.pad(data.targets > 0, (1, 0))
    queries = model.query(model.states(window, hidden))
    costs = []
    for row, column in (data.targets > 0).nonzero().tolist():
        target = int(data.targets[row, column])
        others = [int(v) for v in negatives[row, column] if int(v) != target]
        logits = model.items.weight[[target, *others]] @ queries[row, column + 1]
        costs.append(float((logits.logsumexp(0) - logits[0]).detach()))
    assert float(got.detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-4)


def test_a_history_with_nothing_behind_it_teaches_nothing() -> None:
    model, data = build(dropout=0.0, masked=1.0), batch()
    cut = SequenceBatch(data.history[:2], data.targets[:2], *NONE)
    targets = data.targets.clone()
    targets[2] = 0
    more = SequenceBatch(data.history, targets, *NONE)
    assert float(model.loss(cut, generator()).total.detach()) == pytest.approx(
        float(model.loss(more, generator()).total.detach())
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 65}, "width = 65 must be divisible by heads = 2"),
        ({"masked": 0.0}, "masked = 0.0: must be a number > 0 and <= 1"),
        ({"last": 1.5}, "last = 1.5: must be a number >= 0 and <= 1"),
        ({"dropout": 2.0}, "dropout = 2.0: must be a number >= 0 and < 1"),
        ({"layers": 0}, "layers = 0: must be an integer >= 1"),
        ({"softmax": {"unit": True}}, "bias = true needs softmax.unit = false"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")


def test_the_recipe_holds_the_published_options() -> None:
    assert config.load("bert4rec").model_config() == Config()
