"""Ragged rows by hand and against plain loops."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec.nn.sparse import distinct, leading, spread


def test_distinct_items_by_hand() -> None:
    """Row 0 is 3 1 3: item 1 stands at place 2, item 3 last at place 3."""
    history = torch.tensor([[0, 3, 1, 3], [0, 0, 0, 0], [2, 2, 2, 2]])
    row, item, place = distinct(history, 5)
    assert row.tolist() == [0, 0, 2]
    assert item.tolist() == [1, 3, 2]
    assert place.tolist() == [2, 3, 4]


@given(st.lists(st.lists(st.integers(1, 6), max_size=5), min_size=1, max_size=4))
def test_distinct_items_against_a_loop(rows: list[list[int]]) -> None:
    history = torch.tensor([[0] * (5 - len(r)) + r for r in rows])
    want = [
        (b, item, max(i for i, other in enumerate(r, 1) if other == item))
        for b, r in enumerate(rows)
        for item in sorted(set(r))
    ]
    got = zip(*(x.tolist() for x in distinct(history, 7)), strict=True)
    assert list(got) == want


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6))
def test_ranges_against_a_loop(ranges: list[tuple[int, int]]) -> None:
    first = torch.tensor([f for f, _ in ranges], dtype=torch.int64)
    count = torch.tensor([c for _, c in ranges], dtype=torch.int64)
    which, at = spread(first, count)
    want = [(n, f + i) for n, (f, c) in enumerate(ranges) for i in range(c)]
    assert list(zip(which.tolist(), at.tolist(), strict=True)) == want


def test_the_first_entries_of_every_row() -> None:
    assert leading(torch.tensor([0, 0, 0, 2, 5, 5]), 2).tolist() == [1, 1, 0, 1, 1, 1]
