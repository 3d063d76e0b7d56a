"""The items up to each position as a set: what stands in for a user whom nobody knows."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dimerec.nn.embeddings import ItemEmbedding


def first_seen(history: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """Where an item stands for the first time in its row; never at padding."""
    numbers, order = history.sort(dim=1, stable=True)
    new = numbers > 0
    new[:, 1:] &= numbers[:, 1:] != numbers[:, :-1]
    return torch.zeros_like(new).scatter(1, order, new)


def pooled(
    vectors: Float[Tensor, "B L d"], history: Int[Tensor, "B L"], power: float
) -> Float[Tensor, "B L d"]:
    """Sum of the vectors of the n distinct items up to each position, divided by n^power.

    Zero where there are none. `vectors` are those of `history`'s items.
    """
    new = first_seen(history)
    count = new.cumsum(1).clamp_min(1).pow(power)
    return (vectors * new.unsqueeze(-1)).cumsum(1) / count.unsqueeze(-1)


class Taste(nn.Module):
    """Stands in for a user's vector: the mean of own vectors of the distinct items so far.

    Models of 2010 to 2018 learn a vector for each user of the training data. Here a user is a
    history, which may never have been trained on, so that vector is made of it, as FISM (Kabbur,
    Ning and Karypis, KDD 2013) does.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(size, width)

    def forward(self, history: Int[Tensor, "B L"]) -> Float[Tensor, "B L d"]:
        """The user after every position; zero where nothing has been seen."""
        return pooled(self.items(history), history, 1.0)
