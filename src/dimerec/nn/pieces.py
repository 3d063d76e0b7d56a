"""Batches are read in pieces of like lengths, so that little padding is computed."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

PIECE = 2048  # positions of a piece, padding included; fewer rows do not keep a core busy


def whole(real: Bool[Tensor, "B L"]) -> bool:
    """Whether a batch is better read at once: it is small; or in an exported graph, which is one
    path for all; or on anything but a CPU, where small kernels and the wait for the lengths would
    cost more than padding does."""
    return real.device.type != "cpu" or torch.compiler.is_exporting() or real.numel() <= PIECE


def pieces(real: Bool[Tensor, "B L"]) -> Iterator[tuple[Tensor, slice]]:
    """Rows `[b]` of like lengths, and the columns from the first one that any of them fills.

    Every row of the left-padded `real` stands in one piece; a row without a position has its last
    column.
    """
    rows, columns = real.shape
    if whole(real):
        yield torch.arange(rows, device=real.device), slice(None)
        return
    lengths = real.sum(1)
    for piece in lengths.argsort(stable=True).split(max(1, PIECE // columns)):
        yield piece, slice(columns - max(1, int(lengths[piece[-1]])), None)


def by_length(
    read: Callable[[Tensor, Tensor, Generator | None], Tensor],
    x: Float[Tensor, "B L d"],
    real: Bool[Tensor, "B L"],
    rng: Generator | None,
) -> Float[Tensor, "B L d"]:
    """`read(x, real, rng)` piece by piece; zero in the columns that a piece leaves out.

    `read` must give a row the same whatever padding stands before it.
    """
    if whole(real):
        return read(x, real, rng)
    order, states = [], []
    for rows, columns in pieces(real):
        part = read(x[rows, columns], real[rows, columns], rng)
        order.append(rows)
        states.append(F.pad(part, (0, 0, x.shape[1] - part.shape[1], 0)))
    return torch.cat(states)[torch.cat(order).argsort()]
