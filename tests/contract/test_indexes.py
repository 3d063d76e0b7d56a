"""Every index obeys one contract, against a search written out in plain Python."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from dimerec.errors import DataError
from dimerec.retrieval import EXACT_LIMIT, approximate, checked, index, storage
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.retrieval.filters import Allowed
from dimerec.retrieval.remote import RemoteIndex


def flat(vectors):
    return ApproximateIndex(checked(vectors), codes="flat")


def stored(kind, mmap):
    """An index that has been on the disk."""

    def build(vectors):
        with tempfile.TemporaryDirectory() as folder:  # what is mapped outlives its name
            kind(vectors).save(Path(folder) / "index")
            return storage.load(Path(folder) / "index", mmap=mmap)

    return build


KINDS = {
    "exact": ExactIndex.build,
    "approximate": ApproximateIndex.build,
    "flat": flat,
    "exact, mapped": stored(ExactIndex.build, True),
    "approximate, mapped": stored(ApproximateIndex.build, True),
    "flat, loaded": stored(flat, False),
    "remote": RemoteIndex.build,
}
every_index = pytest.mark.parametrize("kind", KINDS)
changeable = pytest.mark.parametrize(
    "kind", ["exact", "approximate", "flat", "flat, loaded", "remote"]
)


def brute_force(items, queries, n, exclude, allow=None):
    """`[(number, score), ...]` of each user, in pure Python; items: number -> vector."""
    out = []
    for user, (query, hidden) in enumerate(zip(queries.tolist(), exclude, strict=True)):
        hidden = set(hidden.tolist())
        allowed = (
            None if allow is None or allow[user] is None else set(allow[user].numbers.tolist())
        )
        scored = [
            (number, max(sum(a * b for a, b in zip(q, v, strict=True)) for q in query))
            for number, v in items.items()
            if number not in hidden and (allowed is None or number in allowed)
        ]
        finite = all(x == x and abs(x) < np.inf for q in query for x in q)
        out.append(sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:n] if finite else [])
    return out


def compare(kind, found, items, search, best=True):
    """Hold an answer against brute force; `best`: its items must be the best ones."""
    queries, n, exclude, allow = search
    numbers, scores = found
    assert numbers.shape == scores.shape == (len(queries), n)
    assert numbers.dtype == np.int64 and scores.dtype == np.float32
    everything = brute_force(items, queries, len(items), exclude, allow)
    for user, whole in enumerate(everything):
        expected = whole[:n]
        pairs = list(zip(numbers[user].tolist(), scores[user].tolist(), strict=True))
        answer, rest = pairs[: len(expected)], pairs[len(expected) :]
        assert rest == [(0, -np.inf)] * len(rest)
        assert answer == sorted(answer, key=lambda pair: (-pair[1], pair[0]))
        assert len({i for i, _ in answer}) == len(answer)
        assert all(dict(whole).get(i) == s for i, s in answer)
        # Candidates tied at the border are the index's own choice, unless it is exact.
        if best:
            assert [s for _, s in answer] == [s for _, s in expected]
        if kind.startswith("exact"):
            assert answer == expected


whole = st.integers(-2, 2)


@st.composite
def asked(draw, size, width):
    """Queries, n, exclusions and allow-lists (some shared) for a catalogue of `size`."""
    users, interests = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    queries = draw(arrays(np.float32, (users, interests, width), elements=whole, fill=whole))
    broken = draw(st.sets(st.integers(0, 3), max_size=1))
    for user in broken & set(range(users)):
        queries[user, -1, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    numbers = st.lists(st.integers(-3, size + 3), max_size=size + 5)
    exclude = [np.array(draw(numbers), np.int64) for _ in range(users)]
    sets = [None, *(Allowed(np.array(draw(numbers), np.int64), size) for _ in range(2))]
    allow = draw(st.lists(st.sampled_from(sets), min_size=users, max_size=users))
    return queries, draw(st.integers(1, 100)), exclude, draw(st.sampled_from([None, allow]))


@st.composite
def searches(draw):
    """Whole-numbered vectors (sums are exact, ties frequent) and what is asked of them."""
    size, width = draw(st.integers(1, 90)), draw(st.integers(1, 5))
    vectors = draw(arrays(np.float32, (size, width), elements=whole, fill=whole))
    return vectors, draw(asked(size, width))


EXAMPLES = {"exact": 60, "approximate": 60, "flat": 25}


@every_index
def test_search_is_brute_force(kind, monkeypatch, figure):
    monkeypatch.setattr(approximate, "MANY", 3)  # items scored one by one, where so few may come

    @settings(max_examples=EXAMPLES.get(kind, 12))
    @given(searches())
    def check(search):
        vectors, question = search
        found = KINDS[kind](vectors).search(*question)
        compare(kind, found, dict(enumerate(vectors.tolist()[1:], start=1)), question)
        figure(
            "{kinds} kinds of index: {users} users searched for as by brute force",
            users=len(found[0]),
        )

    check()
    figure("{kinds} kinds of index: {users} users searched for as by brute force", kinds=1)


@st.composite
def changes(draw):
    """A catalogue, a list of additions and removals, and what is asked in the end."""
    size, width = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    vectors = draw(arrays(np.float32, (size, width), elements=whole, fill=whole))
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            steps.append(("remove", draw(st.lists(st.integers(-2, size + 2), max_size=size)), None))
            continue
        numbers = draw(st.lists(st.integers(1, size + 4), max_size=9, unique=True))
        size = max([size, *(n + 1 for n in numbers)])
        shape = len(numbers), width
        rows = draw(arrays(np.float32, shape, elements=whole, fill=whole))
        steps.append(("add", numbers, rows))
    return vectors, steps, draw(asked(size, width))


@changeable
def test_changes_are_as_if_built_so(kind):
    @settings(max_examples=EXAMPLES.get(kind, 12))
    @given(changes())
    def check(drawn):
        vectors, steps, question = drawn
        original = vectors.copy()
        items = dict(enumerate(vectors.tolist()[1:], start=1))
        built = KINDS[kind](vectors)
        for what, numbers, rows in steps:
            if what == "remove":
                built.remove(np.array(numbers, np.int64))
                items = {n: v for n, v in items.items() if n not in numbers}
            else:
                built.add(numbers, rows)
                items.update(zip(numbers, rows.tolist(), strict=True))
        # Coordinates beyond those it was built of are cut to 8 bits badly.
        compare(kind, built.search(*question), items, question, best=kind != "approximate")
        assert (vectors == original).all()  # the caller's array is the caller's

    check()


@every_index
def test_a_changed_index_names_what_it_cannot_take(kind):
    built = KINDS[kind](np.ones((4, 3), np.float32))
    row = np.ones((1, 3), np.float32)
    for bad, words in [
        (lambda: built.add([0], row), "item numbers are at least 1, got 0"),
        (lambda: built.add([2, 2], np.ones((2, 3), np.float32)), "some come twice"),
        (lambda: built.add(np.array([1.5]), row), "must be whole numbers"),
        (lambda: built.add([2], row[:, :2]), r"need vectors of \[1, 3\], got \[1, 2\]"),
        (lambda: built.add([2], row * np.nan), "finite"),
        (lambda: built.search(row[None], 2, None, []), "one set a query row: 1, got 0"),
        (
            lambda: built.search(row[None], 2, None, [Allowed(np.array([7]), 9)]),
            "more items than the 3",
        ),
    ]:
        with pytest.raises(DataError, match=words):
            bad()
    assert sorted(built.search(row[None], 3)[0][0]) == [1, 2, 3]
    if "mapped" in kind:
        for change in (lambda: built.add([2], row), lambda: built.remove([2])):
            with pytest.raises(DataError, match="mapped from .* mmap=False"):
                change()


@changeable
def test_changes_and_searches_take_turns(kind):
    rng = np.random.default_rng(3)
    size, rounds = 400, 8 if kind == "remote" else 40
    vectors = rng.standard_normal((size, 8)).astype(np.float32)
    built = KINDS[kind](vectors)
    queries = rng.standard_normal((4, 2, 8)).astype(np.float32)
    half = np.arange(1, size, 2)
    done = threading.Event()

    def ask():
        asked = 0
        while not done.is_set() or not asked:
            found = built.search(queries, 20)[0]
            assert (found > 0).all() and all(len(set(row)) == 20 for row in found.tolist())
            odd = (found % 2 == 1).any(axis=1)
            assert odd.all() or not odd.any()  # a change is seen whole or not at all
            asked += 1
        return asked

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for _ in range(rounds):
            built.remove(half)
            built.add(half, vectors[half])
        done.set()
        assert all(a.result() for a in asking)
    assert built.size == size


@every_index
def test_interests_merge_by_their_best_score(kind):
    vectors = np.array([[0, 0], [1, 0], [0, 1], [2, 2], [-1, -1]], np.float32)
    queries = np.array([[[1, 0], [0, 3]]], np.float32)
    numbers, scores = KINDS[kind](vectors).search(queries, 5)
    assert numbers.tolist() == [[3, 2, 1, 4, 0]]
    assert scores.tolist() == [[6, 3, 1, -1, -np.inf]]


@every_index
def test_padding_never_comes_even_when_it_would_win(kind):
    vectors = np.array([[9, 9], [-1, 0], [0, -1]], np.float32)
    numbers, _ = KINDS[kind](vectors).search(np.ones((1, 1, 2), np.float32), 3)
    assert numbers.tolist() == [[1, 2, 0]]


@every_index
@pytest.mark.parametrize("size", [1, 2])
def test_an_empty_or_single_catalogue_answers(kind, size):
    built = KINDS[kind](np.ones((size, 3), np.float32))
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
    built = KINDS[kind](vectors)
    together = built.search(queries, 15, exclude)
    for user in range(12):
        alone = built.search(queries[user : user + 1], 15, exclude[user : user + 1])
        assert alone[1].tolist() == together[1][user : user + 1].tolist()
        if kind.startswith("exact"):
            assert alone[0].tolist() == together[0][user : user + 1].tolist()


@every_index
def test_threads_share_one_index(kind):
    rng = np.random.default_rng(6)
    built = KINDS[kind](rng.standard_normal((2000, 8)).astype(np.float32))
    queries = rng.standard_normal((16, 1, 2, 8)).astype(np.float32)
    alone = [built.search(q, 10)[0].tolist() for q in queries]
    with ThreadPoolExecutor(4) as pool:
        assert [r[0].tolist() for r in pool.map(lambda q: built.search(q, 10), queries)] == alone


@every_index
def test_wrong_input_is_named(kind):
    built = KINDS[kind](np.ones((4, 3), np.float32))
    queries = np.ones((2, 1, 3), np.float32)
    for bad, words in [
        (lambda: built.search(queries[0], 1), r"queries must be \[B, K >= 1, 3\], got \[1, 3\]"),
        (lambda: built.search(queries[..., :2], 1), r"got \[2, 1, 2\]"),
        (lambda: built.search(queries[:, :0], 1), r"got \[2, 0, 3\]"),
        (lambda: built.search(queries, 0), "n must be at least 1, got 0"),
        (lambda: built.search(queries, 1, [np.array([1])]), "one array a query row: 2, got 1"),
        (lambda: KINDS[kind](np.ones(3, np.float32)), r"must be \[V >= 1, d >= 1\], got \[3\]"),
        (lambda: KINDS[kind](np.full((3, 2), np.nan, np.float32)), "row 0 and 2 more are not"),
    ]:
        with pytest.raises(DataError, match=words):
            bad()


def test_the_size_of_the_catalogue_chooses_the_index(monkeypatch):
    small = np.zeros((EXACT_LIMIT + 1, 1), np.float32)
    assert isinstance(index(small), ExactIndex)
    monkeypatch.setattr("dimerec.retrieval.EXACT_LIMIT", 99)
    rng = np.random.default_rng(0)
    assert isinstance(index(rng.standard_normal((101, 4)).astype(np.float32)), ApproximateIndex)
