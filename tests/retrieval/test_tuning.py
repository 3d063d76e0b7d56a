"""Tuning: the fewest cells that reach a recall, and no promise that cannot be kept."""

import numpy as np
import pytest

from dimerec.errors import DataError
from dimerec.retrieval import tuning
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.retrieval.filters import Allowed
from dimerec.retrieval.tuning import DEPTH, hits, tune


@pytest.fixture(scope="module")
def crowd():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 16))
    rows = centres[rng.integers(0, 60, 6001)] + 0.7 * rng.standard_normal((6001, 16))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = centres[rng.integers(0, 60, (120, 2))] + 0.7 * rng.standard_normal((120, 2, 16))
    return ApproximateIndex.build(vectors), queries.astype(np.float32)


def recall_at(index, queries, probes, depth):
    index.probes = probes
    found = index.search(queries, depth)[0]
    wanted = ExactIndex(index.vectors).search(queries, depth)[0]
    shares = [len(set(a) & set(b)) / depth for a, b in zip(found.tolist(), wanted.tolist())]
    return float(np.mean(shares))


@pytest.mark.parametrize("wanted", [0.95, 0.995])
def test_the_fewest_cells_that_reach_it(crowd, wanted, monkeypatch):
    index, queries = crowd
    monkeypatch.setattr(tuning, "DEPTH", 10)  # a list of 100 takes more cells in any case
    tuned = tune(index, queries, wanted)
    assert index.probes == tuned.probes < index.cells
    assert tuned.recall == pytest.approx(recall_at(index, queries, tuned.probes, 10))
    assert tuned.recall >= wanted > recall_at(index, queries, tuned.probes - 1, 10)


def test_what_no_number_of_cells_reaches_is_refused(crowd):
    index, queries = crowd
    rough = ApproximateIndex(index.vectors * np.float32(1), probes=5)
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((400, 16)).astype(np.float32)
    rough.add(np.arange(1, 401), 50 * rows)  # far beyond what eight bits were fitted to
    with pytest.raises(DataError, match=f"all {rough.cells} cells reach .* --codes flat"):
        tune(rough, queries, 1.0)
    assert rough.probes == 5
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(DataError, match="recall must be in"):
            tune(index, queries, wrong)


def test_filters_and_changes_keep_the_recall(crowd):
    index, queries = crowd
    tune(index, queries, 0.97)
    built = ApproximateIndex(index.vectors, probes=index.probes)
    rng = np.random.default_rng(2)
    moved = rng.permutation(np.arange(1, 6001))[:600]
    built.remove(moved[300:])
    built.add(moved[:300], index.vectors[moved[300:]])  # as if those had other numbers
    exact = ExactIndex(built.vectors, built.gone)
    some = Allowed(rng.permutation(np.arange(1, 6001))[:3000], 6001)
    for allow in (None, [some] * len(queries)):
        found = built._search(
            queries, DEPTH, [np.zeros(0, np.int64)] * len(queries), allow or [None] * len(queries)
        )[0]
        wanted = exact.search(queries, DEPTH, None, allow)[0]
        assert hits(found, wanted).mean() > 0.95


def test_hits_by_hand():
    found = np.array([[1, 2, 0], [5, 0, 0], [0, 0, 0]])
    wanted = np.array([[2, 3, 1], [2, 0, 0], [4, 5, 0]])
    assert hits(found, wanted).tolist() == [
        [True, False, True],
        [False, False, False],
        [False, False, False],
    ]
