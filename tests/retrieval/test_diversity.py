"""Controllable aggregation by hand, and against the definition of Q(u, S)."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.errors import DataError
from dimerec.retrieval.diversity import diverse, table
from dimerec.vocabulary import Item

ITEMS = [
    Item(categories=("a",)),
    Item(categories=("a",)),
    Item(categories=("b",)),
    Item(categories=("c",)),
]
NUMBERS = np.array([[1, 2, 3, 4]])
SCORES = np.array([[1.0, 0.9, 0.8, 0.1]], np.float32)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.0, [1, 2, 3]),
        (0.3, [1, 3, 2]),  # after 1: 0.9, 0.8 + 0.3, 0.1 + 0.3; then 0.9 + 0.3, 0.1 + 0.6
        (0.9, [1, 3, 4]),  # then 0.9 + 0.9 against 0.1 + 1.8
    ],
)
def test_by_hand(weight, expected):
    numbers, scores = diverse(NUMBERS, SCORES, table(ITEMS), 3, weight)
    assert numbers.tolist() == [expected]
    assert scores.tolist() == [[SCORES[0, n - 1] for n in expected]]
    assert scores.dtype == np.float32 and numbers.dtype == np.int64


def worth(chosen, score, categories, weight):
    """Q(u, S) as it is defined."""
    pairs = itertools.combinations(chosen, 2)
    differing = sum(1 for i, j in pairs if not categories[i] & categories[j])
    return sum(score[i] for i in chosen) + weight * differing


names = st.sets(st.sampled_from("abc"), max_size=2)
# eighths add up exactly, so ties are ties
users = st.lists(st.one_of(st.integers(-16, 16), st.none()), min_size=6, max_size=6)


@given(
    st.lists(names, min_size=9, max_size=9),
    st.lists(users, min_size=0, max_size=3),
    st.integers(1, 8),
    st.integers(0, 16),
    st.randoms(use_true_random=False),
)
def test_every_choice_adds_most_to_q(categories, drawn, n, eighths, random):
    weight = eighths / 8
    items = [Item(categories=tuple(sorted(c))) for c in categories]
    numbers = np.array([random.sample(range(1, 10), 6) for _ in drawn], np.int64).reshape(-1, 6)
    scores = np.array([[np.nan if s is None else s / 8 for s in row] for row in drawn], np.float32)
    got, values = diverse(numbers, scores.reshape(-1, 6), table(items), n, weight)
    for row in range(len(drawn)):
        score = {int(i): float(s) for i, s in zip(numbers[row], scores[row]) if not np.isnan(s)}
        kinds = {i: categories[i - 1] for i in score}
        chosen = []
        for _ in range(min(n, len(score))):
            rest = [i for i in score if i not in chosen]  # in the order of the candidates
            chosen.append(max(rest, key=lambda i: worth([*chosen, i], score, kinds, weight)))
        spare = n - len(chosen)
        assert got[row].tolist() == chosen + [0] * spare
        assert values[row].tolist() == [score[i] for i in chosen] + [-np.inf] * spare


def test_no_candidate_comes_as_none():
    nothing = np.zeros((1, 3), np.int64), np.full((1, 3), -np.inf, np.float32)
    for numbers, scores in (nothing, tuple(a[:, :0] for a in nothing)):
        got, values = diverse(numbers, scores, table(ITEMS), 2, 0.5)
        assert got.tolist() == [[0, 0]] and values.tolist() == [[-np.inf, -np.inf]]


def test_items_of_no_category_differ_from_all():
    categories = table([Item(), Item(), Item(categories=("a",))])
    scores = np.array([[2.0, 1.0, 1.5]], np.float32)
    numbers, _ = diverse(np.array([[1, 2, 3]]), scores, categories, 3, 10.0)
    assert numbers.tolist() == [[1, 3, 2]]


def test_the_table_of_categories():
    items = [Item(categories=("x", "y")), Item(), Item(categories=("y",)), Item(categories=("z",))]
    assert table(items).tolist() == [[0, 0], [1, 2], [0, 0], [2, 0], [3, 0]]
    assert table([]).tolist() == [[0]]
    assert table([Item()]).tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": SCORES[:, :2]}, r"must both be \[B, C\], got \[1, 4\] and \[1, 2\]"),
        ({"numbers": np.array([[1, 2, 3, 5]])}, r"must be in 0..4, got 1 to 5"),
        ({"numbers": np.array([[1, 2, 3, -1]])}, r"must be in 0..4, got -1 to 3"),
        ({"numbers": np.array([[1, 2, 1, 3]])}, "distinct"),
        ({"categories": np.ones(5, np.int64)}, r"whole numbers \[V, G\], got int64 \[5\]"),
        ({"categories": np.ones((5, 1))}, r"whole numbers \[V, G\], got float64"),
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"weight": -0.1}, "weight must be .* at least 0, got -0.1"),
        ({"weight": float("nan")}, "got nan"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    right = {
        "numbers": NUMBERS,
        "scores": SCORES,
        "categories": table(ITEMS),
        "n": 2,
        "weight": 1.0,
    }
    with pytest.raises(DataError, match=message):
        diverse(**{**right, **change})
