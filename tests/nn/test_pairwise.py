"""BCE, gBCE and BPR by hand and against plain loops, and the softmax beside them as it was."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dimerec import config, randomness
from dimerec.errors import ConfigError
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import (
    SPREAD,
    Candidates,
    SoftmaxConfig,
    closest,
    guidance_loss,
    softmax_loss,
)
from dimerec.nn.pairwise import gbce_beta

LOSSES = ["bce", "gbce", "bpr"]
LOG3 = math.log(3)


def table(values: list[float]) -> ItemEmbedding:
    """Items of width 1, so that with the query 1 an item's logit is its value."""
    items = ItemEmbedding(len(values), 1)
    items.weight.data = torch.tensor(values).unsqueeze(1)
    return items


def loss(made: SoftmaxConfig, target: int, negatives: Tensor) -> float:
    """Of one target, item values 0 (padding), log 3, 0, -log 3, 5, 7, and the query 1."""
    items = table([0.0, LOG3, 0.0, -LOG3, 5.0, 7.0])
    candidates = Candidates(
        made, items, torch.tensor([target]), negatives, torch.zeros(negatives.shape)
    )
    return float(softmax_loss(candidates, torch.ones(1, 1, 1)).detach())


def test_beta_by_hand() -> None:
    """V = 6: four items are not the target, so alpha = M / 4."""
    assert gbce_beta(0.0, 2, 6) == 1.0
    assert gbce_beta(1.0, 2, 6) == 0.5
    assert gbce_beta(0.5, 2, 6) == 0.75
    assert gbce_beta(0.75, 1, 6) == pytest.approx(0.25 * (0.75 * (1 - 4) + 4))  # as published
    assert gbce_beta(1.0, 9, 6) == 1.0  # more draws than there are items
    assert gbce_beta(0.75, 3, 2) == 1.0  # a catalogue of one item


# Probabilities: 3/4 of the target (log 3), 1/2 of item 2 (0), 1/4 of item 3 (-log 3); for BPR the
# differences log 3 and log 9 have 3/4 and 9/10.
BY_HAND = {
    "bce": -(math.log(3 / 4) + math.log(1 / 2) + math.log(3 / 4)) / 3,
    "gbce": -(0.75 * math.log(3 / 4) + math.log(1 / 2) + math.log(3 / 4)) / 3,
    "bpr": -(math.log(3 / 4) + math.log(9 / 10)) / 2,
}
COLLIDED = {  # negatives 1 (the target), 2 and 3, 3: four draws, the first of which costs nothing
    "bce": -(math.log(3 / 4) + math.log(1 / 2) + 2 * math.log(3 / 4)) / 5,
    "gbce": -(1.0 * math.log(3 / 4) + math.log(1 / 2) + 2 * math.log(3 / 4)) / 5,
    "bpr": -(math.log(3 / 4) + 2 * math.log(9 / 10)) / 4,
}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_hand(name, private: bool) -> None:
    made = SoftmaxConfig(loss=name, calibration=0.5)
    negatives, repeated = torch.tensor([2, 3]), torch.tensor([1, 2, 3, 3])
    if private:
        negatives, repeated = negatives[None], repeated[None]
    assert loss(made, 1, negatives) == pytest.approx(BY_HAND[name], rel=1e-6)
    assert loss(made, 1, repeated) == pytest.approx(COLLIDED[name], rel=1e-6)


def test_a_prior_lowers_logits_by_log_m_over_beta() -> None:
    """M = 2, log(2) for BCE: probabilities 3/5, 1/3 and 1/7. gBCE's beta is 3/4: log(8/3), 9/17,
    3/11, 1/9."""
    bce = -(math.log(3 / 5) + math.log(2 / 3) + math.log(6 / 7)) / 3
    gbce = -(0.75 * math.log(9 / 17) + math.log(8 / 11) + math.log(8 / 9)) / 3
    for negatives in (torch.tensor([2, 3]), torch.tensor([[2, 3]])):
        for name, want in (("bce", bce), ("gbce", gbce)):
            made = SoftmaxConfig(loss=name, calibration=0.5, prior=True)
            assert loss(made, 1, negatives) == pytest.approx(want, rel=1e-6)
    one = torch.tensor([[3]])  # of one negative: log(1 / 1)
    plain, lowered = SoftmaxConfig(loss="bce"), SoftmaxConfig(loss="bce", prior=True)
    assert loss(lowered, 1, one) == loss(plain, 1, one)


def test_with_a_prior_the_best_constant_logit_is_zero() -> None:
    """The loss of equal logits is least where an inner product says nothing."""
    made = SoftmaxConfig(loss="gbce", calibration=0.75, prior=True)
    losses = []
    for value in (-0.1, 0.0, 0.1):
        items = table([0.0] + 9 * [value])
        drawn = torch.tensor([[2, 3, 4]])
        candidates = Candidates(made, items, torch.tensor([1]), drawn, torch.zeros(1, 3))
        losses.append(float(softmax_loss(candidates, torch.ones(1, 1, 1)).detach()))
    assert losses[1] < min(losses[0], losses[2])


