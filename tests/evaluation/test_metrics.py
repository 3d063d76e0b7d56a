"""Metrics against values worked out by hand and against plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.evaluation import metrics

RANKS = np.array([1, 2, 3, 10, 10.5, 11, 500], np.float32)


def test_values_by_hand() -> None:
    assert metrics.hr(RANKS, 10).tolist() == [1, 1, 1, 1, 0, 0, 0]
    ndcg = [1, 1 / math.log2(3), 0.5, 1 / math.log2(11), 0, 0, 0]
    np.testing.assert_allclose(metrics.ndcg(RANKS, 10), ndcg, rtol=1e-12)
    np.testing.assert_allclose(metrics.mrr(RANKS, 10), [1, 1 / 2, 1 / 3, 1 / 10, 0, 0, 0])
    assert metrics.hr(RANKS, 11).sum() == 6
    assert metrics.mrr(np.array([1.5]), 10)[0] == pytest.approx(2 / 3)
    assert all(metrics.METRICS[m](RANKS, 10).dtype == np.float64 for m in metrics.METRICS)


def test_summary_is_the_mean_at_three_cutoffs() -> None:
    found = metrics.summary(RANKS)
    assert set(found) == {f"{m}@{n}" for m in ("hr", "ndcg", "mrr") for n in (10, 20, 50)}
    assert found["hr@10"] == pytest.approx(4 / 7)
    assert found["hr@20"] == pytest.approx(6 / 7)
    assert found["mrr@50"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 0.1 + 1 / 10.5 + 1 / 11) / 7)


@given(st.lists(st.integers(2, 400), min_size=1), st.integers(1, 100))
def test_bounds_and_order(halves: list[int], n: int) -> None:
    ranks = np.array(halves) / 2
    hr, ndcg, mrr = (metrics.METRICS[m](ranks, n) for m in ("hr", "ndcg", "mrr"))
    assert ((mrr >= 0) & (mrr <= ndcg) & (ndcg <= hr) & (hr <= 1)).all()
    for m in metrics.METRICS.values():
        assert (m(ranks, n) <= m(ranks, n + 1)).all()  # a longer list never loses
        assert (m(np.maximum(ranks - 0.5, 1), n) >= m(ranks, n)).all()  # nor a better rank


def test_coverage_by_hand() -> None:
    assert metrics.coverage(np.array([[1, 2], [2, 3]]), 5) == 3 / 4
    assert metrics.coverage(np.array([[1, 0], [0, 0]]), 5) == 1 / 4
    assert metrics.coverage(np.array([[1, 2, 3, 4]]), 5) == 1.0
    assert metrics.coverage(np.zeros((3, 0), np.int64), 5) == 0.0


def test_categories_by_hand() -> None:
    known = [("a",), ("a", "b"), (), ("c",), ("c", "c")]  # items 1..5
    lists = np.array([[1, 2, 3], [4, 5, 0], [3, 0, 0]])
    assert metrics.categories(lists[:1], known) == 2.0
    assert metrics.categories(lists[1:2], known) == 1.0
    assert metrics.categories(lists[2:], known) == 0.0
    assert metrics.categories(lists, known) == 1.0
    assert metrics.categories(lists, [()] * 5) == 0.0


@given(st.data())
def test_categories_as_sets_in_plain_python(data: st.DataObject) -> None:
    known = data.draw(st.lists(st.lists(st.sampled_from("abcdef")).map(tuple), min_size=1))
    number = st.integers(0, len(known))
    lists = data.draw(st.lists(st.lists(number, min_size=4, max_size=4), min_size=1))
    sets = [{c for i in row if i for c in known[i - 1]} for row in lists]
    expected = sum(map(len, sets)) / len(sets)
    assert metrics.categories(np.array(lists), known) == pytest.approx(expected)


def test_categories_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    known = [tuple(rng.choice(list("abcdefgh"), 2)) for _ in range(30)]
    lists = rng.integers(0, 31, (50, 4))
    each = [metrics.categories(lists[i : i + 1], known) for i in range(50)]
    monkeypatch.setattr(metrics, "CELLS", 100)  # three lists at a time
    assert metrics.categories(lists, known) == pytest.approx(np.mean(each))
