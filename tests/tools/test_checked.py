"""Annotations of the package are true, since every call under pytest is checked against them."""

from typing import Self

import pytest
import torch
from jaxtyping import TypeCheckError

from dimerec.batch import SequenceBatch
from dimerec.nn.losses import reconstruction_loss
from dimerec.randomness import stream
from tests.tools.checked import checked


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeCheckError, match="seed"):
        stream("0", "name")


def test_a_wrong_shape_is_refused():
    assert reconstruction_loss(torch.zeros(2, 3), torch.ones(2, 1, 3)) == 3
    with pytest.raises(TypeCheckError, match="predicted"):
        reconstruction_loss(torch.zeros(2, 3), torch.ones(2, 1, 4))


def test_a_dataclass_whose_types_load_late_is_usable():
    one = torch.zeros(1, 1, dtype=torch.int64)
    assert SequenceBatch(one, one, one[0], one[0].float()).to("cpu").history.shape == (1, 1)


def test_self_is_let_through_and_the_rest_checked():
    class Some:
        def itself(self) -> Self:
            return self

    assert checked(Some.itself) is Some.itself

    def plain(x: int) -> int:
        return x

    assert checked(plain)(1) == 1
    with pytest.raises(Exception, match="violates type hint"):
        checked(plain)("1")
