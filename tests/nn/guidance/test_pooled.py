"""The MLP of the mean, by hand."""

import math

import torch

from dimerec.nn.guidance import GuidanceConfig, PooledMLP


def test_two_items_by_hand() -> None:
    """Mean of (1, 0) and (3, 4) is (2, 2). Hidden unit 0 adds the two: tanh(4); unit 1 is
    tanh(0.5), its bias. Interest 0 is (tanh(4), 0), interest 1 is (0, 1 + tanh(0.5))."""
    gem = PooledMLP(GuidanceConfig(kind="mlp", interests=2), 2).requires_grad_(False)
    for parameter in gem.parameters():
        parameter.zero_()
    gem.hidden.weight[0] = 1.0
    gem.hidden.bias[1] = 0.5
    gem.out.weight[0, 0] = 1.0  # rows: interest 0's two numbers, then interest 1's
    gem.out.weight[3, 1] = 1.0
    gem.out.bias[3] = 1.0
    hidden = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [3.0, 4.0]]])
    history = torch.tensor([[0, 1, 2]])
    want = torch.tensor([[[math.tanh(4), 0.0], [0.0, 1 + math.tanh(0.5)]]])
    torch.testing.assert_close(gem(hidden, history), want)
    first = gem.every(hidden, history)[:, 1, 0, 0]
    torch.testing.assert_close(first, torch.tensor([math.tanh(1)]))