def test_padding_among_private_negatives_costs_nothing() -> None:
    made = SoftmaxConfig(loss="bpr")
    want = -(math.log(3 / 4) + math.log(9 / 10)) / 3
    assert loss(made, 1, torch.tensor([[2, 0, 3]])) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_whose_negatives_all_collide_keeps_its_positive_share(name) -> None:
    want = {"bce": -math.log(3 / 4) / 3, "gbce": -0.75 * math.log(3 / 4) / 3, "bpr": 0.0}
    made = SoftmaxConfig(loss=name, calibration=0.5)
    assert loss(made, 1, torch.tensor([[1, 0]])) == pytest.approx(want[name], abs=1e-7)
    assert loss(made, 1, torch.tensor([1, 1])) == pytest.approx(want[name], abs=1e-7)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow(name: str, t: float, size: int, positive: float, others: list[float], draws: int) -> float:
    """The definition; `others` are the logits of what is not masked."""
    if name == "bpr":
        return -sum(math.log(sigmoid(positive - s)) for s in others) / draws
    beta = 1.0
    if name == "gbce":
        alpha = min(1.0, draws / (size - 2))
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    total = math.log(sigmoid(positive) ** beta)
    total += sum(math.log(1 - sigmoid(s)) for s in others)
    return -total / (1 + draws)


@given(
    seed=st.integers(0, 2**20),
    name=st.sampled_from(LOSSES),
    unit=st.booleans(),
    kind=st.sampled_from(["shared", "private", "in-batch"]),
    temperature=st.floats(0.3, 3),
    t=st.floats(0, 1),
    v=st.sampled_from([12, 7 * SPREAD + 1]),  # private ones out of all items, or gathered
)
def test_every_loss_is_its_definition(
    seed: int, name, unit: bool, kind: str, temperature: float, t: float, v: int
) -> None:
    rng = np.random.default_rng(seed)
    n, m, d = 4, 7, 5
    with randomness.torch_scope(seed, "init"):
        items = ItemEmbedding(v, d, unit=unit)
        queries = torch.randn(n, d)
    targets = rng.integers(1, 12, n)
    negatives = {  # repeats and collisions included
        "shared": np.append(rng.integers(1, v, m - 2), [targets[0], targets[0]]),
        "private": rng.integers(0, 12, (n, m)),
        "in-batch": targets,
    }[kind]
    made = SoftmaxConfig(unit=unit, temperature=temperature, loss=name, calibration=t)
    tensors = torch.from_numpy(targets), torch.from_numpy(negatives)
    candidates = Candidates(made, items, *tensors, torch.randn(negatives.shape))
    got = float(softmax_loss(candidates, queries.unsqueeze(1)).detach())
    vectors, want = items.table().detach().double().numpy(), []
    for i in range(n):
        query = queries[i].double().numpy()
        query = query / np.linalg.norm(query) if unit else query
        row = negatives[i] if kind == "private" else negatives
        logits = [float(query @ vectors[j]) / temperature for j in row if j not in (0, targets[i])]
        positive = float(query @ vectors[targets[i]]) / temperature
        want.append(slow(name, t, v, positive, logits, len(row)))
    assert got == pytest.approx(np.mean(want), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name) -> None:
    with randomness.torch_scope(0, "init"):
        items = ItemEmbedding(9, 3, unit=True).double()
        queries = torch.randn(2, 1, 3).double().requires_grad_()
    made = SoftmaxConfig(unit=True, temperature=0.5, loss=name)
    for negatives in (torch.tensor([1, 7, 7, 4]), torch.tensor([[1, 2, 0], [4, 4, 8]])):
        log_q = torch.zeros(negatives.shape).double()
        candidates = Candidates(made, items, torch.tensor([2, 7]), negatives, log_q)
        torch.autograd.gradcheck(partial(softmax_loss, candidates), (queries,))


