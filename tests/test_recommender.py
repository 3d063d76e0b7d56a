"""Recommending: outside ids in and out, whatever the histories hold."""

import inspect
from types import SimpleNamespace

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dimerec import recommender as module
from dimerec.batch import SequenceBatch
from dimerec.errors import DataError, ServingError
from dimerec.model import Catalogue, CountingModel
from dimerec.randomness import normal
from dimerec.recommender import Query, Recommendation, Recommender, left_padded
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.diversity import diverse, table
from dimerec.vocabulary import Item, Vocabulary
from tests.tools.models import tiny, tiny_counts

SIZE, LENGTH = 30, 4


def ids(number: int) -> int:
    return 1000 + 7 * number


VOCABULARY = Vocabulary([ids(n) for n in range(1, SIZE)])
COUNTS = torch.tensor([0.0] + [float(n % 5) for n in range(1, SIZE)])  # many ties


def make(noise: float = 0.0, **kwargs) -> Recommender:
    """A recommender on a tiny model with whole-numbered weights: sums are exact."""
    catalogue = Catalogue(size=SIZE, length=LENGTH, counts=COUNTS)
    model = tiny.Model(tiny.Config(noise=noise), catalogue)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.table.copy_(torch.randint(-3, 4, model.table.shape, generator=rng).float())
        model.table[0] = 0
    return Recommender(model, VOCABULARY, COUNTS, LENGTH, **kwargs)


def by_hand(recommender: Recommender, history, n, hide_seen) -> Recommendation:
    """The answer by plain Python."""
    table = recommender._model.item_vectors().tolist()
    numbers = {ids(k): k for k in range(1, SIZE)}
    plain = [int(i) if isinstance(i, str) and i.isdecimal() else i for i in history]
    known = [numbers[i] for i in plain if i in numbers]
    unknown = list(
        dict.fromkeys(h for h, i in zip(history, plain, strict=True) if i not in numbers)
    )
    candidates = [k for k in range(1, SIZE) if not (hide_seen and k in known)]
    rows = [table[k] for k in known[-LENGTH:]]
    queries = [*rows[-1:], [sum(column) for column in zip(*rows, strict=True)]]

    def score(k):
        if not known:
            return float(COUNTS[k])
        return max(sum(a * b for a, b in zip(q, table[k], strict=True)) for q in queries)

    best = sorted(candidates, key=lambda k: (-score(k), k))[:n]
    source = "model" if known else "popularity"
    return Recommendation([ids(k) for k in best], [score(k) for k in best], source, 0, unknown)


some_ids = st.one_of(
    st.integers(1, SIZE - 1).map(ids),
    st.integers(1, SIZE - 1).map(lambda n: str(ids(n))),
    st.integers(-5, 5),
    st.text(max_size=3),
)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return make()


@settings(max_examples=150)
@given(st.lists(st.lists(some_ids, max_size=40), max_size=6), st.integers(1, 40), st.booleans())
def test_every_answer_is_the_one_by_hand(histories, n, hide_seen):
    recommender = make()
    answers = recommender.recommend(histories, n, hide_seen=hide_seen)
    assert len(answers) == len(histories)
    for history, answer in zip(histories, answers, strict=True):
        assert answer == by_hand(recommender, history, n, hide_seen)
        assert len(set(answer.items)) == len(answer.items)


def test_unknown_ids_are_told_once_and_as_given(recommender):
    history = [5, ids(1), "5", 5, "x", ids(2)]
    (answer,) = recommender.recommend([history])
    assert answer.unknown == [5, "5", "x"]
    assert answer.source == "model"


def test_string_ids_stay_strings():
    vocabulary = Vocabulary([f"item-{n}" for n in range(1, SIZE)])
    recommender = Recommender(make()._model, vocabulary, COUNTS, LENGTH)
    (answer,) = recommender.recommend([["item-3", 3, "3"]], 2)
    assert answer.unknown == [3, "3"] and answer.source == "model"
    assert all(str(item).startswith("item-") for item in answer.items)


