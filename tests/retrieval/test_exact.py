"""Exact search: blocks, and the tie rule at the border of the list."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays

from dimerec.retrieval import exact
from dimerec.retrieval.exact import ExactIndex, top

values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf, np.nan])


@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=values), st.data()
)
def test_top_is_a_sort(scores, data):
    n = data.draw(st.integers(1, 12))
    columns = st.lists(st.integers(0, scores.shape[1] - 1), max_size=5)
    exclude = [np.array(data.draw(columns), np.int64) for _ in scores]
    numbers, best = top(torch.from_numpy(scores.copy()), n, exclude)
    for row, hidden in enumerate(exclude):
        pairs = [
            (i, s)
            for i, s in enumerate(scores[row].tolist())
            if i and i not in hidden and s > -np.inf  # False for NaN
        ]
        pairs = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:n]
        pairs += [(0, -np.inf)] * (n - len(pairs))
        assert list(zip(numbers[row].tolist(), best[row].tolist(), strict=True)) == pairs


def test_ties_at_the_border_go_to_the_smallest_numbers():
    scores = torch.tensor([[0.0] + [1.0] * 500 + [2.0]])
    numbers, _ = top(scores, 4, [np.array([2])])
    assert numbers.tolist() == [[501, 1, 3, 4]]


@pytest.mark.parametrize("block", [1, 64, 1000])
def test_blocks_do_not_change_the_answer(monkeypatch, block):
    rng = np.random.default_rng(1)
    vectors = rng.integers(-4, 5, (50, 4)).astype(np.float32)
    queries = rng.integers(-4, 5, (9, 2, 4)).astype(np.float32)
    exclude = [rng.integers(0, 50, 5) for _ in queries]
    whole = ExactIndex.build(vectors).search(queries, 7, exclude)
    monkeypatch.setattr(exact, "BLOCK", block)
    parts = ExactIndex.build(vectors).search(queries, 7, exclude)
    assert [a.tolist() for a in whole] == [a.tolist() for a in parts]


def test_building_copies_nothing():
    vectors = np.ones((4, 2), np.float32)
    assert np.shares_memory(ExactIndex.build(vectors).vectors, vectors)
