"""Rows of different lengths, for models that count: everything is a sorted array of indices."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def distinct(
    history: Int[Tensor, "B L"], size: int
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " N"]]:
    """The distinct items of every row: row, item and the last place it stands at.

    `history` is left-padded with 0 and below `size`; places count the row's items from 1. Sorted
    by row, then by item.
    """
    row, column = (history > 0).nonzero(as_tuple=True)
    length = (history > 0).sum(1)
    place = column - (history.shape[1] - length[row]) + 1
    keys, inverse = (row * size + history[row, column]).unique(return_inverse=True)
    last = torch.zeros_like(keys).scatter_reduce_(0, inverse, place, "amax")
    return keys // size, keys % size, last


def spread(
    first: Int[Tensor, " N"], count: Int[Tensor, " N"]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    """The ranges `[first, first + count)` one after the other: which one, and the index in it."""
    which = torch.arange(len(first), device=first.device).repeat_interleave(count)
    before = (first - (count.cumsum(0) - count))[which]
    return which, before + torch.arange(len(which), device=first.device)


def leading(row: Int[Tensor, " N"], n: int) -> Bool[Tensor, " N"]:
    """The first n entries of every row; `row` ascends."""
    start = torch.searchsorted(row, row)
    return torch.arange(len(row), device=row.device) - start < n
