import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec import config
from dimerec.config import NegativesConfig
from dimerec.data.negatives import Negatives, clear_seen
from dimerec.errors import ConfigError, DataError
from dimerec.randomness import stream

COUNTS = np.array([0, 5, 9, 0, 9, 1, 30], np.float32)  # V = 7
EMPTY = np.zeros((1, 2), np.int64)


def chi_square(drawn: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic of drawn numbers against probabilities `[V]` of 1..V-1."""
    observed = np.bincount(drawn, minlength=len(expected))[1:]
    wanted = expected[1:] * len(drawn)
    return float(((observed - wanted) ** 2 / wanted).sum())


def test_uniform_draws_every_item_alike() -> None:
    sampler = Negatives(NegativesConfig(kind="uniform", number=60_000), COUNTS)
    drawn, log_q = sampler.draw(stream(0, "n"), EMPTY, EMPTY)
    assert (drawn.dtype, log_q.dtype, drawn.shape) == (np.int64, np.float32, (60_000,))
    assert set(drawn.tolist()) == {1, 2, 3, 4, 5, 6}
    assert np.allclose(log_q, -math.log(6))
    assert chi_square(drawn, np.full(7, 1 / 6)) < 20.5  # 5 degrees: p = 0.001


def test_log_uniform_follows_the_ranks() -> None:
    sampler = Negatives(NegativesConfig(kind="log-uniform", number=60_000), COUNTS)
    drawn, log_q = sampler.draw(stream(0, "n"), EMPTY, EMPTY)
    p = np.zeros(7)
    for rank, item in enumerate([6, 2, 4, 1, 5, 3]):  # counts descending, ties by number
        p[item] = math.log((rank + 2) / (rank + 1)) / math.log(7)
    assert math.isclose(p.sum(), 1.0)
    assert np.allclose(np.exp(log_q), p[drawn], rtol=1e-5)
    assert chi_square(drawn, p) < 20.5


def test_in_batch_keeps_repeats_and_knows_their_shares() -> None:
    targets = np.array([[0, 2, 2], [0, 0, 6]])
    sampler = Negatives(NegativesConfig(kind="in-batch", number=10), COUNTS)
    drawn, log_q = sampler.draw(stream(0, "n"), targets, targets)
    assert drawn.tolist() == [2, 2, 6]
    assert np.allclose(np.exp(log_q), [9 / 54, 9 / 54, 30 / 54])


def test_in_batch_takes_a_random_part_of_many() -> None:
    targets = np.arange(1, 7)[None].repeat(50, axis=0)
    sampler = Negatives(NegativesConfig(kind="in-batch", number=40), COUNTS + 1)
    drawn, _ = sampler.draw(stream(0, "n"), targets, targets)
    assert drawn.shape == (40,)
    assert len(set(drawn.tolist())) == 6
    other, _ = sampler.draw(stream(1, "n"), targets, targets)
    assert not np.array_equal(drawn, other)


def test_in_batch_without_the_rows_own_window_is_what_the_other_rows_have() -> None:
    windows = np.array([[0, 3, 2, 2], [0, 0, 5, 6]])
    targets = np.where(windows[:, :-1] > 0, windows[:, 1:], 0)
    config = NegativesConfig(kind="in-batch", number=10, exclude="window")
    sampler = Negatives(config, COUNTS)
    drawn, log_q = sampler.draw(stream(0, "n"), windows, targets)
    assert sampler.private
    assert drawn.tolist() == [[[0, 0, 6]] * 3, [[2, 2, 0]] * 3]
    shared = Negatives(NegativesConfig(kind="in-batch", number=10), COUNTS)
    numbers, expected = shared.draw(stream(0, "n"), windows, targets)
    assert not shared.private and numbers.tolist() == [2, 2, 6]
    assert log_q.shape == drawn.shape and np.array_equal(log_q[1, 2], expected)


def test_in_batch_negatives_come_from_the_own_session_far_above_their_share() -> None:
    """Sessions of five out of 1,000 items: a twentieth of the targets are a row's own, while
    their items are 4 in 1,000 of all events. `exclude = "window"` leaves none."""
    rng = stream(0, "sessions")
    windows = rng.permuted(np.tile(np.arange(1, 1001), (20, 1)), axis=1)[:, :6]
    counts = np.r_[0, np.ones(1000)].astype(np.float32)
    held = {}
    for exclude in ("target", "window"):
        sampler = Negatives(NegativesConfig(kind="in-batch", number=100, exclude=exclude), counts)
        drawn, _ = sampler.draw(stream(0, "n"), windows, windows[:, 1:])
        rows = np.broadcast_to(drawn, (20, 5, 100)).reshape(20, -1)
        held[exclude] = np.mean([np.isin(rows[r], windows[r]).mean() for r in range(20)])
    assert held["target"] > 0.04 and held["window"] == 0


def test_none_draws_nothing() -> None:
    drawn, log_q = Negatives(NegativesConfig(), COUNTS).draw(stream(0, "n"), EMPTY, EMPTY)
    assert drawn.shape == log_q.shape == (0,)


@pytest.mark.parametrize("kind", ["uniform", "log-uniform"])
def test_private_negatives_differ_between_positions(kind) -> None:
    sampler = Negatives(
        NegativesConfig(kind=kind, number=5, private=True), np.ones(1000, np.float32)
    )
    targets = np.ones((8, 6), np.int64)
    drawn, log_q = sampler.draw(stream(0, "n"), targets, targets)
    assert drawn.shape == log_q.shape == (8, 6, 5)
    assert len({tuple(row) for row in drawn.reshape(-1, 5).tolist()}) == 48


def test_window_collisions_become_padding() -> None:
    config = NegativesConfig(kind="uniform", number=50, private=True, exclude="window")
    windows = np.array([[0, 1, 2], [4, 5, 6]])
    drawn, log_q = Negatives(config, COUNTS).draw(stream(0, "n"), windows, windows[:, 1:])
    free, _ = Negatives(NegativesConfig(kind="uniform", number=50, private=True), COUNTS).draw(
        stream(0, "n"), windows, windows[:, 1:]
    )
    assert set(drawn[0].ravel().tolist()) == {0, 3, 4, 5, 6}
    assert set(drawn[1].ravel().tolist()) == {0, 1, 2, 3}
    assert np.array_equal(drawn[drawn > 0], free[drawn > 0])  # nothing else was touched
    assert np.allclose(log_q, -math.log(6))


@given(
    size=st.sampled_from([3, 40, 4096, 4097, 20_000, 2_000_000]),
    seed=st.integers(0, 2**32),
    width=st.integers(1, 80),
)
def test_clear_seen_against_isin(size: int, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    span = min(size, 60)  # multiples of a table's size meet in one slot
    pool = np.unique(np.r_[rng.integers(1, size, span), np.arange(4096, size, 4096)[:span]])
    pool = pool[(pool > 0) & (pool < size)]
    windows = rng.choice(pool, (5, width)) * rng.integers(0, 2, (5, width))  # padding anywhere
    numbers = rng.choice(pool, (5, 7, 3))
    expected = numbers.copy()
    for row in range(5):
        expected[row][np.isin(expected[row], windows[row])] = 0
    clear_seen(numbers, windows, size)
    assert np.array_equal(numbers, expected)


def test_shared_negatives_cannot_exclude_windows() -> None:
    for kind in ("uniform", "log-uniform"):
        with pytest.raises(ConfigError) as caught:
            config.load("sasrec", [f"negatives.kind={kind}", "negatives.exclude=window"])
        assert str(caught.value) == (
            'sasrec: negatives: exclude = "window" needs private = true: shared negatives are '
            'masked by "target" only'
        )
    config.load("sasrec", ["negatives.kind=in-batch", "negatives.exclude=window"])
    config.load("sasrec", ["negatives.kind=none", "negatives.exclude=window"])


def test_no_items_no_negatives() -> None:
    with pytest.raises(DataError, match="no items"):
        Negatives(NegativesConfig(kind="uniform"), np.zeros(1, np.float32))


def test_one_item_is_drawn_surely() -> None:
    for kind in ("uniform", "log-uniform"):
        sampler = Negatives(NegativesConfig(kind=kind, number=3), np.array([0, 4], np.float32))
        drawn, log_q = sampler.draw(stream(0, "n"), EMPTY, EMPTY)
        assert drawn.tolist() == [1, 1, 1]
        assert np.allclose(log_q, 0.0, atol=1e-6)


def test_clearing_costs_less_than_comparing_with_whole_windows() -> None:
    windows = stream(0, "w").integers(1, 100_000, (256, 71))
    numbers = stream(0, "n").integers(1, 100_000, (256, 70, 10))

    def seconds(work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    flat = numbers.reshape(256, -1, 1)
    cleared = min(seconds(lambda: clear_seen(numbers.copy(), windows, 100_000)) for _ in range(9))
    compared = min(seconds(lambda: (flat == windows[:, None]).any(-1)) for _ in range(9))
    assert cleared < compared  # about 3 and 13 ms
