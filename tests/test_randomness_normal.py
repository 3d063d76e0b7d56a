"""The vectorised noise: standard normal, independent, and untouched by its batch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.randomness import key, normal

KEYS = np.arange(20_000, dtype=np.uint64)  # consecutive keys are the hard case for a hash


def reference(seed: int, number: int, n: int) -> list[float]:
    """The same stream with Python integers and doubles, one number at a time."""
    mask = 2**64 - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    first, second = divmod(key(seed, "normal"), 2**64)
    state = mix((mix(number ^ first) + second) & mask)
    out: list[float] = []
    for counter in range(1, n // 2 + 2):
        word = mix((state + counter * 0x9E3779B97F4A7C15) & mask)
        radius = math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32))
        angle = 2 * math.pi * (word & 0xFFFFFFFF) / 2**32
        out += [radius * math.cos(angle), radius * math.sin(angle)]
    return out[:n]


@given(st.integers(0, 2**40), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_is_the_stated_stream(seed: int, number: int, n: int) -> None:
    drawn = normal(seed, np.array([number], np.uint64), (n,))
    assert drawn.dtype == np.float32 and drawn.shape == (1, n)
    np.testing.assert_allclose(drawn[0], reference(seed, number, n), atol=3e-5)


def test_moments_and_tails_are_those_of_a_standard_normal() -> None:
    z = normal(3, KEYS, (2, 32)).astype(np.float64).ravel()
    error = 1 / math.sqrt(z.size)
    assert abs(z.mean()) < 5 * error
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2) * error
    assert abs((z**3).mean()) < 5 * math.sqrt(15) * error
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96) * error
    quantiles = np.quantile(z, [0.001, 0.1, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(quantiles, [-3.0902, -1.2816, 0, 1.2816, 3.0902], atol=0.02)


def test_columns_and_neighbouring_keys_and_seeds_are_uncorrelated() -> None:
    z = normal(0, KEYS, (16,)).astype(np.float64)
    bound = 5 / math.sqrt(len(KEYS))
    for values in (z, z**2 - 1):
        scale = (values**2).mean()
        columns = values.T @ values / len(KEYS) / scale
        assert np.abs(columns[~np.eye(16, dtype=bool)]).max() < bound
        rows = (values[1:] * values[:-1]).mean(axis=0) / scale
        assert np.abs(rows).max() < bound
    other = normal(1, KEYS, (16,))
    assert np.abs((z * other).mean(axis=0)).max() < bound


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), st.randoms())
def test_a_row_depends_on_its_own_key_alone(numbers: list[int], random) -> None:
    keys = np.array(numbers, np.uint64)
    whole = normal(7, keys, (3, 5))
    order = np.array(random.sample(range(len(keys)), len(keys)))
    assert np.array_equal(normal(7, keys[order], (3, 5)), whole[order])
    assert np.array_equal(normal(7, keys[:1], (3, 5)), whole[:1])


def test_a_longer_shape_continues_the_row() -> None:
    short, long = normal(0, KEYS[:9], (7,)), normal(0, KEYS[:9], (4, 7))
    assert np.array_equal(short, long[:, 0])


@pytest.mark.parametrize("shape", [(0,), (0, 8), (2, 0), (1,), (3, 5)])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_empty_and_odd_shapes(rows: int, shape: tuple[int, ...]) -> None:
    keys = np.arange(rows, dtype=np.uint64)
    assert normal(0, keys, shape).shape == (rows, *shape)


def test_does_not_change_its_keys() -> None:
    keys = KEYS[:5].copy()
    normal(0, keys, (4,))
    assert np.array_equal(keys, KEYS[:5])
