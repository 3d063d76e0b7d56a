"""The shelf: allowed items and the popular ones, against plain Python."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from dimerec.errors import DataError
from dimerec.retrieval import filters
from dimerec.retrieval.filters import Allowed, Shelf, grouped
from dimerec.vocabulary import Item

names = st.lists(st.sampled_from("abcd"), max_size=3)  # with repeats
numbers = st.lists(st.integers(0, 12), max_size=9)


@given(
    st.lists(st.tuples(st.integers(0, 3), names), min_size=1, max_size=12),
    st.none() | numbers,
    st.lists(st.sampled_from("abcd"), max_size=3),
    numbers,
    st.integers(1, 14),
)
def test_the_shelf_is_a_sorted_list(items, only, wanted, taken, n):
    size = len(items) + 1
    counts = np.array([0, *(c for c, _ in items)], np.float32)
    shelf = Shelf(counts, [Item(categories=tuple(some)) for _, some in items])
    wanted = [name for name in wanted if name in shelf]
    assert all((name in shelf) == any(name in some for _, some in items) for name in "abcd")
    inside = None if only is None else np.array([o for o in only if o < size], np.int64)
    allowed = shelf.allowed(inside, wanted)
    expected = {
        number
        for number, (_, some) in enumerate(items, start=1)
        if (only is None or number in only) and (not wanted or set(wanted) & set(some))
    }
    assert (allowed is None) == (only is None and not wanted)
    if allowed is not None:
        assert allowed.numbers.tolist() == sorted(expected)
        assert allowed.mask(size).tolist() == [number in expected for number in range(size)]
        assert allowed.mask(size + 9).tolist()[size:] == [False] * 9
        asked = np.arange(size + 20)
        assert allowed.holds(asked).tolist() == [number in expected for number in asked]
    best = sorted(expected - set(taken), key=lambda i: (-counts[i], i))[:n]
    assert shelf.popular(n, np.array(taken, np.int64), allowed).tolist() == best


def test_the_same_categories_are_the_same_object():
    shelf = Shelf(np.zeros(4, np.float32), [Item(categories=(c,)) for c in "aab"])
    assert shelf.allowed(None, ["a", "b"]) is shelf.allowed(None, ["b", "a", "b"])
    assert shelf.allowed(None, ["a"]) is shelf.allowed(None, ["a"])


def test_bitmaps_of_large_categories_are_there_beforehand(monkeypatch):
    monkeypatch.setattr(filters, "MANY", 2)
    items = [Item(categories=(c,)) for c in "aaabb"]
    shelf = Shelf(np.zeros(6, np.float32), items)
    large, small = shelf.allowed(None, ["a"]), shelf.allowed(None, ["b"])
    assert large is not None and "bits" in vars(large)
    assert small is not None and "bits" not in vars(small)


def test_rows_that_share_a_set_come_together():
    one, other = Allowed(np.array([1]), 3), Allowed(np.array([1]), 3)
    parts = [(rows.tolist(), a) for rows, a in grouped([None, one, other, one, None])]
    assert parts == [([0, 4], None), ([1, 3], one), ([2], other)]


def test_items_must_fit_the_counts():
    with pytest.raises(DataError, match="2 items, but counts of 3"):
        Shelf(np.zeros(4, np.float32), [Item(), Item()])
    assert Shelf(np.zeros(4, np.float32), [Item()] * 3).table is None