def test_only_the_last_items_reach_the_model_but_all_are_hidden(recommender):
    long = [ids(n) for n in range(1, 20)]
    shown, short = recommender.recommend([long, long[-LENGTH:]], SIZE, hide_seen=False)
    assert (shown.items, shown.scores) == (short.items, short.scores)
    (hidden,) = recommender.recommend([long], SIZE)
    assert not set(hidden.items) & set(long) and len(hidden.items) == SIZE - 1 - len(long)


def test_a_user_who_saw_everything_gets_an_empty_list(recommender):
    (answer,) = recommender.recommend([[ids(n) for n in range(1, SIZE)]])
    assert answer == Recommendation([], [], "model")


def test_numpy_and_tuples_are_histories_too(recommender):
    rows = [ids(3), ids(4)]
    expected = recommender.recommend([rows])
    assert recommender.recommend([np.array(rows)]) == expected
    assert recommender.recommend((tuple(rows),)) == expected
    recommend = inspect.unwrap(Recommender.recommend)  # without the tests' own type checks
    (answer,) = recommend(recommender, [[np.int64(i) for i in [*rows, 5]]])
    assert answer.items == expected[0].items
    assert [type(i) for i in answer.unknown] == [int]


@pytest.mark.parametrize(
    ("histories", "n", "words"),
    [
        ([[1]], 0, "n must be a whole number of at least 1, got 0"),
        ([[1]], -3, "got -3"),
        ([[1]], 2.5, "got 2.5"),
        ([[1]], True, "got True"),
        ("12", 5, "histories must be a list of lists of item ids, got str"),
        (b"12", 5, "got bytes"),
        ({1: [2]}, 5, "got dict"),
        (7, 5, "got int"),
        ([1, 2], 5, r"history 0 must be a list of item ids, got int: .* \[\[id, id"),
        ([[1], "12"], 5, "history 1 must be a list of item ids, got str"),
        ([b"12"], 5, "history 0 must be a list of item ids, got bytes"),
        ([None], 5, "got NoneType"),
        ([[1, 2.0]], 5, "history 0 holds float; item ids are integers or strings"),
        ([[True]], 5, "history 0 holds bool"),
        ([[None, [1]]], 5, "history 0 holds NoneType, list"),
        ([np.array([1.5])], 5, "history 0 holds float"),
        ([np.array([[1]])], 5, "history 0 holds list"),
    ],
)
def test_wrong_questions_are_named(recommender, histories, n, words):
    recommend = inspect.unwrap(Recommender.recommend)  # without the tests' own type checks
    with pytest.raises(ServingError, match=words):
        recommend(recommender, histories, n)


def test_the_answer_does_not_depend_on_the_batch():
    recommender = make(noise=0.5)
    rng = np.random.default_rng(0)
    histories = [[ids(int(n)) for n in rng.integers(1, SIZE, m)] for m in rng.integers(0, 9, 600)]
    together = recommender.recommend(histories, 8, seed=4)
    for place in (0, 1, 255, 256, 599):
        (alone,) = recommender.recommend([histories[place]], 8, seed=4)
        assert alone.items == together[place].items
        np.testing.assert_allclose(alone.scores, together[place].scores, rtol=1e-6, atol=1e-6)
    shuffled = recommender.recommend(histories[::-1], 8, seed=4)
    assert [a.items for a in shuffled[::-1]] == [a.items for a in together]


def test_noise_is_a_function_of_seed_and_history(monkeypatch):
    given_noise = []

    def spy(seed, keys, shape):
        rows = normal(seed, keys, shape)
        given_noise.append(rows)
        return rows

    monkeypatch.setattr(module, "normal", spy)
    recommender = make(noise=1.0)
    one, other = [ids(1), ids(2)], [ids(2), ids(1)]
    long = [ids(n) for n in (9, 8, 7, 6, 5)]
    recommender.recommend([one, other, long, long[1:]], 3, seed=1)
    recommender.recommend([["unknown"], other, one], 3, seed=1)
    recommender.recommend([one], 3, seed=2)
    first, second, third = given_noise
    assert first.shape == (4, 2, 4)
    assert (first[0] == second[1]).all() and (first[1] == second[0]).all()
    assert (first[0] != first[1]).any() and (first[0] != third[0]).any()
    assert (first[2] == first[3]).all()  # both are trimmed to the last four


