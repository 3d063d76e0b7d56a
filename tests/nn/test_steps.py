"""Step embeddings through two layers, by hand."""

import math

import pytest
import torch
from torch import nn

from dimerec.nn.steps import StepMLP


def doubled(stretch: float) -> StepMLP:
    """Two layers that only double: what comes out is twice the sinusoids."""
    net = StepMLP(steps=2, width=4, hidden=4, activation=nn.Identity(), stretch=stretch)
    with torch.no_grad():
        for layer, factor in ((net.inner, 1.0), (net.outer, 2.0)):
            layer.weight.copy_(factor * torch.eye(4))
            layer.bias.zero_()
    return net


@pytest.mark.parametrize("stretch", [1.0, 500.0])
def test_the_sinusoids_by_hand(stretch: float) -> None:
    """Half the width is 2, so the frequencies are 1 and 10 000^(-1/2) = 0.01."""
    got = doubled(stretch)()
    assert got.shape == (3, 4)
    assert got[0].tolist() == [2, 2, 0, 0]
    for t in (1, 2):
        fast, slow = stretch * t, 0.01 * stretch * t
        want = [math.cos(fast), math.cos(slow), math.sin(fast), math.sin(slow)]
        assert got[t].tolist() == pytest.approx([2 * w for w in want], abs=1e-4)


def test_the_activation_stands_between_the_layers() -> None:
    net = doubled(1.0)
    net.activation = nn.ReLU()
    with torch.no_grad():
        net.inner.bias.fill_(-1.0)  # cos(0) - 1 = 0 and sin(0) - 1 < 0
        net.outer.bias.fill_(0.25)
    assert net()[0].tolist() == [0.25] * 4
