"""Counted ranks against sorting, with ties everywhere, and what must never move them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec.errors import TrainingDiverged
from dimerec.evaluation import metrics
from dimerec.evaluation.ranking import best, ranks
from dimerec.model import SequentialModel
from tests.evaluation.models import Noisy, Scores, Vectors, queries, sorted_ranks


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A catalogue with few distinct scores, users that repeat items, and how to count."""
    V = draw(st.integers(2, 150))
    item = st.integers(1, V - 1)
    sequences = draw(st.lists(st.lists(item, min_size=2, max_size=9), min_size=1, max_size=6))
    places = [(u, p) for u, s in enumerate(sequences) for p in range(1, len(s))]
    where = draw(st.lists(st.sampled_from(places), min_size=1, max_size=20))
    return {
        "V": V,
        "asked": (sequences, where),
        "rng": np.random.default_rng(draw(st.integers(0, 2**32))),
        "K": draw(st.integers(1, 3)),
        "how": {
            "length": 3,
            "hide_seen": draw(st.booleans()),
            "batch": draw(st.integers(1, 25)),
            "block": draw(st.sampled_from([1, 2000, 2**18])),
        },
    }


@given(cases())
def test_vectors_rank_as_sorting_does(case: dict[str, Any]) -> None:
    V, K, rng, asked = case["V"], case["K"], case["rng"], queries(*case["asked"])
    table, items = rng.integers(-2, 3, (V, K, 2)), rng.integers(-2, 3, (V, 2))
    scores = np.einsum("hkd,vd->hkv", table, items).max(axis=1)  # exact: small integers
    found = ranks(Vectors(table, items), asked, **case["how"])
    assert found.dtype == np.float32
    assert found.tolist() == sorted_ranks(scores, asked, case["how"]["hide_seen"])


@given(cases())
def test_scores_rank_as_sorting_does(case: dict[str, Any]) -> None:
    V, rng, asked = case["V"], case["rng"], queries(*case["asked"])
    scores = rng.choice([-math.inf, -3.0, 0.0, 1e-4, 1.0, 1000.0], (V, V))
    found = ranks(Scores(scores), asked, **case["how"])
    assert found.tolist() == sorted_ranks(scores, asked, case["how"]["hide_seen"])


def test_by_hand_with_repeats_and_the_target_in_its_history() -> None:
    scores = np.tile([9.0, 5, 4, 4, 3, 2], (6, 1))  # padding scores best, and never counts
    asked = queries([[1, 2], [1, 1, 2], [3, 2], [2, 2], [4, 5, 1], [1, 2, 3, 4, 5]])
    model = Scores(scores)
    assert ranks(model, asked, length=5).tolist() == [2.5, 2.5, 2.5, 2.5, 1, 5]
    hidden = ranks(model, asked, length=5, hide_seen=True)
    assert hidden.tolist() == [1.5, 1.5, 2, 2.5, 1, 1]


def test_seen_items_are_those_of_the_whole_history_not_of_the_window() -> None:
    model = Scores(np.tile([0.0, 5, 4, 3, 2, 1], (6, 1)))
    asked = queries([[1, 2, 3, 4, 5]])
    assert ranks(model, asked, length=1, hide_seen=True).tolist() == [1]


@pytest.mark.parametrize("V", [2, 3, 10, 1001])
def test_constant_scores_give_the_middle_rank(V: int) -> None:
    asked = queries([[1, V - 1], [V - 1, 1]])
    model = Vectors(np.ones((V, 1, 4)), np.ones((V, 4)))
    for constant in (model, Scores(np.zeros((V, V))), Scores(np.full((V, V), 0.3))):
        assert ranks(constant, asked, length=2).tolist() == [V / 2, V / 2]


def test_a_target_alone_at_the_top_has_rank_one_and_at_the_bottom_the_last() -> None:
    """The target neither outranks nor ties itself: one place off would show here."""
    rng = np.random.default_rng(1)
    V, d = 700, 64
    items = rng.standard_normal((V, d))
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    asked = queries([[i, i] for i in range(1, V)])
    for far in (1, 1e-5, 1e5):
        top = Vectors(far * unit[:, None], unit)
        assert set(ranks(top, asked, length=1).tolist()) == {1.0}
        bottom = Vectors(-far * unit[:, None], unit)
        assert set(ranks(bottom, asked, length=1).tolist()) == {float(V - 1)}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("d", [8, 64, 200])
def test_items_with_the_targets_vector_tie_exactly_at_any_scale(
    K: int, d: int, scale: float
) -> None:
    rng = np.random.default_rng(d)
    V, copies = 400, 4  # items i, i + 100, i + 200, i + 300 share a vector
    items = np.tile(rng.standard_normal((100, d)), (copies, 1))
    items = np.concatenate([np.zeros((1, d)), items]) * scale
    table = rng.standard_normal((V + 1, K, d))
    asked = queries([[h, t] for h, t in rng.integers(1, V + 1, (200, 2)).tolist()])
    exact = np.einsum("hkd,vd->hkv", table, items).max(axis=1)  # float64
    expected = sorted_ranks(np.round(exact / scale, 9), asked, False)
    assert ranks(Vectors(table, items), asked, length=1, block=30_000).tolist() == expected
    assert all(r % 1 == 0.5 for r in expected)  # four share the middle of their places


