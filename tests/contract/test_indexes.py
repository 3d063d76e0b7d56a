"""Every index obeys one contract, against a search written out in plain Python."""

from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from dimerec.errors import DataError
from dimerec.retrieval import EXACT_LIMIT, RetrievalIndex, index
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex

INDEXES = [ExactIndex, ApproximateIndex]
every_index = pytest.mark.parametrize("kind", INDEXES)


def brute_force(vectors, queries, n, exclude):
    """`[(number, score), ...]` of each user, in pure Python."""
    out = []
    for user, hidden in zip(queries.tolist(), exclude, strict=True):
        hidden = set(hidden.tolist())
        scored = [
            (number, max(sum(a * b for a, b in zip(q, v, strict=True)) for q in user))
            for number, v in enumerate(vectors.tolist())
            if number and number not in hidden
        ]
        finite = all(x == x and abs(x) < np.inf for q in user for x in q)
        out.append(sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:n] if finite else [])
    return out


@st.composite
def searches(draw):
    """Whole-numbered vectors (sums are exact, ties frequent), queries, n and exclusions."""
    whole = st.integers(-2, 2)
    size, width = draw(st.integers(1, 90)), draw(st.integers(1, 5))
    users, interests = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    vectors = draw(arrays(np.float32, (size, width), elements=whole, fill=whole))
    queries = draw(arrays(np.float32, (users, interests, width), elements=whole, fill=whole))
    broken = draw(st.sets(st.integers(0, 3), max_size=1))
    for user in broken & set(range(users)):
        queries[user, -1, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    numbers = st.lists(st.integers(-3, size + 3), max_size=size + 5)
    exclude = [np.array(draw(numbers), np.int64) for _ in range(users)]
    return vectors, queries, draw(st.integers(1, 100)), exclude


@every_index
@settings(max_examples=120)
@given(searches())
def test_search_is_brute_force(kind, search):
    vectors, queries, n, exclude = search
    built: RetrievalIndex = kind.build(vectors)
    numbers, scores = built.search(queries, n, exclude)
    assert numbers.shape == scores.shape == (len(queries), n)
    assert numbers.dtype == np.int64 and scores.dtype == np.float32
    wanted = brute_force(vectors, queries, n, exclude)
    for user, expected in enumerate(wanted):
        pairs = list(zip(numbers[user].tolist(), scores[user].tolist(), strict=True))
        answer, rest = pairs[: len(expected)], pairs[len(expected) :]
        assert rest == [(0, -np.inf)] * len(rest)
        # Candidates tied at the border are an approximate index's own choice; nothing else is.
        assert [s for _, s in answer] == [s for _, s in expected]
        assert answer == sorted(answer, key=lambda pair: (-pair[1], pair[0]))
        assert len({i for i, _ in answer}) == len(answer)
        allowed = dict(brute_force(vectors, queries, len(vectors), exclude)[user])
        assert all(allowed[i] == s for i, s in answer)
        if kind is ExactIndex:
            assert answer == expected


@every_index
def test_interests_merge_by_their_best_score(kind):
    vectors = np.array([[0, 0], [1, 0], [0, 1], [2, 2], [-1, -1]], np.float32)
    queries = np.array([[[1, 0], [0, 3]]], np.float32)
    numbers, scores = kind.build(vectors).search(queries, 5)
    assert numbers.tolist() == [[3, 2, 1, 4, 0]]
    assert scores.tolist() == [[6, 3, 1, -1, -np.inf]]


@every_index
def test_padding_never_comes_even_when_it_would_win(kind):
    vectors = np.array([[9, 9], [-1, 0], [0, -1]], np.float32)
    numbers, _ = kind.build(vectors).search(np.ones((1, 1, 2), np.float32), 3)
    assert numbers.tolist() == [[1, 2, 0]]


@every_index
@pytest.mark.parametrize("size", [1, 2])
def test_an_empty_or_single_catalogue_answers(kind, size):
    built = kind.build(np.ones((size, 3), np.float32))
    numbers, scores = built.search(np.ones((2, 2, 3), np.float32), 2)
    assert numbers.tolist() == [[1, 0] if size == 2 else [0, 0]] * 2
    assert scores[:, 1].tolist() == [-np.inf] * 2
    assert built.search(np.ones((0, 2, 3), np.float32), 2)[0].shape == (0, 2)


@every_index
def test_a_user_is_not_touched_by_the_others(kind):
    rng = np.random.default_rng(5)
    vectors = rng.integers(-3, 4, (400, 6)).astype(np.float32)
    queries = rng.integers(-3, 4, (12, 2, 6)).astype(np.float32)
    queries[3] = np.nan
    exclude = [rng.integers(0, 400, m) for m in rng.integers(0, 380, 12)]
    built = kind.build(vectors)
    together = built.search(queries, 15, exclude)
    for user in range(12):
        alone = built.search(queries[user : user + 1], 15, exclude[user : user + 1])
        assert alone[1].tolist() == together[1][user : user + 1].tolist()
        if kind is ExactIndex:
            assert alone[0].tolist() == together[0][user : user + 1].tolist()


@every_index
def test_threads_share_one_index(kind):
    rng = np.random.default_rng(6)
    built = kind.build(rng.standard_normal((2000, 8)).astype(np.float32))
    queries = rng.standard_normal((16, 1, 2, 8)).astype(np.float32)
    alone = [built.search(q, 10)[0].tolist() for q in queries]
    with ThreadPoolExecutor(4) as pool:
        assert [r[0].tolist() for r in pool.map(lambda q: built.search(q, 10), queries)] == alone


@every_index
def test_wrong_input_is_named(kind):
    built = kind.build(np.ones((4, 3), np.float32))
    queries = np.ones((2, 1, 3), np.float32)
    for bad, words in [
        (lambda: built.search(queries[0], 1), r"queries must be \[B, K >= 1, 3\], got \[1, 3\]"),
        (lambda: built.search(queries[..., :2], 1), r"got \[2, 1, 2\]"),
        (lambda: built.search(queries[:, :0], 1), r"got \[2, 0, 3\]"),
        (lambda: built.search(queries, 0), "n must be at least 1, got 0"),
        (lambda: built.search(queries, 1, [np.array([1])]), "one array a query row: 2, got 1"),
        (lambda: kind.build(np.ones(3, np.float32)), r"must be \[V >= 1, d >= 1\], got \[3\]"),
        (lambda: kind.build(np.full((3, 2), np.nan, np.float32)), "row 0 and 2 more are not"),
    ]:
        with pytest.raises(DataError, match=words):
            bad()


def test_the_size_of_the_catalogue_chooses_the_index(monkeypatch):
    small = np.zeros((EXACT_LIMIT + 1, 1), np.float32)
    assert isinstance(index(small), ExactIndex)
    monkeypatch.setattr("dimerec.retrieval.EXACT_LIMIT", 99)
    rng = np.random.default_rng(0)
    assert isinstance(index(rng.standard_normal((101, 4)).astype(np.float32)), ApproximateIndex)