@given(st.lists(st.lists(st.integers(1, 9), max_size=7), max_size=5), st.integers(1, 5))
def test_left_padding(histories, length):
    padded = left_padded([np.array(h, np.int64) for h in histories], length)
    assert padded.tolist() == [[0] * (length - len(h[-length:])) + h[-length:] for h in histories]


def counting() -> Recommender:
    catalogue = Catalogue(size=SIZE, length=LENGTH, counts=COUNTS)
    model = tiny_counts.Model(tiny_counts.Config(), catalogue)
    history = torch.tensor([[1, 2, 3, 1], [0, 1, 2, 1]])
    targets = torch.tensor([[2, 3, 1, 4], [0, 2, 1, 4]])
    nothing = torch.zeros(0, dtype=torch.int64)
    model.observe(SequenceBatch(history, targets, nothing, nothing.float()))
    model.finish()
    return Recommender(model, VOCABULARY, COUNTS, LENGTH)


def test_a_counting_model_is_filled_up_with_popular_items():
    known, none_known, never_followed = counting().recommend([[ids(1)], [], [ids(20)]], 6)
    assert known.source == "model" and known.filled == 4
    # 1 was followed twice by 2 and twice by 4; then the most popular: counts of 4 at 9, 14, ...
    # (4 itself is popular too, and comes once).
    assert known.items == [ids(n) for n in (2, 4, 9, 14, 19, 24)]
    assert known.scores == [2, 2, 4, 4, 4, 4]
    assert none_known.items == [ids(n) for n in (4, 9, 14, 19, 24, 29)]
    assert (none_known.source, none_known.filled) == ("popularity", 0)
    assert (never_followed.source, never_followed.filled) == ("popularity", 0)
    assert never_followed.items == none_known.items


def test_scores_that_are_a_view_of_the_model_are_not_overwritten():
    class Fixed(CountingModel):
        table: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(SIZE).float())

        def observe(self, batch):
            raise NotImplementedError

        def scores(self, history, noise):
            return self.table.expand(len(history), -1)

    recommender = Recommender(Fixed(), VOCABULARY, COUNTS, LENGTH)
    first = recommender.recommend([[ids(29)], [ids(1)]], 2)
    assert [a.items for a in first] == [[ids(28), ids(27)], [ids(29), ids(28)]]
    assert recommender.recommend([[ids(29)], [ids(1)]], 2) == first


@pytest.mark.parametrize("index", [None, "approximate"])
def test_a_model_that_gives_nan_falls_back_to_popularity(index):
    recommender = make()
    table = recommender._model.item_vectors()
    built = ApproximateIndex.build(table.detach().numpy()) if index else None
    broken = make(index=built)
    encode = broken._model.encode
    nan = torch.tensor([torch.nan])

    def breaks_on_item_3(history, noise):
        return torch.where((history[:, -1] == 3)[:, None, None], nan, encode(history, noise))

    broken._model.encode = breaks_on_item_3
    good, bad = broken.recommend([[ids(1)], [ids(3)]], 40)
    assert good == recommender.recommend([[ids(1)]], 40)[0]
    assert bad.source == "popularity" and len(bad.items) == SIZE - 2
    assert ids(3) not in bad.items and len(set(bad.items)) == SIZE - 2


def test_large_catalogues_are_scored_in_smaller_blocks(monkeypatch):
    histories = [[ids(n)] for n in range(1, SIZE)] + [[]] * 5
    whole = counting().recommend(histories, 5)
    monkeypatch.setattr(module, "BLOCK", 3 * SIZE)
    assert counting().recommend(histories, 5) == whole


def test_the_model_is_served_in_evaluation_mode_without_gradients():
    recommender = make()
    seen = SimpleNamespace(training=None, inference=None)
    encode = recommender._model.encode

    def spy(history, noise):
        seen.training = recommender._model.training
        seen.inference = torch.is_inference_mode_enabled()
        return encode(history, noise)

    recommender._model.encode = spy
    recommender.recommend([[ids(1)]])
    assert (seen.training, seen.inference) == (False, True)