def test_neither_batch_nor_block_nor_order_moves_a_rank() -> None:
    rng = np.random.default_rng(5)
    V, d = 1500, 16
    items = rng.standard_normal((V, d))
    sequences = rng.integers(1, V, (90, 6)).tolist()
    where = [(u, p) for u in range(90) for p in (2, 5)]
    model = Noisy(np.zeros((V, 1, d)), items)
    whole = ranks(model, queries(sequences, where), length=5, seed=3)
    for batch, block in [(1, 2**18), (7, 5000), (180, 2**18), (512, 1)]:
        again = ranks(model, queries(sequences, where), length=5, seed=3, batch=batch, block=block)
        assert np.array_equal(again, whole)
    order = rng.permutation(len(where))
    shuffled = queries(sequences, [where[i] for i in order])
    assert np.array_equal(ranks(model, shuffled, length=5, seed=3), whole[order])
    assert not np.array_equal(ranks(model, shuffled, length=5, seed=4), whole[order])
    assert len(np.unique(whole)) > 150  # the noise differs from query to query


def test_labels_of_others_fall_to_chance() -> None:
    """A model that knows every target, given the targets of other users, knows nothing."""
    rng = np.random.default_rng(2)
    V = 501
    model = Vectors(np.eye(V)[:, None], np.eye(V))
    own = queries([[i, i] for i in range(1, V)] * 4)
    others = queries([[i, t] for i, t in zip(range(1, V), rng.integers(1, V, V - 1).tolist())] * 4)
    assert metrics.hr(ranks(model, own, length=1), 50).mean() == 1
    assert metrics.hr(ranks(model, others, length=1), 50).mean() < 0.02  # all but one tie
    spread = Vectors(rng.standard_normal((V, 1, 8)), rng.standard_normal((V, 8)))
    found = ranks(spread, others, length=1)
    assert found.mean() == pytest.approx(V / 2, rel=0.06)
    assert metrics.hr(found, 50).mean() == pytest.approx(50 / (V - 1), abs=0.03)


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_put_back(training: bool) -> None:
    model = Vectors(np.ones((3, 1, 2)), np.ones((3, 2))).train(training)
    ranks(model, queries([[1, 2]]), length=1)
    assert model.training is training


def test_no_queries_no_ranks() -> None:
    model = Vectors(np.ones((3, 1, 2)), np.ones((3, 2)))
    assert ranks(model, queries([[1, 2]], []), length=1).shape == (0,)


def test_scores_that_are_views_of_a_models_buffers_are_left_alone() -> None:
    table = np.arange(36.0).reshape(6, 6)
    model = Scores(table)
    model.scores = lambda history, noise: model.table[:1].expand(len(history), -1)
    asked = queries([[1, 2], [3, 4], [2, 5]])
    ranks(model, asked, length=1, hide_seen=True)
    best(model, asked, 3, length=1, hide_seen=True)
    assert np.array_equal(model.table.numpy(), table)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["table", "items"])
def test_vectors_that_are_not_finite_are_refused(where: str, bad: float) -> None:
    model = Vectors(np.ones((4, 1, 2)), np.ones((4, 2)))
    getattr(model, where)[1] = bad
    with pytest.raises(TrainingDiverged, match="not finite"):
        ranks(model, queries([[1, 2]]), length=1)


def test_scores_that_are_nan_are_refused() -> None:
    table = np.ones((4, 4))
    table[1, 3] = math.nan  # not even the target's
    for task in (lambda m, q: ranks(m, q, length=1), lambda m, q: best(m, q, 2, length=1)):
        with pytest.raises(TrainingDiverged, match="not finite"):
            task(Scores(table), queries([[1, 2]]))


@given(cases())
def test_best_lists_are_the_top_of_the_sorted_candidates(case: dict[str, Any]) -> None:
    V, rng, asked = case["V"], case["rng"], queries(*case["asked"])
    scores = rng.permuted(np.tile(np.arange(V), (V, 1)), axis=1).astype(float)
    n, hide = 7, case["how"]["hide_seen"]
    found = best(Scores(scores), asked, n, length=3, hide_seen=hide)
    assert found.shape == (len(asked), n) and found.dtype == np.int64
    for q in range(len(asked)):
        one = slice(q, q + 1)
        row = scores[asked.histories(one, 1)[0, 0]]
        seen = set(asked.seen(one)[0].tolist()) if hide else set()
        left = sorted((i for i in range(1, V) if i not in seen), key=lambda i: -row[i])
        assert found[q].tolist() == (left + [0] * n)[:n]


def test_best_and_ranks_agree_on_a_model_with_vectors() -> None:
    rng = np.random.default_rng(8)
    model: SequentialModel = Vectors(rng.standard_normal((60, 3, 5)), rng.standard_normal((60, 5)))
    asked = queries(rng.integers(1, 60, (40, 4)).tolist())
    top = best(model, asked, 59, length=3)
    places = 1 + (top == asked.targets(slice(0, 40))[:, None]).argmax(axis=1)
    assert ranks(model, asked, length=3).tolist() == places.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_ranks_as_the_cpu_does() -> None:
    rng = np.random.default_rng(9)
    table, items = rng.integers(-9, 9, (300, 2, 8)), rng.integers(-9, 9, (300, 8))
    asked = queries(rng.integers(1, 300, (200, 5)).tolist())
    model = Vectors(table, items)
    here = ranks(model, asked, length=3, hide_seen=True)
    model.table, model.items = model.table.cuda(), model.items.cuda()
    assert np.array_equal(ranks(model, asked, length=3, hide_seen=True, device="cuda"), here)
