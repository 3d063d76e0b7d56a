"""Fossil's two sums by hand and against the paper's formula item by item."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec import config, randomness
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.fossil import Config, Model, weighted

V, L = 8, 6


def build(width: int = 3, **options) -> Model:
    options = {"width": width, "softmax": {"loss": "bpr"}} | options
    made = config.convert(options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))
        torch.nn.init.normal_(model.eta)
        torch.nn.init.normal_(model.items.weight.data[1:, -1])
    return model


def test_weighted_last_items_by_hand() -> None:
    """Vectors 1, 10, 100, 1000 and eta = (2, 3): each twice, the one before it three times."""
    vectors = torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]])
    got = weighted(vectors, torch.tensor([2.0, 3.0]))
    assert got[0, :, 0].tolist() == [2.0, 23.0, 230.0, 2300.0]
    longer = weighted(vectors[:, :1], torch.tensor([2.0, 3.0]))  # an order beyond the history
    assert longer[0, :, 0].tolist() == [2.0]


def test_score_by_hand() -> None:
    """History 1, 2, 1 with d = 1, P = (1, 4, 7), Q = (2, 1, -1), beta = (0.5, 0, 3), alpha = 1/2,
    eta = (10, 100).

    Items 1 and 2 in all: (1 + 4) / sqrt 2; the last is 1, before it 2: 10 * 1 + 100 * 4 = 410.
    """
    model = build(width=1, order=2, alpha=0.5)
    model.seen.weight.data[:4] = torch.tensor([[0.0], [1.0], [4.0], [7.0]])
    model.items.weight.data[:4] = torch.tensor([[0.0, 0.0], [2.0, 0.5], [1.0, 0.0], [-1.0, 3.0]])
    model.eta.data = torch.tensor([10.0, 100.0])
    got = model.scores(torch.tensor([[1, 2, 1]]), torch.zeros(1, 0, 2))[0, 1:4]
    user = 5 / 2**0.5 + 410
    assert got.tolist() == pytest.approx([2 * user + 0.5, user, 3 - user], rel=1e-6)


@given(
    items=st.lists(st.integers(1, V - 1), min_size=1, max_size=L),
    order=st.integers(1, 8),
    alpha=st.floats(0, 1),
)
def test_every_position_is_the_formula(items: list[int], order: int, alpha: float) -> None:
    model = build(order=order, alpha=alpha)
    history = torch.tensor([[0] * (L - len(items)) + items])
    states = model.states(history)[0, L - len(items) :]
    got = (states @ model.item_vectors().T).detach().numpy()
    p, q, eta = (
        w.detach().double().numpy() for w in (model.seen.weight, model.items.weight, model.eta)
    )
    for t in range(len(items)):
        past = items[: t + 1]
        distinct = set(past)
        user = sum(p[i] for i in distinct) / len(distinct) ** alpha
        for k, i in enumerate(reversed(past[-order:])):
            user = user + eta[k] * p[i]
        for j in range(1, V):
            assert got[t, j] == pytest.approx(q[j, -1] + user @ q[j, :-1], abs=1e-4)


def test_an_empty_history_is_ranked_by_bias() -> None:
    model = build()
    got = model.scores(torch.zeros(1, L, dtype=torch.int64), torch.zeros(1, 0, 4))
    torch.testing.assert_close(got[0], model.items.weight[:, -1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("options.order=0", "order = 0: must be an integer >= 1"),
        ("options.alpha=1.2", "alpha = 1.2: must be a number >= 0 and <= 1"),
        ("options.softmax.unit=true", "softmax.unit must be false"),
        ("negatives.kind=none", "set negatives.kind"),
    ],
)
def test_wrong_options_fail_at_load(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load("fossil", [override])
