"""Parity: what is let through, what is refused, and what counts as the same items."""

import pytest
import torch

from dimerec.errors import ServingError
from dimerec.model import Catalogue
from dimerec.serving import parity
from dimerec.serving.compiled import inputs
from tests.tools.models import tiny


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> tiny.Model:
    monkeypatch.setattr(parity, "SECONDS", 0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        catalogue = Catalogue(size=40, length=5, counts=torch.ones(40))
        return tiny.Model(tiny.Config(noise=0.1), catalogue).requires_grad_(False)


def test_the_model_agrees_with_itself(model):
    checks = parity.checked(model, 5, "itself", model.encode)
    assert [check.batch for check in checks] == [1, 2, 8, 64]
    assert all((c.difference, c.agreement, c.engine) == (0.0, 1.0, "itself") for c in checks)
    assert all(check.eager > 0 and check.compiled > 0 for check in checks)


def test_the_difference_is_of_the_largest_coordinate(model):
    def off(history, noise):
        queries = model.encode(history, noise).clone()
        queries[-1, 0, 0] += 5e-5 * queries.abs().max()
        return queries

    checks = parity.checked(model, 5, "off", off)
    assert [check.difference for check in checks] == pytest.approx([5e-5] * 4, rel=0.05)


@pytest.mark.parametrize("batch", parity.BATCHES)
def test_each_batch_size_is_looked_at(model, batch):
    def off(history, noise):
        return model.encode(history, noise) + (2e-3 if len(history) == batch else 0)

    with pytest.raises(ServingError, match=f"at batch {batch}: queries by"):
        parity.checked(model, 5, "off", off)


@pytest.mark.parametrize(
    "broken",
    [
        lambda queries: queries * torch.nan,
        lambda queries: queries[:, :1],
        lambda queries: queries[:0],
        lambda queries: -queries,
    ],
    ids=["nan", "fewer queries", "no rows", "opposite"],
)
def test_what_is_broken_is_refused(model, broken):
    with pytest.raises(ServingError, match="differs when it runs it at batch 1"):
        parity.checked(model, 5, "it", lambda h, n: broken(model.encode(h, n)))


def test_ties_count_as_the_same_items(monkeypatch):
    """Items 1 and 2 are as good as one another within the tolerance; 3 and 4 are worse."""
    monkeypatch.setattr(parity, "TOP", 1)
    vectors = torch.tensor([[0, 0], [1, 0], [1 - 1e-6, 1e-3], [0.9, 0], [0, 1.0]])
    eager = torch.tensor([[[1.0, 0.0]]])
    assert parity._agreement(eager, torch.tensor([[[1.0, 1e-2]]]), vectors) == 1  # finds 2
    assert parity._agreement(eager, torch.tensor([[[0.0, 1.0]]]), vectors) == 0  # finds 4


def test_histories_of_all_lengths_are_tried(model):
    history, noise = inputs(model, 5, 64)
    assert noise.shape == (64, 2, 4) and history.shape == (64, 5)
    lengths = (history > 0).sum(1)
    assert set(lengths.tolist()) == {1, 2, 3, 4, 5}
    assert bool((history.sort(1).values.bool() == history.bool()).all())  # left-padded
    assert int(history[history > 0].min()) >= 1 and int(history.max()) < 40
    assert inputs(model, 5, 1)[0].shape == (1, 5)