def test_parts_that_do_not_fit_are_refused():
    model = make()._model
    with pytest.raises(DataError, match="vocabulary 30, counts 29, item vectors 30"):
        Recommender(model, VOCABULARY, COUNTS[:-1], LENGTH)
    with pytest.raises(DataError, match="vocabulary 29"):
        Recommender(model, Vocabulary([1] + list(range(50, 77))), COUNTS, LENGTH)


def test_an_answer_is_plain_json(recommender):
    (answer,) = recommender.recommend([[ids(1), "?"]], 2)
    plain = msgspec.json.decode(msgspec.json.encode(answer))
    assert plain == {
        "items": answer.items,
        "scores": answer.scores,
        "source": "model",
        "filled": 0,
        "unknown": ["?"],
    }


def test_no_histories_no_answers_and_an_empty_catalogue():
    assert make().recommend([]) == []
    catalogue = Catalogue(size=1, length=LENGTH, counts=torch.zeros(1))
    empty = Recommender(tiny.Model(tiny.Config(), catalogue), Vocabulary([]), torch.zeros(1), 4)
    assert empty.recommend([["a"], []]) == [
        Recommendation([], [], "popularity", 0, ["a"]),
        Recommendation([], [], "popularity"),
    ]


ITEMS = [
    Item(categories=tuple("abc"[k] for k in range(3) if n % (k + 2) == 0)) for n in range(1, SIZE)
]


def filtered_by_hand(recommender, query) -> Recommendation:
    """The answer to a query without diversity, by what `by_hand` ranks."""
    whole = by_hand(recommender, query.history, SIZE, query.hide_seen)
    of = {ids(n): set(ITEMS[n - 1].categories) for n in range(1, SIZE)}
    plain = {str(i): i for i in of}
    exclude, only = (
        [plain.get(str(i)) for i in some or []] for some in (query.exclude, query.only)
    )
    keep = [
        place
        for place, item in enumerate(whole.items)
        if item not in exclude
        and (query.only is None or item in only)
        and (not query.categories or of[item] & set(query.categories))
    ][: query.n]
    unknown = [
        i for some in (query.exclude, query.only or []) for i in some if plain.get(str(i)) is None
    ]
    return Recommendation(
        [whole.items[p] for p in keep],
        [whole.scores[p] for p in keep],
        whole.source,
        0,
        list(dict.fromkeys(whole.unknown + unknown)),
    )


queries = st.builds(
    Query,
    history=st.lists(some_ids, max_size=9),
    n=st.integers(1, 40),
    hide_seen=st.booleans(),
    exclude=st.lists(some_ids, max_size=9),
    only=st.none() | st.lists(some_ids, max_size=20),
    categories=st.lists(st.sampled_from("abc"), max_size=2),
    seed=st.integers(0, 2),
)


@pytest.fixture(scope="module")
def shop() -> Recommender:
    return make(items=ITEMS)


@settings(max_examples=80)
@given(asked=st.lists(queries, max_size=6))
def test_queries_of_all_kinds_stand_in_one_batch(shop, figure, asked):
    answers = shop.answer(asked)
    assert answers == [filtered_by_hand(shop, query) for query in asked]
    hidden = [{str(i) for i in [*q.exclude, *q.history * q.hide_seen]} for q in asked]
    figure(
        "{queries} random queries: {items:,} items, {twice} twice, {hidden} excluded or seen",
        queries=len(asked),
        items=sum(len(answer.items) for answer in answers),
        twice=sum(len(answer.items) - len(set(answer.items)) for answer in answers),
        hidden=sum(str(i) in h for a, h in zip(answers, hidden, strict=True) for i in a.items),
    )


