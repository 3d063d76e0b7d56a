"""Approximate search: recall against exact, and what to do when the cells hold too little."""

import subprocess
import sys

import numpy as np
import pytest

from dimerec.retrieval import approximate
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex


@pytest.fixture(scope="module")
def clustered():
    """20,000 items around 200 centres with norms that vary, and 100 users of 3 interests."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, 32))
    items = centres[rng.integers(0, 200, 20_001)] + 0.6 * rng.standard_normal((20_001, 32))
    items *= rng.lognormal(0, 0.2, (20_001, 1))
    users = centres[rng.integers(0, 200, (100, 3))] + 0.6 * rng.standard_normal((100, 3, 32))
    vectors = items.astype(np.float32)
    return ApproximateIndex.build(vectors), ExactIndex.build(vectors), users.astype(np.float32)


def test_recall_and_scores_are_near_exact(clustered):
    built, reference, queries = clustered
    assert built.cells > 10 * approximate.PROBES  # it does skip most of the catalogue
    rng = np.random.default_rng(1)
    exclude = [rng.integers(0, 20_001, m) for m in rng.integers(0, 300, len(queries))]
    numbers, scores = built.search(queries, 50, exclude)
    wanted, best = reference.search(queries, 50, exclude)
    recall = np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(numbers, wanted, strict=True)])
    assert recall > 0.97
    assert (scores <= best + 1e-4).all()
    for user, row in enumerate(numbers):
        exact = (built.vectors[row] @ queries[user].T).max(axis=1)
        np.testing.assert_allclose(scores[user], exact, rtol=1e-5)
        assert not np.isin(row, exclude[user]).any() and len(set(row)) == 50 and row.min() > 0


def test_one_long_exclusion_leaves_the_batch_alone(clustered):
    built, reference, queries = clustered
    everything = np.arange(20_001)
    keep = np.array([5, 77, 19_999])
    exclude = [everything[:0]] * 4 + [np.setdiff1d(everything, keep)]
    numbers, _ = built.search(queries[:5], 10, exclude)
    assert sorted(numbers[4, :3]) == keep.tolist()
    assert numbers[4, 3:].tolist() == [0] * 7
    assert numbers[4].tolist() == reference.search(queries[4:5], 10, exclude[4:])[0][0].tolist()
    assert (numbers[:4] == built.search(queries[:4], 10)[0]).all()


def test_cells_that_hold_too_little_are_made_up_exactly(monkeypatch):
    rng = np.random.default_rng(2)
    crowd = np.eye(16)[0] + 0.01 * rng.standard_normal((3900, 16))
    loners = 3 * rng.standard_normal((101, 16))
    vectors = np.concatenate([loners, crowd]).astype(np.float32)
    built, reference = ApproximateIndex(vectors, probes=1), ExactIndex.build(vectors)
    asked = []
    search = built._exact.search
    monkeypatch.setattr(
        built._exact, "search", lambda q, *rest: (asked.append(len(q)), search(q, *rest))[1]
    )
    queries = vectors[1:41, None]  # in cells of a few loners each
    numbers, scores = built.search(queries, 30)
    assert sum(asked) > 5
    assert (numbers > 0).all() and np.isfinite(scores).all()
    wanted = reference.search(queries, 30)[0]
    assert sum(np.array_equal(a, b) for a, b in zip(numbers, wanted, strict=True)) >= sum(asked)


def test_the_same_vectors_build_the_same_index(clustered):
    built, _, queries = clustered
    again = ApproximateIndex.build(built.vectors.copy())
    assert built.search(queries, 20)[0].tolist() == again.search(queries, 20)[0].tolist()


def test_exact_search_loads_no_faiss():
    code = (
        "import sys, numpy as np; from dimerec import retrieval;"
        "retrieval.index(np.ones((3, 2), np.float32)); sys.exit('faiss' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
