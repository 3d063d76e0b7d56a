"""Mult-VAE's own maths: KL, multinomial and bag by hand, annealing, its two readings."""

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.multvae import Config, Model, first_seen, kl_divergence, multinomial
from dimerec.nn.transformer import dropout

V, L = 20, 5
NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


def build(**options) -> Model:
    made = config.convert({"latent": 3, "hidden": 4} | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))
        for weight in (model.bias.data, model.items.weight.data[1:, -1]):
            torch.nn.init.normal_(weight)
    return model.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> SequenceBatch:
    items = torch.randint(1, V, (3, L + 1), generator=generator())
    items[1, :2] = 0
    items[2, 1] = items[2, 4]
    targets = torch.where(items[:, :-1] > 0, items[:, 1:], 0)
    return SequenceBatch(items[:, :-1], targets, *NONE)


def test_kl_by_hand() -> None:
    """z of width 2: means 1 and -2, variances 1 and 4.

    1/2 (1 + 1 - 1 - log 1) + 1/2 (4 + 4 - 1 - log 4) = 0.5 + 3.5 - log 2.
    """
    mean, variance = torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.tensor([[1.0, 4.0], [1.0, 1.0]])
    got = kl_divergence(mean, variance.log())
    assert got.tolist() == pytest.approx([4 - math.log(2), 0.0], abs=1e-6)


def test_multinomial_by_hand() -> None:
    """Items 1, 2, 3 with exponentials 1, 2 and 5; padding's logit counts nowhere.

    The bag {1, 3}: log(1/8) + log(5/8). The bag {2}, which holds 2 twice: log(2/8).
    """
    logits = torch.tensor([[9.0, 0.0, math.log(2), math.log(5)]] * 2)
    items = torch.tensor([[0, 1, 3], [0, 2, 2]])
    got = multinomial(logits, items, first_seen(items))
    assert got.tolist() == pytest.approx([math.log(5 / 64), math.log(1 / 4)], rel=1e-6)


@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4))
def test_an_item_is_new_where_it_stands_first(rows: list[list[int]]) -> None:
    rows = [[0] * row.count(0) + [i for i in row if i] for row in rows]
    want = [[i > 0 and i not in row[:at] for at, i in enumerate(row)] for row in rows]
    assert first_seen(torch.tensor(rows)).tolist() == want


def test_a_bag_by_hand() -> None:
    """Rows (1, 2), (3, -1): after items 1, 2, 1 the bag is {1, 2}, scaled by 1 / sqrt 2."""
    model = build(hidden=2)
    with torch.no_grad():
        model.rows.weight[1:3] = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    got = model.bags(torch.tensor([[0, 1, 2, 1]]))[0]
    root = math.sqrt(2)
    want = [[0, 0], [1, 2], [4 / root, 1 / root], [4 / root, 1 / root]]
    torch.testing.assert_close(got, torch.tensor(want).float())


def test_bags_are_the_dense_layer_on_the_dropped_unit_vector() -> None:
    """The paper's way: a vector of length 1 over all items, dropped, times a matrix."""
    model, history = build(dropout=0.4), batch().history
    got = model.bags(history, generator(3))
    keep = dropout(first_seen(history).float(), 0.4, generator(3)).numpy()
    assert (keep == 0).sum() > int((history == 0).sum())
    weight = model.rows.weight.detach().double().numpy()
    for row in range(len(history)):
        for stop in range(L):
            x, kept = np.zeros(V), np.zeros(V)
            for at in range(stop + 1):
                item = int(history[row, at])
                if item and not x[item]:
                    x[item], kept[item] = 1, keep[row, at]
            x = x / max(np.linalg.norm(x), 1) * kept
            assert got[row, stop].tolist() == pytest.approx((x @ weight).tolist(), abs=1e-5)


def test_order_and_repeats_do_not_matter() -> None:
    model = build()
    queries = model.encode(torch.tensor([[0, 0, 3, 1, 7], [1, 7, 7, 3, 3]]), torch.zeros(2, 0, 5))
    torch.testing.assert_close(queries[0], queries[1])


@pytest.mark.parametrize("hidden", [0, 4])
def test_scores_are_the_decoder_at_the_mean(hidden: int) -> None:
    """tanh, linear, mean, linear, tanh, linear with bias, as dense layers written out."""
    model, history = build(hidden=hidden), torch.tensor([[0, 0, 2, 9, 2]])
    x = torch.zeros(V)
    x[[2, 9]] = 1 / math.sqrt(2)
    state = dict(model.named_parameters())
    h = x @ state["rows.weight"] + state["bias"]
    if hidden:
        h = torch.tanh(h) @ state["encoder.weight"].T + state["encoder.bias"]
    z = h[:3]
    if hidden:
        z = torch.tanh(z @ state["decoder.weight"].T + state["decoder.bias"])
    table = state["items.weight"]
    want = z @ table[:, :-1].T + table[:, -1]
    torch.testing.assert_close(model.scores(history, torch.zeros(1, 0, 5))[0], want)
    assert model.width == (hidden or 3) + 1


