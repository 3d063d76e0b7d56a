"""SASRec's own: how its item vectors start, and whether there is a second table of them."""

import math

import pytest
import torch

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.sasrec import Config, Model

V, D = 2001, 32


def build(**options) -> Model:
    made = config.convert({"width": D} | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        return Model(made, Catalogue(size=V, length=5, counts=torch.ones(V)))


def test_item_vectors_start_as_long_as_the_option_says() -> None:
    normal, xavier = build().items.weight.detach(), build(start="xavier").items.weight.detach()
    assert not bool(normal[0].any()) and not bool(xavier[0].any())
    assert float(normal[1:].std()) == pytest.approx(1 / math.sqrt(D), rel=0.02)
    bound = math.sqrt(6 / (V + D))
    assert float(xavier.abs().max()) <= bound
    assert float(xavier[1:].std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    ratio = float(normal.norm() / xavier.norm())
    assert ratio == pytest.approx(math.sqrt((V + D) / (2 * D)), rel=0.02)


def test_the_start_is_the_default_where_nothing_is_said() -> None:
    """Committed results were made so."""
    assert torch.equal(build().items.weight, build(start="normal").items.weight)


def test_another_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="start"):
        build(start="zero")


def test_untied_the_history_is_read_with_a_table_of_its_own() -> None:
    """Queries are those of a tied model that had the histories' table; the ranked one is apart."""
    model, tied = build(tied=False).eval(), build().eval()
    tied.transformer.load_state_dict(model.transformer.state_dict())
    assert not torch.equal(model.items.weight, model.inputs.weight)
    tied.items.load_state_dict(model.inputs.state_dict())
    history, noise = torch.tensor([[0, 3, 1, 4, 1]]), torch.zeros(1, 0, D)
    torch.testing.assert_close(model.encode(history, noise), tied.encode(history, noise))
    assert torch.equal(model.item_vectors(), model.items.weight)
    none = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    batch = SequenceBatch(history, torch.tensor([[0, 1, 4, 1, 5]]), *none)
    model.loss(batch, torch.Generator().manual_seed(0)).total.backward()
    read, ranked = model.inputs.weight.grad, model.items.weight.grad
    assert read is not None and ranked is not None
    assert read.any(1).nonzero().flatten().tolist() == [1, 3, 4]
    assert bool(ranked[1:].any(1).all())  # the softmax is over all


def test_the_second_table_starts_as_the_option_says() -> None:
    bound = math.sqrt(6 / (V + D))
    assert float(build(tied=False, start="xavier").inputs.weight.detach().abs().max()) <= bound
