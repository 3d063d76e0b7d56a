"""GRU4Rec's own maths: its cell and BPR-max by hand, its sampler, padding, the carried dropout."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.gru4rec import (
    Config,
    Model,
    PopularitySampler,
    Recurrent,
    bpr_max_loss,
    joined,
)
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig
from dimerec.nn.transformer import dropout

V, L, D = 20, 5, 4
NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


def build(**options) -> Model:
    made = config.convert({"width": D, "samples": 0} | options, Config, "options")
    counts = torch.arange(float(V)).remainder(7)
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=counts))
        if made.bias:
            torch.nn.init.normal_(model.items.weight.data[1:, -1])
    return model.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> SequenceBatch:
    items = torch.randint(1, V, (3, L + 1), generator=generator())
    items[1, :2] = 0
    targets = torch.where(items[:, :-1] > 0, items[:, 1:], 0)
    return SequenceBatch(items[:, :-1], targets, *NONE)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("rate", [0.0, 1e-9])  # PyTorch's layer, and the loop beside it
def test_two_steps_of_the_cell_by_hand(rate: float) -> None:
    """Width 1, inputs 1 and -2, a zero state before them.

    r1 = sigmoid(1), z1 = sigmoid(-1 + 0.5), n1 = tanh(2 + 0.1 + 0.7310586 * 0.2) = 0.9778608,
    h1 = (1 - 0.3775407) * 0.9778608 = 0.6086786;
    r2 = sigmoid(-2 + 0.5 * 0.6086786), z2 = sigmoid(2 + 0.5 + 0.6086786),
    n2 = tanh(-4 + 0.1 + 0.1550329 * (-0.6086786 + 0.2)) = -0.9992783,
    h2 = (1 - 0.9572493) * -0.9992783 + 0.9572493 * 0.6086786 = 0.5399373.
    """
    layer = Recurrent(1)
    values = [[[1.0], [-1.0], [2.0]], [[0.5], [1.0], [-1.0]], [0.0, 0.5, 0.1], [0.0, 0.0, 0.2]]
    for weight, value in zip(layer.gru.parameters(), values, strict=True):
        weight.data = torch.tensor(value)
    got = layer(torch.tensor([[[1.0], [-2.0]]]), rate, generator())
    want = [0.6086786, 0.5399373]
    assert got[0, :, 0].tolist() == pytest.approx(want, abs=1e-5)


def test_a_dropped_state_is_the_one_that_is_carried() -> None:
    """Against the equations, one number at a time, with the same masks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, x = Recurrent(3), torch.randn(2, 4, 3)
        for bias in list(layer.gru.parameters())[2:]:
            torch.nn.init.normal_(bias)
    got = layer(x, 0.5, generator(1))
    keep = dropout(torch.ones(2, 4, 3), 0.5, generator(1)).numpy()
    assert 0 < (keep == 0).sum() < keep.size
    w, u, b, c = (p.detach().double().numpy() for p in layer.gru.parameters())
    for row in range(2):
        h = np.zeros(3)
        for step in range(4):
            inner, outer = w @ x[row, step].double().numpy() + b, u @ h + c
            new = np.zeros(3)
            for i in range(3):
                r = sigmoid(inner[i] + outer[i])
                z = sigmoid(inner[3 + i] + outer[3 + i])
                n = math.tanh(inner[6 + i] + r * outer[6 + i])
                new[i] = ((1 - z) * n + z * h[i]) * keep[row, step, i]
            h = new
            assert got[row, step].tolist() == pytest.approx(h.tolist(), abs=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_states_are_zero_at_padding_and_what_they_are_without(layers: int) -> None:
    model = build(layers=layers)
    with torch.no_grad():
        for name, weight in model.layers.named_parameters():
            if "bias" in name:
                weight.fill_(0.3)  # padding would move the state
    tight, padded = torch.tensor([[3, 7, 7]]), torch.tensor([[0, 0, 3, 7, 7]])
    got = model.states(padded)
    assert not bool(got[:, :2].any()) and bool(got[:, 2:].all())
    torch.testing.assert_close(got[:, 2:], model.states(tight))
    together = model.states(torch.tensor([[0, 0, 3, 7, 7], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]]))
    torch.testing.assert_close(together[:1], got)
    assert not bool(together[2].any())


def test_the_future_is_not_seen_and_the_past_is() -> None:
    model = build()
    a, b = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 9, 8]])
    torch.testing.assert_close(model.states(a)[:, :3], model.states(b)[:, :3])
    c = torch.tensor([[7, 2, 3, 4, 5]])
    assert float((model.states(a) - model.states(c))[:, -1].abs().max().detach()) > 1e-4


