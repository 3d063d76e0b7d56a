"""Losses against plain NumPy loops, unbiasedness, and finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dimerec.nn import losses
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import (
    Candidates,
    SoftmaxConfig,
    closest,
    guidance_loss,
    reconstruction_loss,
    softmax_loss,
)

V, D = 12, 5
NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


def items(unit: bool = False, seed: int = 0) -> ItemEmbedding:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ItemEmbedding(V, D, unit=unit)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow(query, target, negatives, table, *, temperature=1.0, unit=False, log_q=None) -> float:
    """log p(target | query) by the definition; `negatives` are those of this row, in order."""
    if unit:
        query = query / np.linalg.norm(query)
    m = len(negatives)
    positive = float(query @ table[target]) / temperature
    total = math.exp(positive)
    for j, i in enumerate(negatives):
        if i in (target, 0):
            continue
        logit = float(query @ table[i]) / temperature
        if log_q is not None:
            logit -= math.log(m) + float(log_q[j])
        total += math.exp(logit)
    return positive - math.log(total)


@given(
    seed=st.integers(0, 2**20),
    unit=st.booleans(),
    logq=st.booleans(),
    private=st.booleans(),
    temperature=st.floats(0.05, 3),
)
def test_sampled_softmax_is_its_definition(
    seed: int, unit: bool, logq: bool, private: bool, temperature: float
) -> None:
    rng = np.random.default_rng(seed)
    n, m, q = 4, 7, 3
    table = items(unit, seed)
    targets = rng.integers(1, V, n)
    shape = (n, m) if private else (m,)
    negatives = rng.integers(0 if private else 1, V, shape)  # repeats and collisions included
    log_q = np.log(rng.random(V) + 0.01)[negatives].astype(np.float32)  # one value an item
    queries = draw(seed, n, q, D)
    config = SoftmaxConfig(unit=unit, temperature=temperature, logq=logq)
    got = Candidates(
        config,
        table,
        torch.from_numpy(targets),
        torch.from_numpy(negatives),
        torch.from_numpy(log_q),
    ).log_likelihood(queries)
    vectors = table.table().detach().double().numpy()
    for i in range(n):
        own = (negatives[i], log_q[i]) if private else (negatives, log_q)
        for j in range(q):
            want = slow(
                queries[i, j].double().numpy(),
                targets[i],
                own[0],
                vectors,
                temperature=temperature,
                unit=unit,
                log_q=own[1] if logq else None,
            )
            assert float(got[i, j].detach()) == pytest.approx(want, abs=1e-3, rel=1e-3)


@pytest.mark.parametrize("rows", [1, 4, 256])  # of six
def test_full_softmax_is_cross_entropy_without_padding(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "ROWS", rows)
    table, targets, queries = items(), torch.tensor([1, 5, 11]), draw(3, 3, 2, D)
    config = SoftmaxConfig(temperature=0.5)
    got = Candidates(config, table, targets, *NONE).log_likelihood(queries)
    logits = queries @ table.table()[1:].T / 0.5
    for one in range(2):
        want = -F.cross_entropy(logits[:, one], targets - 1, reduction="none")
        torch.testing.assert_close(got[:, one], want)


def test_full_softmax_of_nothing_is_nothing() -> None:
    none = Candidates(SoftmaxConfig(), items(), torch.zeros(0, dtype=torch.int64), *NONE)
    assert none.log_likelihood(draw(3, 0, 2, D)).shape == (0, 2)


def test_logq_makes_the_partition_function_unbiased() -> None:
    """E[exp(s_a) + sum of corrected negatives] over draws equals the full sum, any proposal."""
    table, target = items(seed=1), torch.tensor([4])
    q = np.array([0, *(np.random.default_rng(0).random(V - 1) + 0.3)])
    q /= q.sum()
    rng = np.random.default_rng(1)
    query = draw(5, 1, 1, D)
    scores = (query[0, 0] @ table.table().T).detach().double().numpy()
    full = np.exp(scores[1:]).sum()
    config = SoftmaxConfig(logq=True)
    estimates = []
    for _ in range(3000):
        negatives = torch.from_numpy(rng.choice(V, size=8, p=q))
        log_q = torch.from_numpy(np.log(q + 1e-300)).float()[negatives]
        got = Candidates(config, table, target, negatives, log_q).log_likelihood(query)
        estimates.append(math.exp(scores[4] - float(got.detach())))
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - full) < 4 * error
    assert error < 0.02 * full  # or the test above would let anything pass


def test_without_logq_it_is_biased() -> None:
    """The test above can fail: uncorrected, the same estimate is far off."""
    table, target, query = items(seed=1), torch.tensor([4]), draw(5, 1, 1, D)
    scores = (query[0, 0] @ table.table().T).detach()
    negatives = torch.randint(1, V, (8,), generator=torch.Generator().manual_seed(0))
    got = Candidates(SoftmaxConfig(), table, target, negatives, torch.zeros(8))
    partition = math.exp(float(scores[4] - got.log_likelihood(query).detach()))
    assert partition < 0.9 * float(scores[1:].exp().sum())


def test_a_row_whose_negatives_all_collide_costs_nothing() -> None:
    negatives = torch.tensor([[3, 3, 0]])
    candidates = Candidates(
        SoftmaxConfig(), items(), torch.tensor([3]), negatives, torch.zeros(1, 3)
    )
    queries = draw(0, 1, 1, D).requires_grad_()
    loss = softmax_loss(candidates, queries)
    loss.backward()
    assert float(loss.detach()) == 0 and queries.grad is not None
    assert bool(queries.grad.isfinite().all())


@given(st.integers(0, 2**20))
def test_closest_is_the_arg_max_of_eq_18(seed: int) -> None:
    guidance, target = draw(seed, 6, 4, D), draw(seed + 1, 6, D)
    got = closest(guidance, target)
    for n in range(6):
        products = [float(guidance[n, k] @ target[n]) for k in range(4)]
        assert torch.equal(got[n], guidance[n, products.index(max(products))])


@pytest.mark.parametrize("unit", [False, True])
def test_guidance_loss_trains_the_chosen_interest_alone(unit: bool) -> None:
    table, targets = items(unit), torch.tensor([2, 7])
    negatives = torch.tensor([1, 5, 9])
    guidance = draw(8, 2, 3, D).requires_grad_()
    candidates = Candidates(SoftmaxConfig(unit=unit), table, targets, negatives, torch.zeros(3))
    loss = guidance_loss(candidates, guidance)
    loss.backward()
    assert guidance.grad is not None
    touched = guidance.grad.abs().sum(-1) > 0
    assert touched.sum(1).tolist() == [1, 1]
    vectors = table.table().detach().double().numpy()
    each = guidance.detach().double().numpy()
    if unit:
        each /= np.linalg.norm(each, axis=-1, keepdims=True)
    values = []
    for n, target in enumerate(targets.tolist()):
        best = each[n, int(np.argmax(each[n] @ vectors[target]))]
        values.append(-slow(best, target, negatives.tolist(), vectors))
    assert float(loss.detach()) == pytest.approx(np.mean(values), rel=1e-4)


def test_reconstruction_by_hand() -> None:
    x0 = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    predicted = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 1.0]]])
    assert float(reconstruction_loss(x0, predicted)) == pytest.approx((1 + 0 + 0 + 9) / 4)


def test_mixture_of_samples_by_hand() -> None:
    """-log mean_s p(y | x_s), not the mean of the -log."""
    table, targets = items(), torch.tensor([2])
    candidates = Candidates(SoftmaxConfig(), table, targets, *NONE)
    samples = draw(4, 1, 3, D)
    p = candidates.log_likelihood(samples).exp()
    want = -math.log(float(p.mean().detach()))
    assert float(softmax_loss(candidates, samples).detach()) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("kind", ["full", "shared", "private"])
def test_gradients_by_finite_differences(kind: str) -> None:
    table = items(unit=True).double()
    targets = torch.tensor([2, 7])
    negatives, log_q = {
        "full": (torch.zeros(0, dtype=torch.int64), torch.zeros(0).double()),
        "shared": (torch.tensor([1, 7, 7, 9]), torch.full((4,), -2.0).double()),
        "private": (torch.tensor([[1, 2, 0], [4, 4, 8]]), torch.full((2, 3), -2.0).double()),
    }[kind]

    def losses(queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = SoftmaxConfig(unit=True, temperature=0.5, logq=True)
        c = Candidates(config, table, targets, negatives, log_q)
        return (
            guidance_loss(c, queries),
            softmax_loss(c, queries),
            reconstruction_loss(c.positive, queries),
        )

    torch.autograd.gradcheck(losses, (draw(6, 2, 3, D).double().requires_grad_(),))

    class Around(nn.Module):
        """Losses of queries as a module that owns the table, whose rows can then be replaced."""

        def __init__(self) -> None:
            super().__init__()
            self.table = table

        def forward(self, queries: Tensor) -> Tensor:
            return torch.stack(losses(queries)).sum()

    def of_table(moved: Tensor) -> Tensor:
        queries = draw(6, 2, 3, D).double()
        return torch.func.functional_call(Around(), {"table.weight": moved}, (queries,))

    rows = table.weight.detach()[1:].clone().requires_grad_()
    torch.autograd.gradcheck(lambda r: of_table(torch.cat([torch.zeros(1, D).double(), r])), rows)