def test_an_answer_is_that_of_its_query_alone():
    recommender = make(noise=0.5, items=ITEMS)
    rng = np.random.default_rng(1)
    asked = [
        Query(
            [ids(int(i)) for i in rng.integers(1, SIZE, rng.integers(0, 9))],
            n=int(rng.integers(1, 12)),
            seed=int(rng.integers(0, 3)),
            diversity=float(rng.integers(0, 2)),
            categories=["a", "b"][: rng.integers(0, 3)],
        )
        for _ in range(300)
    ]
    together = recommender.answer(asked)
    for place in range(0, 300, 7):
        (alone,) = recommender.answer([asked[place]])
        assert alone.items == together[place].items
        np.testing.assert_allclose(alone.scores, together[place].scores, rtol=1e-6, atol=1e-6)
    (other,) = recommender.answer([msgspec.structs.replace(asked[0], seed=9)])
    assert len(asked[0].history) and other.scores != together[0].scores


def test_diversity_chooses_among_five_times_n(shop):
    history = [ids(3), ids(11)]
    for weight in (0.5, 100.0):
        (answer,) = shop.answer([Query(history, n=4, diversity=weight)])
        (plain,) = shop.recommend([history], 20)
        numbers = np.array([[(i - 1000) // 7 for i in plain.items]])
        chosen, scores = diverse(
            numbers, np.array([plain.scores], np.float32), table(ITEMS), 4, weight
        )
        assert answer.items == [ids(int(n)) for n in chosen[0]]
        assert answer.scores == scores[0].tolist()
    assert answer.items != plain.items[:4]


def test_the_ladder_ends_at_the_popular_items_that_may_come(shop):
    cold, warm = shop.answer(
        [Query(["?"], n=3, categories=["c"]), Query([ids(1)], n=3, categories=["c"])]
    )
    # Every fourth item has category c; of those 4, 24 have counts of 4, then 8 and 28 of 3.
    assert cold == Recommendation([ids(4), ids(24), ids(8)], [4, 4, 3], "popularity", 0, ["?"])
    assert warm.source == "model"
    assert all((i - 1000) // 7 % 4 == 0 for i in warm.items)
    nothing = [Query([ids(1)], only=[]), Query([], only=[5])]
    assert shop.answer(nothing) == [
        Recommendation([], [], "model"),
        Recommendation([], [], "popularity", 0, [5]),
    ]


def test_filters_hold_for_a_counting_model_too():
    recommender = counting()
    (answer,) = recommender.answer(
        [Query([ids(1)], n=3, only=[ids(n) for n in (4, 9, 20, 25)], exclude=[ids(25)])]
    )
    # 1 was followed by 2 and 4; the rest is filled with 9 (count 4) and 20 (count 0)
    assert answer.items == [ids(4), ids(9), ids(20)]
    assert (answer.source, answer.filled) == ("model", 2)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query([], categories=["z"]), "query 1: no item has the category 'z'; known are a, b, c"),
        (Query([], n=0), "query 1: n must be a whole number of at least 1, got 0"),
        (Query([], diversity=-1.0), "query 1: diversity must be a finite number .* got -1.0"),
        (Query([], diversity=float("nan")), "got nan"),
        (Query([], exclude=[1.5]), "query 1: exclude holds float"),
        (Query([], only=[None]), "query 1: only holds NoneType"),
        (Query("12"), "query 1: history must be a list of ids, got str"),
    ],
)
def test_wrong_queries_are_named(shop, query, words):
    with pytest.raises(ServingError, match=words):
        shop.answer([Query([]), query])


def test_without_categories_none_can_be_asked_for(recommender):
    with pytest.raises(ServingError, match="no item has the category 'a'; known are none"):
        recommender.answer([Query([], categories=["a"])])
    with pytest.raises(ServingError, match="no item has any; leave it out"):
        recommender.answer([Query([], diversity=1.0)])


def test_a_query_is_strict_json():
    read = msgspec.json.Decoder(Query).decode
    assert read(b'{"history": [1, "a"]}') == Query([1, "a"])
    for bad in (
        b"{}",
        b'{"history": [], "n": 0}',
        b'{"history": [], "diversity": -1}',
        b'{"history": [], "limit": 3}',
    ):
        with pytest.raises(msgspec.ValidationError):
            read(bad)
