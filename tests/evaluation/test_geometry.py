"""Norms, uniformity, alignment and collapse against slow loops and known places."""

import itertools
import math

import numpy as np
import pytest

from dimerec.evaluation import geometry


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def test_norms():
    found = geometry.norms(np.array([[3.0, 4.0], [0.0, 1.0]], np.float32))
    assert (found.mean, found.std, found.min, found.max) == (3.0, 2.0, 1.0, 5.0)


def test_uniformity_by_loops(monkeypatch: pytest.MonkeyPatch):
    x = np.random.default_rng(0).normal(size=(23, 5))
    pairs = itertools.permutations(range(23), 2)
    each = [math.exp(-2 * float(((unit(x[i]) - unit(x[j])) ** 2).sum())) for i, j in pairs]
    assert geometry.uniformity(x) == pytest.approx(math.log(sum(each) / len(each)))
    monkeypatch.setattr(geometry, "ROWS", 4)
    assert geometry.uniformity(3 * x) == pytest.approx(math.log(sum(each) / len(each)))


def test_uniformity_of_one_point_and_of_a_sphere():
    assert geometry.uniformity(np.ones((50, 8))) == pytest.approx(0.0, abs=1e-9)
    spread = np.random.default_rng(1).normal(size=(1500, 256))
    # squared distances are 2 give or take 2 / sqrt(d)
    assert geometry.uniformity(spread) == pytest.approx(-4 + 0.5 * 16 / 256, abs=0.01)


def test_alignment_by_hand():
    x = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    y = np.array([[5.0, 0.0], [3.0, 0.0], [-1.0, 0.0]])
    assert geometry.alignment(x, y) == pytest.approx((0 + 2 + 4) / 3)


def test_collapse_by_loops():
    q = np.random.default_rng(2).normal(size=(7, 4, 6)).astype(np.float32)
    each = [
        float(unit(q[b, i]) @ unit(q[b, j]))
        for b in range(7)
        for i, j in itertools.permutations(range(4), 2)
    ]
    assert geometry.collapse(q) == pytest.approx(float(np.mean(each)), rel=1e-4)
    assert geometry.collapse(np.repeat(q[:, :1], 3, axis=1)) == pytest.approx(1.0)
    assert geometry.collapse(q[:, :1]) is None


def test_a_vector_of_nothing_has_no_direction():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert geometry.uniformity(x) == pytest.approx(math.log((4 * math.exp(-2) + 2) / 6))
