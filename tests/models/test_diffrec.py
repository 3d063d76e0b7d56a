"""DiffRec's own maths: vectors, schedule, weights and chain by hand, and against dense layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.diffrec import (
    Config,
    Model,
    alpha_bar,
    one_hot_error,
    posterior,
    steps_up,
)
from dimerec.nn.transformer import dropout

V, L = 20, 5
NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
SMALL = {"dims": [3, 4], "steps": 6, "noise_scale": 0.5, "noise_min": 0.1, "noise_max": 0.9}


def build(**options) -> Model:
    made = config.convert(SMALL | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.5)
        for table in (model.items, model.rows):
            table.weight.data[0] = 0
    return model.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> SequenceBatch:
    items = torch.randint(1, V, (3, L + 1), generator=generator())
    items[1, :2] = 0
    items[2, 1] = items[2, 4]
    targets = torch.where(items[:, :-1] > 0, items[:, 1:], 0)
    return SequenceBatch(items[:, :-1], targets, *NONE)


def vector(model: Model, items: list[int]) -> Tensor:
    """x of a history, item by item: np.linspace(w_min, w_max, n), the last time counting."""
    items, made = [i for i in items if i], torch.zeros(V)
    low, high = model.config.w_min, model.config.w_max
    for k, item in enumerate(items):
        made[item] = low + (high - low) * k / max(len(items) - 1, 1)
    return made


def network(model: Model, x: Tensor, t: int) -> Tensor:
    """The MLP on [x, emb(t)], written with the state's tensors: scores of all items."""
    state = dict(model.named_parameters())
    frequency = [10_000 ** (-i / 5) for i in range(5)]
    angle = [(t - 1) * f for f in frequency]
    embedded = torch.tensor([*map(math.cos, angle), *map(math.sin, angle)])
    embedded = state["step_in.weight"] @ embedded + state["step_in.bias"]
    first = torch.cat([state["rows.weight"].T, state["step_out.weight"]], 1)
    h = torch.tanh(first @ torch.cat([x, embedded]) + state["step_out.bias"])
    for i in range(len(model.inner)):
        h = torch.tanh(state[f"inner.{i}.weight"] @ h + state[f"inner.{i}.bias"])
    table = state["items.weight"]
    return table[:, :-1] @ h + table[:, -1]


def test_alpha_bar_by_hand() -> None:
    """T = 3, scale 0.5, min 0.2, max 0.6: 1 - alpha-bar is to be 0.1, 0.2 and 0.3.

    beta_2 = 1 - 0.8 / 0.9, beta_3 = 1 - 0.7 / 0.8, and beta_1 = 1e-5 in the place of 0.1.
    """
    made = Config(steps=3, noise_scale=0.5, noise_min=0.2, noise_max=0.6)
    want = [1.0, 0.99999, 0.99999 * 8 / 9, 0.99999 * 7 / 9]
    assert alpha_bar(made).tolist() == pytest.approx(want, rel=1e-12)


def test_posterior_by_hand() -> None:
    """alpha-bar 1, 0.9, 0.5: beta_2 = 4/9, and sqrt(0.9) * 4/9 / 0.5 and sqrt(5/9) * 0.1 / 0.5.

    Step 1 goes to x_0 itself.
    """
    abar = torch.tensor([1.0, 0.9, 0.5], dtype=torch.float64)
    assert posterior(abar, 2) == pytest.approx((0.8432740427, 0.1490711985))
    assert posterior(abar, 1) == pytest.approx((1.0, 0.0))


def test_the_weight_of_a_step_is_what_the_noise_ratio_loses_in_it() -> None:
    """alpha-bar 1, 0.99999, 0.99999 * 8/9 = 0.888880: ratios 99999 and 7.99919."""
    options = {"steps": 2, "noise_scale": 0.5, "noise_min": 0.2, "noise_max": 0.4}
    got = build(**options).weight
    assert got[1:].tolist() == pytest.approx([1.0, 99999 - 7.99919], rel=1e-6)
    assert build(**options, reweight=False).weight.tolist() == [1, 1, 1]


def test_the_vector_of_a_history_by_hand() -> None:
    """From 0.1 to 1 over 4 items: 0.1, 0.4, 0.7, 1; the item met twice has its last weight."""
    model = build(w_min=0.1, w_max=1.0)
    got = model.vector(torch.tensor([[0, 7, 3, 7, 2], [0, 0, 0, 0, 9]]))
    want = torch.zeros(2, V)
    want[0, 3], want[0, 7], want[0, 2], want[1, 9] = 0.4, 0.7, 1.0, 0.1
    torch.testing.assert_close(got, want)
    plain = build().vector(torch.tensor([[0, 7, 3, 7, 2]]))
    assert plain.nonzero()[:, 1].tolist() == [2, 3, 7] and float(plain.sum()) == 3


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4))
def test_places_rise_to_the_last_time(rows: list[list[int]]) -> None:
    rows = [[0] * row.count(0) + [i for i in row if i] for row in rows]
    gain, first = steps_up(torch.tensor(rows))
    for row, rise, new in zip(rows, gain.tolist(), first.tolist(), strict=True):
        items = [i for i in row if i]
        for item in {*items}:
            places = [at for at, i in enumerate(row) if i == item]
            last = len(items) - 1 - items[::-1].index(item)
            assert sum(rise[at] for at in places) == last
            assert [new[at] for at in places] == [1] + [0] * (len(places) - 1)
        assert not any(rise[at] or new[at] for at, i in enumerate(row) if not i)