@pytest.mark.parametrize("constrained", [True, False])
def test_an_item_scores_by_state_and_bias(constrained: bool) -> None:
    model, history = build(constrained=constrained), batch().history
    table = model.items.weight.detach()
    assert constrained == (not hasattr(model, "inputs"))
    state = model.states(history)[:, -1]
    want = state @ table[:, :D].T + table[:, D]
    torch.testing.assert_close(model.scores(history, torch.zeros(3, 0, 5)), want)
    before = state.detach()
    with torch.no_grad():
        model.items.weight[1:] += 1
    moved = not torch.allclose(model.states(history)[:, -1], before)
    assert moved == constrained, "the output table is the input's only when constrained"


def test_cross_entropy_is_that_of_all_items_but_padding() -> None:
    model, data = build(), batch()
    got = model.loss(data, generator()).total
    at = data.targets > 0
    table = model.items.weight
    logits = model.states(data.history)[at] @ table[1:, :D].T + table[1:, D]
    torch.testing.assert_close(got, F.cross_entropy(logits, data.targets[at] - 1))


def test_dropout_is_on_while_training_and_drawn_from_the_generator() -> None:
    model = build(dropout_embedding=0.3, dropout_hidden=0.3)
    losses = [float(model.loss(batch(), generator(s)).total.detach()) for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    noise = torch.zeros(3, 0, 5)
    assert torch.equal(model.encode(batch().history, noise), model.encode(batch().history, noise))


def table_of(first: list[float]) -> ItemEmbedding:
    """Items whose score with the query (1, 0) is `first`."""
    items = ItemEmbedding(len(first), 2)
    with torch.no_grad():
        items.weight.copy_(torch.tensor([[x, 5.0] for x in first]))
        items.weight[0] = 0
    return items


@pytest.mark.parametrize(
    ("elu", "likelihood", "penalty"),
    [
        # r = 1 for the target, 0 and -1 for the negatives: s = (0.7310586, 0.2689414),
        # 0.7310586 sigmoid(1) + 0.2689414 sigmoid(2) = 0.5344466 + 0.2368828
        (0.0, 0.5344466 + 0.2368828, 0.2689414),
        # ELU turns -1 into 0.5 (1/e - 1) = -0.3160603: s = (0.5783639, 0.4216361),
        # 0.5783639 sigmoid(1) + 0.4216361 sigmoid(1.3160603)
        (0.5, 0.5783639 * 0.7310586 + 0.4216361 * 0.7885255, 0.4216361 * 0.3160603**2),
    ],
)
def test_bpr_max_by_hand(elu: float, likelihood: float, penalty: float) -> None:
    query, target, negatives = torch.tensor([[1.0, 0.0]]), torch.tensor([1]), torch.tensor([2, 3])
    items = table_of([0, 1, 0, -1])
    shared = Candidates(SoftmaxConfig(), items, target, negatives, torch.zeros(2))
    private = Candidates(SoftmaxConfig(), items, target, negatives[None], torch.zeros(1, 2))
    full = Candidates(SoftmaxConfig(), items, target, *NONE)
    for candidates in (shared, private, full):
        got = bpr_max_loss(candidates, query, bpreg=2.0, elu=elu)
        assert float(got.detach()) == pytest.approx(-math.log(likelihood) + 2 * penalty, rel=1e-5)


@given(seed=st.integers(0, 2**20), private=st.booleans(), logq=st.booleans())
def test_bpr_max_is_its_definition(seed: int, private: bool, logq: bool) -> None:
    """Repeats count as often as they come; the target and padding do not count."""
    rng = np.random.default_rng(seed)
    n, m, elu, bpreg = 4, 9, 0.5, 0.7
    items = table_of([0, *rng.normal(size=7)])
    targets = rng.integers(1, 8, n)
    negatives = rng.integers(0 if private else 1, 8, (n, m) if private else (m,))
    log_q = np.log(rng.random(8) + 0.1)[negatives].astype(np.float32)
    queries = torch.from_numpy(rng.normal(size=(n, 2)).astype(np.float32))
    tensors = (torch.from_numpy(x) for x in (targets, negatives, log_q))
    candidates = Candidates(SoftmaxConfig(logq=logq), items, *tensors)
    got = float(bpr_max_loss(candidates, queries, bpreg, elu).detach())
    vectors, total = items.weight.detach().double().numpy(), 0.0
    for i in range(n):

        def score(item: int, i: int = i) -> float:
            r = float(queries[i].double().numpy() @ vectors[item])
            return r if r > 0 else elu * (math.exp(r) - 1)

        own, own_q = (negatives[i], log_q[i]) if private else (negatives, log_q)
        kept = [j for j in range(m) if own[j] not in (0, targets[i])]
        if not kept:
            continue
        weights = [math.exp(score(own[j]) - (own_q[j] if logq else 0)) for j in kept]
        positive = score(targets[i])
        likelihood = penalty = 0.0
        for j, weight in zip(kept, weights, strict=True):
            s = weight / sum(weights)
            likelihood += s * sigmoid(positive - score(own[j]))
            penalty += s * score(own[j]) ** 2
        total += -math.log(likelihood) + bpreg * penalty
    assert got == pytest.approx(total / n, rel=1e-3, abs=1e-4)


def test_a_target_without_negatives_costs_nothing() -> None:
    items, queries = table_of([0, 1, 2]), torch.ones(2, 2, requires_grad=True)
    negatives = torch.tensor([[1, 0], [0, 0]])
    candidates = Candidates(
        SoftmaxConfig(), items, torch.tensor([1, 2]), negatives, torch.zeros(2, 2)
    )
    loss = bpr_max_loss(candidates, queries, 1.0, 0.5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert queries.grad is not None and not bool(queries.grad.any())


def test_a_model_learns_by_bpr_max() -> None:
    model = build(loss="bpr-max", samples=16, width=16)
    adam = torch.optim.Adam(model.parameters(), lr=0.03)
    values = []
    for step in range(60):
        losses = model.loss(batch(), generator(step))
        assert losses.parts.keys() == {"bpr-max"}
        adam.zero_grad()
        losses.total.backward()
        adam.step()
        values.append(float(losses.total.detach()))
    assert values[-1] < 0.5 * values[0]
    assert not bool(model.item_vectors()[0].any()), "padding has moved"


def test_items_are_drawn_by_popularity_to_a_power() -> None:
    """Counts 1, 4, 0, 9 and alpha 1/2: 1/6, 2/6, 0, 3/6. Alpha 0: a third each."""
    counts = torch.tensor([0.0, 1, 4, 0, 9])
    drawn, log_q = PopularitySampler(counts, 0.5)(60_000, generator())
    share = torch.bincount(drawn, minlength=5) / 60_000
    want = torch.tensor([0, 1 / 6, 2 / 6, 0, 3 / 6])
    torch.testing.assert_close(share, want, atol=0.01, rtol=0)
    torch.testing.assert_close(log_q, want.log()[drawn])
    drawn, log_q = PopularitySampler(counts, 0.0)(1000, generator())
    assert set(drawn.tolist()) == {1, 2, 4}
    torch.testing.assert_close(log_q, torch.full((1000,), 1 / 3).log())


def test_draws_of_two_samplers_by_hand() -> None:
    """Item 5 comes with q 0.1 and 0.4: 1/0.1 + 1/0.4 = 12.5 = 2/0.16. Others keep theirs."""
    negatives, log_q = torch.tensor([5, 2, 5, 2]), torch.tensor([0.1, 0.3, 0.4, 0.3]).log()
    same, q = joined(negatives, log_q)
    assert torch.equal(same, negatives)
    torch.testing.assert_close(q.exp(), torch.tensor([0.16, 0.3, 0.16, 0.3]))


def test_own_samples_beside_others_leave_the_partition_function_unbiased() -> None:
    """E[sum over corrected negatives and the target] is the sum over all items."""
    counts = torch.tensor([0.0, 5, 1, 3, 8, 2, 2])
    items, target = table_of([0, 0.3, -1, 0.8, 0.1, 1.2, -0.4]), torch.tensor([4])
    query = torch.tensor([[[1.0, 0.0]]])
    sampler, rng, estimates = PopularitySampler(counts, 0.5), generator(), []
    for _ in range(3000):
        own, own_q = sampler(4, rng)
        other = torch.randint(1, 7, (3,), generator=rng)
        log_q = torch.cat([own_q, torch.full((3,), -math.log(6))])
        drawn = joined(torch.cat([own, other]), log_q)
        candidates = Candidates(SoftmaxConfig(logq=True), items, target, *drawn)
        likelihood = float(candidates.log_likelihood(query).detach())
        estimates.append(math.exp(0.1 - likelihood))
    full = sum(math.exp(r) for r in [0.3, -1, 0.8, 0.1, 1.2, -0.4])
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - full) < 4 * error and error < 0.01 * full


def test_own_samples_join_private_negatives() -> None:
    data = batch()
    negatives = torch.randint(1, V, (3, L, 2), generator=generator())
    data = SequenceBatch(data.history, data.targets, negatives, torch.zeros(3, L, 2))
    model, at = build(samples=6), data.targets > 0
    numbers, log_q = model._negatives(data, at, generator())
    assert numbers.shape == log_q.shape == (int(at.sum()), 8)
    assert torch.equal(numbers[:, :2], negatives[at])
    assert bool((numbers[:, 2:] == numbers[0, 2:]).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha = 1.5: must be a number >= 0 and <= 1"),
        ({"dropout_hidden": 1.0}, r"dropout_hidden = 1.0: must be a number >= 0 and < 1"),
        ({"layers": 0}, "layers = 0: must be an integer >= 1"),
        ({"loss": "top1"}, "'bpr-max', 'cross-entropy'"),
        ({"softmax": {"unit": True}}, "bias = true needs softmax.unit = false"),
        ({"samples": -1}, "samples = -1"),
        ({"bpreg": -0.1}, "bpreg"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")
