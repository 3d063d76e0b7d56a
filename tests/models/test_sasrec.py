"""SASRec's own: how its item vectors start."""

import math

import pytest
import torch

from dimerec import config, randomness
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