@pytest.mark.parametrize("name", LOSSES)
def test_of_several_interests_the_closest_alone_is_judged(name) -> None:
    with randomness.torch_scope(0, "init"):
        items, guidance = ItemEmbedding(9, 4), torch.randn(2, 3, 4)
    guidance.requires_grad_()
    targets, negatives = torch.tensor([2, 7]), torch.tensor([1, 5, 8])
    candidates = Candidates(SoftmaxConfig(loss=name), items, targets, negatives, torch.zeros(3))
    got = guidance_loss(candidates, guidance)
    chosen = closest(guidance, candidates.positive).unsqueeze(1)
    torch.testing.assert_close(got, softmax_loss(candidates, chosen))
    got.backward()
    assert guidance.grad is not None
    assert (guidance.grad.abs().sum(-1) > 0).sum(1).tolist() == [1, 1]


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_cannot_do_is_refused(name) -> None:
    items, targets = table([0.0, 1.0, 2.0, 3.0]), torch.tensor([1])
    made = SoftmaxConfig(loss=name)
    with pytest.raises(ConfigError, match=r"softmax\.loss .* negatives\.kind"):
        Candidates(made, items, targets, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    candidates = Candidates(made, items, targets, torch.tensor([2]), torch.zeros(1))
    with pytest.raises(ConfigError, match="no mixture of 2 samples"):
        softmax_loss(candidates, torch.ones(1, 2, 1))


SHARED = ["options.softmax.logq=false", "options.softmax.loss=bpr"]


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("sasrec", ["options.softmax.loss=bce"], "logq = true corrects the softmax"),
        ("sasrec", [*SHARED, "negatives.kind=none"], "set negatives.kind to"),
        ("gsasrec", ["options.softmax.calibration=1.5"], "calibration = 1.5: .* >= 0 and <= 1"),
        (
            "gsasrec",
            ["options.softmax.loss=bpr", "options.softmax.prior=true"],
            "prior = true lowers",
        ),
        ("gsasrec", ["options.softmax.loss=ce"], "loss = 'ce': must be one of"),
        ("gru4rec", [*SHARED, "options.loss=bpr-max"], 'needs loss = "cross-entropy"'),
        ("gru4rec", [*SHARED, "options.samples=0", "negatives.kind=none"], "negatives.kind"),
        ("multvae", [*SHARED, "negatives.kind=uniform", "options.predict=window"], "all items"),
        ("dimerec-rollout", SHARED, "no mixture of samples: rollout_samples must be 1"),
    ],
)
def test_wrong_recipes_fail_at_load(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(recipe, overrides)


def test_gru4rec_has_negatives_of_its_own() -> None:
    config.load("gru4rec", [*SHARED, "negatives.kind=none"])


def before(made: SoftmaxConfig, items: ItemEmbedding, batch: tuple[Tensor, ...], queries: Tensor):
    """The softmax loss as it was written before other losses stood beside it."""
    targets, negatives, log_q = batch
    if made.unit:
        queries = F.normalize(queries, dim=-1)
    queries = queries / made.temperature
    if negatives.numel() == 0:
        others = items.table()
        positive = (queries * F.embedding(targets, others).unsqueeze(1)).sum(-1)
        other = queries @ others.T
        other[:, :, 0] = -torch.inf
        other[torch.arange(len(other)), :, targets] = -torch.inf
    else:
        m = negatives.shape[-1]
        correction = log_q + math.log(m) if made.logq else torch.zeros_like(log_q)
        if negatives.dim() == 1:
            negatives, inverse, count = negatives.unique(return_inverse=True, return_counts=True)
            merged = log_q.new_zeros(len(negatives))
            correction = merged.scatter(0, inverse, correction) - count.log()
        positive = (queries * items(targets).unsqueeze(1)).sum(-1)
        if negatives.dim() == 1:
            other = queries @ items(negatives).T - correction
            hit = negatives == targets.unsqueeze(1)
        else:
            other = queries @ items(negatives).transpose(1, 2) - correction.unsqueeze(1)
            hit = (negatives == targets.unsqueeze(1)) | (negatives == 0)
        other = other.masked_fill(hit.unsqueeze(1), -torch.inf)
    likelihood = -F.softplus(other.logsumexp(-1) - positive)
    return -(likelihood.logsumexp(1) - torch.tensor(float(queries.shape[1])).log()).mean()


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", ["full", "shared", "private"])
def test_the_softmax_is_what_it_was(kind: str, samples: int) -> None:
    """Losses, gradients of queries and items, and no random number drawn. Bit for bit, but for the
    full one, which is summed in another order."""
    n, v, d = 6, 15, 4
    rng = torch.Generator().manual_seed(0)
    negatives = {
        "full": torch.zeros(0, dtype=torch.int64),
        "shared": torch.randint(1, v, (8,), generator=rng),
        "private": torch.randint(0, v, (n, 8), generator=rng),
    }[kind]
    batch = (torch.arange(1, n + 1), negatives, -torch.log(negatives + 2.0))
    made = SoftmaxConfig(unit=True, temperature=0.07, logq=True)
    results = []
    for new in (False, True):
        with randomness.torch_scope(0, "init"):
            items, queries = ItemEmbedding(v, d, unit=True), torch.randn(n, samples, d)
        queries.requires_grad_()
        state = torch.get_rng_state()
        if new:
            value = softmax_loss(Candidates(made, items, *batch), queries)
        else:
            value = before(made, items, batch, queries)
        value.backward()
        assert torch.equal(state, torch.get_rng_state())
        results.append((value.detach(), queries.grad, items.weight.grad))
    for old, now in zip(*results, strict=True):
        if kind == "full":
            torch.testing.assert_close(now, old)
        else:
            assert torch.equal(old, now)
