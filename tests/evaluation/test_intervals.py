"""Intervals over users, against plain loops and cases with known answers."""

import numpy as np
import pytest

from dimerec.errors import DataError
from dimerec.evaluation import intervals
from dimerec.evaluation.intervals import DRAWS, Interval, difference, interval
from tests.evaluation.cards import scored


def test_the_value_is_the_mean_over_queries():
    result = scored([1, 30, 5, 21, 20], [0, 0, 0, 7, 7])
    assert interval(result, "hr@20").value == pytest.approx(3 / 5)
    assert interval(result, "mrr@20").value == pytest.approx((1 + 1 / 5 + 1 / 20) / 5)


def test_one_user_alone_has_no_spread():
    found = interval(scored([1, 50, 3], [4, 4, 4]), "hr@20")
    assert found.low == found.high == pytest.approx(found.value)


def test_users_are_drawn_whole():
    """100 queries of one user tell no more than that user: a few users spread widely."""
    rng = np.random.default_rng(0)
    level = rng.random(12) < 0.5
    users = np.repeat(np.arange(12), 100)
    clustered = interval(scored(list(np.where(level[users], 1, 99)), list(users)), "hr@20")
    alone = interval(scored(list(np.where(level[users], 1, 99)), list(range(1200))), "hr@20")
    assert clustered.high - clustered.low > 5 * (alone.high - alone.low)


def test_it_covers_as_often_as_it_says():
    """The normal approximation of a mean over many independent users."""
    rng = np.random.default_rng(1)
    hits = rng.random(2000) < 0.3
    found = interval(scored(list(np.where(hits, 1, 99)), list(range(2000))), "hr@20")
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 2000)
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_a_difference_is_paired():
    users = list(range(400))
    rng = np.random.default_rng(2)
    base = np.where(rng.random(400) < 0.5, 1, 99)
    better = base.copy()
    better[np.flatnonzero(base == 99)[:40]] = 1  # hits all that the base hits, and 40 more
    gap = difference(scored(list(better), users), scored(list(base), users), "hr@20")
    assert gap.value == pytest.approx(0.1) and gap.is_clear and gap.low > 0.06
    none = difference(scored(list(base), users), scored(list(base), users), "hr@20")
    assert (none.value, none.low, none.high) == (0, 0, 0) and not none.is_clear


def test_a_difference_of_other_queries_is_refused():
    with pytest.raises(DataError, match="different queries"):
        difference(scored([1], [1]), scored([1], [2]), "hr@20")


def test_what_is_clear():
    assert Interval(0.1, 0.05, 0.2).is_clear and Interval(-0.1, -0.2, -0.01).is_clear
    assert not Interval(0.1, -0.01, 0.2).is_clear
    assert DRAWS >= 1000


def test_draws_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    users, values = rng.integers(0, 50, 300), rng.random((2, 300))
    whole = intervals.resampled(values, users)
    monkeypatch.setattr(intervals, "CELLS", 50 * 7)
    for found, wanted in [
        (intervals.resampled(values, users), whole),
        (intervals.resampled(values[1:], users), whole[1:]),  # each row stands alone
    ]:
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted):
            assert [one.low, one.high] == pytest.approx([other.low, other.high])
