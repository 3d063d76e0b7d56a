"""Caser's filters by hand and against the official layout window by window; its T targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.caser import Config, Filters, Model

V, L = 12, 6


def build(**options) -> Model:
    options = {"width": 4, "horizontal": 3, "vertical": 2, "softmax": {"loss": "bce"}} | options
    made = config.convert(options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))
        for weight in (model.image.weight, model.items.weight):
            torch.nn.init.normal_(weight.data[1:])  # 1/d is too small to see anything
    return model.eval()


def test_filters_by_hand() -> None:
    """order 2, d = 2, history a = (1, 2), b = (3, -1), one filter of each kind.

    Vertical weights 10 (older) and 1 (last), bias 0.5: at a, where nothing is older, (1, 2) + 0.5;
    at b 10 a + b = (13, 19), + 0.5.
    Height 1, weights (1, 1), bias -1: at a the place before it gives relu(-1) = 0 and a relu(2);
    at b a gives 2, b relu(1) = 1: the largest is 2 both times.
    Height 2, older (1, 0), last (0, -1), bias 0: at a relu(0 - 2) = 0; at b relu(1 + 1) = 2.
    """
    filters = Filters(width=2, order=2, horizontal=1, vertical=1)
    assert filters.outputs == 2 + 2
    values = {
        "vertical.weight": [[[10.0, 1.0]]],
        "vertical.bias": [0.5],
        "horizontal.0.weight": [[[1.0], [1.0]]],
        "horizontal.0.bias": [-1.0],
        "horizontal.1.weight": [[[1.0, 0.0], [0.0, -1.0]]],
        "horizontal.1.bias": [0.0],
    }
    filters.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    got = filters(torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]))
    assert got[0].tolist() == [[1.5, 2.5, 2.0, 0.0], [13.5, 19.5, 2.0, 2.0]]


@given(
    items=st.lists(st.integers(1, V - 1), min_size=1, max_size=L),
    order=st.integers(1, 7),
    kinds=st.sampled_from([(3, 2), (0, 2), (3, 0)]),
)
def test_filters_against_loops_over_windows(
    items: list[int], order: int, kinds: tuple[int, int]
) -> None:
    """The paper's image of every position, cut out by itself, every filter place by place."""
    n_h, n_v = kinds
    model = build(order=order, horizontal=n_h, vertical=n_v)
    history = torch.tensor([[0] * (L - len(items)) + items])
    got = model.filters(model.image(history))[0].detach().numpy()
    table = model.image.weight.detach().numpy()
    layers = [[w.detach().numpy() for w in conv.parameters()] for conv in model.filters.horizontal]
    for t in range(L):
        window = [0] * order + history[0, : t + 1].tolist()
        image = table[window[-order:]]  # [order, d]
        want: list[float] = []
        if model.filters.vertical is not None:
            given = [p.detach().numpy() for p in model.filters.vertical.parameters()]
            weight, bias = given[0][:, 0], given[1]
            for v in range(n_v):
                want += [float(weight[v] @ image[:, c] + bias[v]) for c in range(4)]
        for height, (weight, bias) in enumerate(layers, 1):
            for h in range(n_h):
                places = [
                    max(0.0, float((weight[h].T * image[s : s + height]).sum() + bias[h]))
                    for s in range(order - height + 1)
                ]
                want.append(max(places))
        np.testing.assert_allclose(got[t], want, atol=1e-4)


def test_the_query_is_z_the_user_and_a_one() -> None:
    model, history = build(order=3), torch.tensor([[0, 0, 4, 9, 4, 2]])
    query = model.encode(history, torch.zeros(1, 0, model.width))[0, 0]
    assert model.width == 9 and float(query[-1].detach()) == 1
    found = model.filters(model.image(history))[0, -1]
    torch.testing.assert_close(query[:4], (model.mix.weight @ found + model.mix.bias).clamp_min(0))
    users = model.taste.items.weight
    torch.testing.assert_close(query[4:8], (users[4] + users[9] + users[2]) / 3)
    nobody = build(order=3, user="none")
    assert nobody.width == 5 and not hasattr(nobody, "taste")
    older = torch.tensor([[1, 7, 5, 9, 4, 2]])  # the last three are the same
    same = [nobody.encode(h, torch.zeros(1, 0, 5)) for h in (history, older)]
    torch.testing.assert_close(*same)


def batch(private: bool) -> SequenceBatch:
    """Two windows, the first with two places of padding."""
    history = torch.tensor([[0, 0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10]])
    targets = torch.tensor([[0, 0, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])
    rng = torch.Generator().manual_seed(0)
    shape = (2, L, 3) if private else (3,)
    negatives = torch.randint(0 if private else 1, V, shape, generator=rng)
    return SequenceBatch(history, targets, negatives, torch.zeros(shape))


@pytest.mark.parametrize("ahead", [1, 3, 9])
@pytest.mark.parametrize("private", [False, True])
def test_the_loss_is_over_the_next_items(ahead: int, private: bool) -> None:
    """BCE pair by pair: position p, its target p + t and the negatives drawn for that target."""
    model, data = build(ahead=ahead, dropout=0.0), batch(private)
    states = model.states(data.history).detach().double().numpy()
    table = model.item_vectors().detach().double().numpy()
    costs = []
    for b in range(2):
        for p in range(L):
            for t in range(ahead):
                if data.history[b, p] == 0 or p + t >= L or data.targets[b, p + t] == 0:
                    continue
                target = int(data.targets[b, p + t])
                drawn = data.negatives[b, p + t] if private else data.negatives
                cost = math.log(1 + math.exp(-states[b, p] @ table[target]))
                for j in drawn.tolist():
                    if j not in (0, target):
                        cost += math.log(1 + math.exp(states[b, p] @ table[j]))
                costs.append(cost / 4)
    want = np.mean(costs)
    assert len(costs) == {1: 10, 3: 10 + 8 + 6, 9: 10 + 8 + 6 + 4 + 2 + 1}[ahead]
    got = model.loss(data, torch.Generator())
    assert float(got.parts["bce"].detach()) == pytest.approx(want, rel=1e-4)


def test_the_future_is_not_seen() -> None:
    model = build()
    one, other = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 3, 9, 8, 7]])
    torch.testing.assert_close(model.states(one)[:, :3], model.states(other)[:, :3])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["options.order=0"], "order = 0: must be an integer >= 1"),
        (["options.ahead=0"], "ahead = 0: must be an integer >= 1"),
        (["options.dropout=2.0"], "dropout = 2.0: must be a number >= 0 and < 1"),
        (["options.horizontal=0", "options.vertical=0"], "one of them must be at least 1"),
        (["options.softmax.unit=true"], "softmax.unit must be false"),
        (["negatives.kind=none"], "set negatives.kind"),
    ],
)
def test_wrong_options_fail_at_load(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load("caser", overrides)


def test_the_defaults_are_published_and_the_recipe_has_them() -> None:
    made = config.load("caser").model_config()
    assert made == Config()
    assert (made.width, made.order, made.ahead, made.horizontal, made.vertical) == (50, 5, 3, 16, 4)
