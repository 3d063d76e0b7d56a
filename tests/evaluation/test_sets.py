"""Set targets and their scores, against a plain reading of how ComiRec counts."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimerec.evaluation.sets import score_sets, set_queries
from tests.evaluation.toys import whole_users


def counted(lists: list[list[int]], targets: list[list[int]], n: int) -> dict[str, float]:
    """One user at a time: recall, hit rate and either NDCG."""
    recall = hits = ndcg = corrected = 0.0
    for shown, wanted in zip(lists, targets):
        places = [p for p, item in enumerate(shown[:n]) if item in set(wanted)]
        gain = sum(1 / math.log2(p + 2) for p in places)
        recall += len(places) / len(wanted)
        hits += bool(places)
        if places:
            ndcg += gain / sum(1 / math.log2(p + 2) for p in range(len(places)))
        corrected += gain / sum(1 / math.log2(p + 2) for p in range(min(n, len(set(wanted)))))
    return {"recall": recall, "hr": hits, "ndcg": ndcg, "corrected": corrected}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_scores_are_those_of_counting_user_by_user(seed: int):
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(np.arange(1, 40))[:20] for _ in range(6)])
    many = rng.integers(1, 9, 6)
    targets = np.where(np.arange(8) < many[:, None], rng.integers(1, 40, (6, 8)), 0)
    found = score_sets(lists, targets, (5, 20))
    plain = [row[row > 0].tolist() for row in targets]
    for n in (5, 20):
        wanted = {k: v / 6 for k, v in counted(lists.tolist(), plain, n).items()}
        theirs, ours = found["comirec"], found["comirec-corrected"]
        assert theirs.queries == ours.queries == 6
        assert theirs.hr[n] == ours.hr[n] == pytest.approx(wanted["hr"])
        assert theirs.recall[n] == ours.recall[n] == pytest.approx(wanted["recall"])
        assert theirs.ndcg[n] == pytest.approx(wanted["ndcg"])
        assert ours.ndcg[n] == pytest.approx(wanted["corrected"])


def test_their_normaliser_forgives_what_was_missed():
    targets = np.array([[1, 2, 3, 4]])
    found = score_sets(np.array([[1, 9, 8, 7]]), targets, (4,))
    assert found["comirec"].ndcg[4] == 1.0
    best = sum(1 / math.log2(p + 2) for p in range(4))
    assert found["comirec-corrected"].ndcg[4] == pytest.approx(1 / best)


def test_the_set_begins_where_their_code_begins(tmp_path: Path):
    data = whole_users(tmp_path / "d")
    queries, targets = set_queries(data)
    n = np.diff(data.offsets)
    rows = np.flatnonzero(data.valid_end < n)
    assert queries.rows.tolist() == rows.tolist()
    for q, row in enumerate(rows.tolist()):
        events = data.items[data.offsets[row] : data.offsets[row + 1]].tolist()
        k = int(len(events) * 0.8)
        assert targets[q][targets[q] > 0].tolist() == events[k:]
        assert queries.histories(slice(q, q + 1), 40)[0][40 - k :].tolist() == events[:k]
    assert all(4 * m // 5 == int(m * 0.8) for m in range(20_000))
