"""Bands of popularity, Gini and novelty against plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimerec.errors import DataError
from dimerec.evaluation import exposure


def test_bands_by_hand():
    counts = np.array([0, 1, 40, 0, 9, 20, 20, 5, 5])  # 100 events: thirds end at 33.3 and 66.7
    assert exposure.bands(counts).tolist() == [-1, 2, 0, 2, 2, 1, 1, 2, 2]
    assert exposure.bands(np.array([0, 7])).tolist() == [-1, 0]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
@settings(max_examples=50, deadline=None)
def test_bands_are_in_order_of_popularity(counts: list[int]):
    of = exposure.bands(np.array([0, *counts]))
    assert of[0] == -1 and set(of[1:]) <= {0, 1, 2} and 0 in of
    total, most = sum(counts), max(counts)
    for band in (0, 1):
        inside = [c for c, b in zip(counts, of[1:]) if b == band]
        after = [c for c, b in zip(counts, of[1:]) if b > band]
        assert min(inside, default=most) >= max(after, default=0)
        up_to = sum(c for c, b in zip(counts, of[1:]) if b <= band)
        assert up_to >= (band + 1) * total / 3 - 1e-9 or not any(after)


def test_nothing_to_divide():
    with pytest.raises(DataError, match="no bands"):
        exposure.bands(np.zeros(4))


def test_by_band_by_hand():
    counts = np.array([0, 40, 30, 20, 10, 0])  # head 1, middle 2, tail 3 to 5
    ranks, targets = np.array([1, 30, 5, 90, 12.5]), np.array([1, 1, 2, 3, 5])
    lists = np.array([[1, 2], [1, 3], [1, 0]])
    head, middle, tail = exposure.by_band(ranks, targets, lists, counts, (10, 20))
    assert (head.name, head.items, head.queries, head.hr) == ("head", 1, 2, {10: 0.5, 20: 0.5})
    assert (middle.items, middle.queries, middle.hr) == (1, 1, {10: 1.0, 20: 1.0})
    assert (tail.items, tail.queries, tail.hr) == (3, 2, {10: 0.0, 20: 0.5})
    assert [b.shown for b in (head, middle, tail)] == [0.6, 0.2, 0.2]
    (_, none, _) = exposure.by_band(ranks[:1], targets[:1], lists, counts)
    assert none.queries == 0 and none.hr == {}


def test_gini_is_the_mean_difference():
    rng = np.random.default_rng(0)
    lists = rng.choice(12, (30, 4), p=np.arange(12) / 66)
    times = [(lists == i).sum() for i in range(1, 15)]
    spread = sum(abs(a - b) for a in times for b in times)
    wanted = spread / (2 * len(times) ** 2 * np.mean(times))
    assert exposure.gini(lists, 15) == pytest.approx(wanted)
    assert exposure.gini(np.arange(1, 15)[None], 15) == pytest.approx(0.0)
    assert exposure.gini(np.full((5, 1), 3), 15) == pytest.approx(13 / 14)
    assert exposure.gini(np.zeros((2, 2), int), 15) == 0.0


def test_novelty_by_hand():
    counts = np.array([0.0, 6.0, 0.0, 2.0])  # with one more each: 7, 1 and 3 of 11
    lists = np.array([[1, 2], [3, 0]])
    wanted = -(math.log2(7 / 11) + math.log2(1 / 11) + math.log2(3 / 11)) / 3
    assert exposure.novelty(lists, counts) == pytest.approx(wanted)
