"""Pieces of like lengths: every row once, no column lost, and the same states as read at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from dimerec.nn import pieces as module
from dimerec.nn.pieces import by_length, pieces

lengths = st.lists(st.integers(0, 9), min_size=1, max_size=30)


def left_padded(lengths: list[int], columns: int = 9) -> Tensor:
    return torch.arange(columns, 0, -1) <= torch.tensor(lengths)[:, None]


@settings(max_examples=60)
@given(lengths, st.sampled_from([1, 9, 20, 2048]))
def test_each_row_stands_in_one_piece_with_all_it_has(lengths: list[int], size: int) -> None:
    real = left_padded(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", size)
        parts = list(pieces(real))
    rows = torch.cat([rows for rows, _ in parts])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    if real.numel() <= size:  # too little to cut
        assert [columns for _, columns in parts] == [slice(None)]
        return
    assert [lengths[row] for row in rows.tolist()] == sorted(lengths)
    for rows, columns in parts:
        assert len(rows) == 1 or len(rows) * 9 <= size
        part = real[rows, columns]
        assert part.sum() == real[rows].sum()
        assert part.shape[1] == max(1, *(lengths[row] for row in rows.tolist()))


@settings(max_examples=40)
@given(lengths, st.sampled_from([1, 20, 2048]))
def test_a_reader_gives_the_same_piece_by_piece(lengths: list[int], size: int) -> None:
    """Values and gradients, against the whole batch read at once."""
    real = left_padded(lengths)
    x = torch.randn(*real.shape, 2, generator=Generator().manual_seed(0), requires_grad=True)
    weights = torch.randn(*real.shape, 2, generator=Generator().manual_seed(1))

    def read(x: Tensor, real: Tensor, rng: Generator | None) -> Tensor:
        return (x * real.unsqueeze(-1)).cumsum(1) ** 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", size)
        got = by_length(read, x, real, Generator())
    want = read(x, real, None)
    torch.testing.assert_close(got, want)
    (a,), (b,) = (torch.autograd.grad((y * weights).sum(), x) for y in (got, want))
    torch.testing.assert_close(a, b)


def test_a_small_batch_and_an_exported_graph_are_read_at_once() -> None:
    class Reader(torch.nn.Module):
        def forward(self, x: Tensor, real: Tensor) -> Tensor:
            return by_length(lambda x, real, rng: x * real.unsqueeze(-1), x, real, None)

    small, large = left_padded([3, 1]), left_padded([3, 1] * 200)
    assert module.whole(small) and not module.whole(large)
    x = torch.ones(*large.shape, 2)
    program = torch.export.export(Reader(), (x, large))  # a cut would be data in the graph's path
    assert torch.equal(program.module()(x, large), Reader()(x, large))


def test_one_piece_of_all_where_there_is_no_cpu() -> None:
    ((rows, columns),) = pieces(torch.zeros(3, 5, dtype=torch.bool, device="meta"))
    assert rows.shape == (3,) and rows.device.type == "meta" and columns == slice(None)
