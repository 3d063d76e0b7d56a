"""What an index costs, counted by hand."""

import numpy as np
import pytest

from dimerec.evaluation.fidelity import Asked, Hits, _bands, measure
from dimerec.retrieval.approximate import ApproximateIndex


def test_bands_hold_a_third_of_the_events_each():
    counts = np.array([0, 1, 30, 15, 14, 20, 10, 0], np.float32)
    # by popularity: 2 (30 of 90), then 5 and 3 (from 30 and 50), then 4 (65), 6 (79), 1, 7
    assert _bands(counts).tolist() == [0, 2, 0, 1, 2, 1, 2, 2]
    assert _bands(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_recall_and_hits_by_hand(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((301, 4)).astype(np.float32)
    queries = rng.standard_normal((5, 1, 4)).astype(np.float32)
    index = ApproximateIndex(vectors, codes="flat", probes=index_all(vectors))
    order = np.argsort(-(queries[:, 0] @ vectors[1:].T), axis=1) + 1
    targets = np.array([order[0, 0], order[1, 19], order[2, 20], order[3, 49], order[4, 50]])
    counts = np.ones(301, np.float32)
    whole = measure(index, Asked(queries, targets, "some"), counts, 0.5)
    assert whole.recall == 1.0 and whole.queries == 5 and whole.target == 0.5
    assert whole.hits == [Hits(n=20, exact=0.4, index=0.4), Hits(n=50, exact=0.8, index=0.8)]

    lost = order[:, :10].copy()  # the index shall never find the ten best
    search = index.search
    monkeypatch.setattr(index, "search", lambda q, n: search(q, n, list(lost)))
    part = measure(index, Asked(queries, targets, "some"), counts)
    assert part.recall == pytest.approx(0.9)
    assert [h.index for h in part.hits] == pytest.approx([0.4, 0.8])
    # ranks are ten places better now: 20 and 21 come in at 10 and 11; the first is lost
    assert part.hits[0].cost == pytest.approx(0.0)
    found = order[:, 10:110]
    for number, band in enumerate(part.bands):
        wanted = [i for row in order[:, :100] for i in row if _bands(counts)[i] == number]
        kept = [
            i
            for row, there in zip(order[:, :100], found)
            for i in row
            if _bands(counts)[i] == number and i in there
        ]
        assert band.wanted == len(wanted)
        assert band.recall == pytest.approx(len(kept) / len(wanted))


def index_all(vectors) -> int:
    return len(vectors)


def test_cost_is_a_share_of_what_exact_search_has():
    assert Hits(n=20, exact=0.5, index=0.4).cost == pytest.approx(0.2)
    assert Hits(n=20, exact=0.0, index=0.0).cost == 0.0
