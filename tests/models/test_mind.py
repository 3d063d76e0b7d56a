"""MIND: label-aware attention by hand, and what each option changes."""

import math

import pytest
import torch
from torch import Tensor

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.mind import Config, Model, label_aware

V, L, D = 20, 9, 4
QUERIES = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
E = math.e


def build(**options) -> Model:
    made = config.convert({"width": D, **options}, Config, "options")
    with randomness.torch_scope(0, "init"):
        return Model(made, Catalogue(size=V, length=L, counts=torch.ones(V))).eval()


def batch() -> SequenceBatch:
    history = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 0, 0, 0, 7, 8, 9, 1]])
    targets = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9, 13], [0, 0, 0, 0, 0, 8, 9, 1, 2]])
    negatives = torch.tensor([10, 11, 12])
    return SequenceBatch(history, targets, negatives, torch.full((3,), -3.0))


@pytest.mark.parametrize(
    ("label", "power", "weights"),
    [
        ((1.0, 1.0), 1.0, (1 / (1 + E), E / (1 + E))),  # inner products 1 and 2
        ((1.0, 1.0), 2.0, (1 / (1 + E**3), E**3 / (1 + E**3))),  # 1 and 4
        ((-1.0, 1.0), 2.0, (1 / (1 + E**5), E**5 / (1 + E**5))),  # -1 and 4: the sign is kept
        ((0.0, 0.0), 3.0, (0.5, 0.5)),
    ],
)
def test_label_aware_attention_by_hand(label, power: float, weights) -> None:
    active = torch.tensor([[True, True]])
    got = label_aware(QUERIES, torch.tensor([label]), active, power)
    torch.testing.assert_close(got, torch.tensor([[weights[0], 2 * weights[1]]]))


def test_interests_that_a_history_lacks_are_not_read() -> None:
    active = torch.tensor([[True, False]])
    got = label_aware(QUERIES, torch.tensor([[0.0, 9.0]]), active, 1.0)
    torch.testing.assert_close(got, QUERIES[:, 0])


def test_attention_at_no_match_has_a_gradient() -> None:
    for power in (1.0, 1.5, 2.0):
        queries = torch.zeros(1, 2, 2, requires_grad=True)
        active = torch.ones(1, 2, dtype=torch.bool)
        label_aware(queries, torch.ones(1, 2), active, power).sum().backward()
        assert queries.grad is not None and bool(queries.grad.isfinite().all())


def nll(query: Tensor, target: int, table: Tensor) -> Tensor:
    """-log p of one target among it and the batch's negatives, raw inner products."""
    logits = torch.stack([query @ table[n] for n in (target, 10, 11, 12)])
    return -logits.log_softmax(0)[0]


@pytest.mark.parametrize("attention", ["hard", "soft"])
def test_the_loss_by_a_plain_loop(attention: str) -> None:
    """Every target, from the history before it alone."""
    model = build(attention=attention, power=2.0, interests=3).requires_grad_(False)
    data, table = batch(), model.item_vectors()
    losses = []
    for row, at in (data.targets > 0).nonzero().tolist():
        items = [i for i in data.history[row, : at + 1].tolist() if i]
        prefix = torch.tensor([[0] * (L - len(items)) + items])
        count = max(1, min(3, math.floor(math.log2(len(items)))))
        queries = model.encode(prefix, torch.zeros(1, 0, D))[0, :count]
        target = int(data.targets[row, at])
        fits = [float(q @ table[target]) for q in queries]
        if attention == "hard":
            query = queries[fits.index(max(fits))]
        else:
            powers = [math.exp(math.copysign(f * f, f)) for f in fits]
            query = torch.stack([p / sum(powers) * q for p, q in zip(powers, queries)]).sum(0)
        losses.append(nll(query, target, table))
    got = model.loss(data, torch.Generator()).total
    torch.testing.assert_close(got, torch.stack(losses).mean())


def test_soft_attention_reads_the_logits_that_the_softmax_sees() -> None:
    """With cosines over a temperature, p works on cosine / temperature."""
    softmax = {"unit": True, "temperature": 0.1}
    model = build(attention="soft", adaptive=False, interests=2, softmax=softmax)
    history, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 0, 4]])
    empty = torch.zeros(0, dtype=torch.int64)
    queries = model.encode(history, torch.zeros(1, 0, D))[0]
    queries = queries / queries.norm(dim=1, keepdim=True)
    cosines = queries @ model.item_vectors()[4]
    query = (cosines / 0.1).softmax(0) @ queries
    logits = query / query.norm() @ model.item_vectors()[1:].T / 0.1
    got = model.loss(SequenceBatch(history, targets, empty, empty.float()), torch.Generator())
    torch.testing.assert_close(got.total, -logits.log_softmax(0)[3])


def test_short_histories_have_fewer_interests() -> None:
    history = torch.tensor([[0, 0, 0, 1, 2, 3], [0, 0, 4, 1, 2, 3]])
    few, more = build(interests=4).encode(history, torch.zeros(2, 0, D))
    assert torch.equal(few, few[:1].expand(4, D))
    assert not torch.equal(more[1], more[0]) and torch.equal(more[2], more[0])
    fixed = build(interests=4, adaptive=False).encode(history, torch.zeros(2, 0, D))
    assert len(fixed[0].unique(dim=0)) == 4


def test_layers_are_rectified() -> None:
    history = batch().history
    assert bool((build(layers=2).encode(history, torch.zeros(2, 0, D)) >= 0).all())
    plain = build(layers=0)
    queries = plain.encode(history, torch.zeros(2, 0, D))
    assert torch.equal(queries, plain.capsules(plain.items(history), history))
    assert bool((queries < 0).any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interests": 0}, "interests = 0: must be an integer >= 1"),
        ({"iterations": 0}, "iterations = 0: must be an integer >= 1"),
        ({"layers": -1}, "layers = -1: must be an integer >= 0"),
        ({"power": 0.5}, "power = 0.5: must be a number >= 1 and <= 8"),
        ({"attention": "none"}, "attention = 'none': must be one of 'hard', 'soft'"),
        ({"guidance": {}}, "unknown key"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")