@pytest.mark.parametrize("w_min", [0.1, 1.0])
def test_bags_are_the_dense_layer_on_every_prefix(w_min: float) -> None:
    model, history = build(w_min=w_min), batch().history
    kept = dropout(torch.ones(3, V), 0.5, generator())
    got = model.bags(history, kept)
    for row in range(3):
        for stop in range(L):
            x = vector(model, history[row, : stop + 1].tolist()) * kept[row]
            torch.testing.assert_close(got[row, stop], x @ model.rows.weight, atol=1e-5, rtol=1e-5)


def test_the_expanded_error_is_the_plain_one() -> None:
    queries = torch.randn(6, 5, generator=generator())
    table = torch.randn(V, 5, generator=generator(1))
    table[0] = 0
    targets = torch.randint(1, V, (6,), generator=generator(2))
    want = (queries @ table.T - F.one_hot(targets, V))[:, 1:].square().mean(1)
    torch.testing.assert_close(one_hot_error(queries, table, targets), want)


def test_the_chain_by_hand() -> None:
    """One item, T = 2, no embedding; the network answers 2 x, so x_0-hat = 2 x every time.

    The history is x_2 = 1. alpha-bar = 1, 0.99999, 0.99999 * 0.6 / 0.8 = 0.7499925. Step 2:
    x_1 = 2 * sqrt(0.99999) * 0.25 / 0.2500075 + sqrt(0.75) * 1e-5 / 0.2500075 = 1.9999646.
    Step 1 answers x_0 = 2 x_1 = 3.9999292.
    """
    model = build(
        dims=[1], steps=2, noise_scale=1.0, noise_min=0.2, noise_max=0.4, predict="window"
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.rows.weight[5], model.items.weight[5, 0] = 1, 2
    model.query = lambda x: F.pad(x, (0, 1), value=1.0)  # without the tanh
    got = model.scores(torch.tensor([[0, 0, 5]]), torch.zeros(1, 0, 2))[0].detach()
    assert float(got[5]) == pytest.approx(3.9999292, rel=1e-6)
    assert not bool(got[torch.arange(V) != 5].any())


@pytest.mark.parametrize("corrupted", [0, 4])
def test_a_window_is_run_back_as_dense_vectors(corrupted: int) -> None:
    """All T steps from x_T', whatever T' is, with vectors over all items and plain means."""
    model = build(predict="window", corrupted=corrupted, w_min=0.1)
    history = torch.tensor([[0, 3, 8, 3, 2]])
    noise = torch.randn(1, model.noise_draws, model.width, generator=generator())
    assert noise.shape[1] == (4 if corrupted else 0)
    abar, x = alpha_bar(model.config), vector(model, history[0].tolist())
    if corrupted:
        dense = noise.flatten()[:V].clone()
        dense[0] = 0
        x = float(abar[corrupted]) ** 0.5 * x + (1 - float(abar[corrupted])) ** 0.5 * dense
    for t in range(6, 0, -1):
        on_x0, on_xt = posterior(abar, t)
        x = on_x0 * network(model, x, t) + on_xt * x
    torch.testing.assert_close(model.scores(history, noise)[0], x, atol=1e-5, rtol=1e-4)
    assert dict(model.sampling) == {"samples": 1, "steps": 6}


@pytest.mark.parametrize(("corrupted", "t"), [(0, 1), (1, 1), (3, 3)])
def test_the_next_item_is_asked_for_once(corrupted: int, t: int) -> None:
    model = build(corrupted=corrupted)
    history = torch.tensor([[0, 3, 8, 3, 2]])
    noise = torch.randn(1, model.noise_draws, model.width, generator=generator())
    x = vector(model, history[0].tolist())
    if corrupted:
        dense = noise.flatten()[:V].clone()
        dense[0] = 0
        x = model.signal[t] * x + model.spread[t] * dense
    torch.testing.assert_close(model.scores(history, noise)[0], network(model, x, t))
    assert dict(model.sampling) == {}


@pytest.mark.parametrize("predict", ["next", "window"])
@pytest.mark.parametrize(("w_min", "remembered"), [(0.1, False), (1.0, True)])
def test_the_loss_against_dense_vectors(predict: str, w_min: float, remembered: bool) -> None:
    """One example at a time: noise, dropout, MLP, squared error, the weight and odds of t."""
    model, data = build(predict=predict, w_min=w_min, dropout=0.4), batch()
    if remembered:
        model.sampler.drawn += 10
        model.sampler.recent += torch.arange(1, 7).unsqueeze(1)
    got = model.loss(data, generator(5)).parts["squared"]
    rng = generator(5)
    t, odds = model.sampler.draw(3, rng)
    assert (len(set(odds.tolist())) > 1) == remembered
    noise = torch.randn(3, V, generator=rng)
    noise[:, 0] = 0
    kept = dropout(torch.ones(3, V), 0.4, rng)
    abar, costs = alpha_bar(model.config), []
    window = torch.cat([data.history, data.targets[:, -1:]], 1)
    for row, step in enumerate(t.tolist()):
        a, b = float(abar[step]), float(abar[step - 1])
        weight = 1.0 if step == 1 else b / (1 - b) - a / (1 - a)
        cases = [(vector(model, window[row].tolist()),) * 2]
        if predict == "next":
            cases = [
                (
                    vector(model, data.history[row, : at + 1].tolist()),
                    F.one_hot(data.targets[row, at], V),
                )
                for at in range(L)
                if data.targets[row, at]
            ]
        for x0, wanted in cases:
            x = kept[row] * (a**0.5 * x0 + (1 - a) ** 0.5 * noise[row])
            error = (network(model, x, step) - wanted)[1:].square().mean()
            costs.append(weight / float(odds[row]) * float(error.detach()))
    assert float(got.detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-4)


def test_losses_are_remembered_when_they_are_learned_from() -> None:
    """Once a backward pass: each window's mean over its positions, under its step."""
    model, data = build(dropout=0.0), batch()
    model.loss(data, generator(5))
    assert not bool(model.sampler.drawn.any())
    losses = model.loss(data, generator(5))
    losses.total.backward()
    t = torch.randint(1, 7, (3,), generator=generator(5))
    assert len(set(t.tolist())) == 3, "choose another seed: one step a window"
    assert torch.equal(model.sampler.drawn, torch.bincount(t - 1, minlength=6))
    positions = (data.targets > 0).sum(1)
    together = (model.sampler.recent.sum(1)[t - 1] * positions).sum() / positions.sum()
    assert float(together) == pytest.approx(float(losses.total.detach()), rel=1e-5)
    one = SequenceBatch(data.history[:1], data.targets[:1], *NONE)
    model = build(dropout=0.0)
    losses = model.loss(one, generator(6))
    losses.total.backward()
    assert float(model.sampler.recent.sum()) == pytest.approx(float(losses.total.detach()))
    assert {"sampler.recent", "sampler.drawn"} <= model.state_dict().keys()


def test_the_shared_losses() -> None:
    model, data = build(loss="softmax", dropout=0.0, reweight=False), batch()
    parts = model.loss(data, generator(5)).parts
    assert set(parts) == {"softmax"} and bool(parts["softmax"].isfinite())
    bpr = build(loss="softmax", softmax={"loss": "bpr"})
    with pytest.raises(ConfigError, match="negatives"):
        bpr.loss(data, generator(5))
    drawn = SequenceBatch(data.history, data.targets, torch.arange(1, 9), torch.zeros(8))
    assert set(bpr.loss(drawn, generator(5)).parts) == {"bpr"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corrupted": 41}, "corrupted = 41 must be in 0..T = 40"),
        ({"steps": 0}, "steps = 0: must be an integer >= 1"),
        ({"dims": []}, "must be a list of at least 1, each an integer >= 1"),
        ({"dims": [0]}, "dims.0 = 0: must be an integer >= 1"),
        ({"dropout": 1.0}, "dropout = 1.0: must be a number >= 0 and < 1"),
        ({"noise_min": 0.02}, "noise_min = 0.02 must be at most noise_max = 0.01"),
        ({"noise_scale": 100.0}, "noise_scale = 100 must be below 1 / noise_max = 100"),
        ({"noise_scale": 0.0}, "noise_scale = 0.0: must be a number > 0"),
        ({"w_min": 0.5, "w_max": 0.4}, "w_min = 0.5 must be at most w_max = 0.4"),
        ({"predict": "window", "loss": "softmax"}, 'needs loss = "squared"'),
        ({"softmax": {"temperature": 0.1}}, 'softmax is read with loss = "softmax" alone'),
        ({"loss": "softmax", "softmax": {"unit": True}}, "softmax.unit must be false"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")


def test_the_recipes_are_the_published_ml_1m_command_but_for_the_widths() -> None:
    plain, aged = (config.load(name).model_config() for name in ("diffrec", "tdiffrec"))
    assert plain == Config(dims=(64,))
    assert aged == Config(dims=(64,), w_min=0.1, w_max=1.0)