def test_the_next_item_is_one_draw_at_every_position() -> None:
    """-log p(target | bag before it) and the KL of that bag, the means over all targets."""
    model, data = build(dropout=0.0), batch()
    parts = model.loss(data, generator(5)).parts
    at = data.targets > 0
    mean, log_variance = model.posterior(model.bags(data.history)[at])
    noise = torch.randn(mean.shape, generator=generator(5))
    z = mean + noise * log_variance.exp().sqrt()
    logits = model.query(z) @ model.items.weight[1:].T
    want = torch.nn.functional.cross_entropy(logits, data.targets[at] - 1)
    torch.testing.assert_close(parts["multinomial"], want)
    torch.testing.assert_close(parts["kl"], kl_divergence(mean, log_variance).mean())


def test_a_window_is_rebuilt_whole() -> None:
    """-sum of log p over the distinct items of history and last target, the mean over windows."""
    model, data = build(predict="window", dropout=0.0), batch()
    parts = model.loss(data, generator(5)).parts
    window = torch.cat([data.history, data.targets[:, -1:]], 1)
    mean, log_variance = model.posterior(model.bags(window)[:, -1])
    z = mean + torch.randn(mean.shape, generator=generator(5)) * log_variance.exp().sqrt()
    log_p = (model.query(z) @ model.items.weight[1:].T).log_softmax(1)
    total = 0.0
    for row, items in enumerate(window.tolist()):
        total -= sum(float(log_p[row, i - 1].detach()) for i in set(items) - {0})
    assert float(parts["multinomial"].detach()) == pytest.approx(total / 3, rel=1e-5)
    torch.testing.assert_close(parts["kl"], kl_divergence(mean, log_variance).mean())


def test_windows_are_learned_by_heart() -> None:
    """Bags of two kinds: after training each kind's items come first for one who had half."""
    model = build(predict="window", latent=4, hidden=8)
    items = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])
    data = SequenceBatch(items[:, :-1], items[:, 1:], *NONE)
    adam = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(150):
        losses = model.loss(data, generator(step))
        adam.zero_grad()
        losses.total.backward()
        adam.step()
    found = model.scores(torch.tensor([[2, 4], [9, 7]]), torch.zeros(2, 0, 9)).topk(6).indices
    assert [sorted(row) for row in found.tolist()] == items.tolist()


def test_beta_grows_with_the_steps_up_to_its_cap() -> None:
    """0.2 after 20 of 100 steps; a loss that is not differentiated is no step."""
    model = build(beta=0.2, anneal_steps=100)
    seen = []
    for step in range(25):
        model.loss(batch(), generator(step))
        losses = model.loss(batch(), generator(step))
        seen.append(losses.weights["kl"])
        parts = {name: float(part.detach()) for name, part in losses.parts.items()}
        want = parts["multinomial"] + seen[-1] * parts["kl"]
        assert float(losses.total.detach()) == pytest.approx(want, rel=1e-6)
        losses.total.backward()
    assert seen == pytest.approx([min(0.2, s / 100) for s in range(25)])
    with torch.no_grad():
        model.loss(batch(), generator())
    assert int(model.step) == 25
    assert build(beta=0.2, anneal_steps=0).beta == 0.2


def test_the_step_goes_through_files(tmp_path: Path) -> None:
    model = build()
    model.loss(batch(), generator()).total.backward()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    again = build()
    again.load_tensors(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    assert int(again.step) == 1 and again.beta == 1 / 200_000


def test_recommending_is_deterministic_and_training_is_not() -> None:
    model, history = build().train(), batch().history
    noise = torch.zeros(3, 0, 5)
    assert torch.equal(model.encode(history, noise), model.encode(history, noise))
    losses = [float(model.loss(batch(), generator(s)).total.detach()) for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 2.0}, "dropout = 2.0: must be a number >= 0 and < 1"),
        ({"latent": 0}, "latent = 0: must be an integer >= 1"),
        ({"beta": -0.1}, "beta = -0.1: must be a number >= 0"),
        ({"anneal_steps": -1}, "anneal_steps = -1"),
        ({"predict": "past"}, "must be one of 'next', 'window'"),
        ({"softmax": {"unit": True}}, "softmax.unit must be false"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")
