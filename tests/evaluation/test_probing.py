"""Linear probing on planted vectors: categories that are there are found, others are not."""

import sys

import numpy as np
import pytest

from dimerec.errors import ConfigError, DataError
from dimerec.evaluation.probing import probe_vectors

GENRES = ["drama", "comedy", "action", "horror", "western"]


def planted(noise: float, n: int = 900, seed: int = 0) -> tuple[np.ndarray, list[list[str]]]:
    """Items of one to three genres (the first ones more often); vectors are the genres' sums."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(5, 16))
    chosen = rng.random((n, 5)) < [0.6, 0.35, 0.25, 0.15, 0.1]
    chosen[~chosen.any(axis=1), 0] = True
    vectors = chosen @ directions + noise * rng.normal(size=(n, 16))
    names = [[g for g, has in zip(GENRES, row) if has] for row in chosen]
    return vectors.astype(np.float32), names


def test_planted_genres_are_read():
    found = probe_vectors(*planted(0.1))
    assert (found.train, found.test) == (720, 180)
    assert found.categories == GENRES
    for one in (found.majority, found.multilabel):
        assert one.micro > 0.97 and one.macro > 0.93 and one.top > 0.97


def test_the_clearer_the_better():
    scores = [probe_vectors(*planted(noise)) for noise in (0.3, 2.0, 8.0)]
    for kind in ("majority", "multilabel"):
        macro = [getattr(s, kind).macro for s in scores]
        assert macro[0] > macro[1] + 0.05 > macro[2] + 0.1


def test_shuffled_labels_are_chance():
    vectors, names = planted(0.1)
    order = np.random.default_rng(1).permutation(len(names))
    found = probe_vectors(vectors, [names[i] for i in order])
    blind = found.majority
    assert blind.macro == pytest.approx(blind.blind_macro, abs=0.06)
    assert blind.micro < blind.blind_micro + 0.03
    assert found.multilabel.macro == pytest.approx(0.5, abs=0.04)
    assert found.multilabel.blind_macro == 0.5
    assert found.multilabel.micro < found.multilabel.blind_micro + 0.02


def test_what_blind_guesses_get():
    vectors, names = planted(0.1)
    found = probe_vectors(vectors, names)
    main = np.array([row[0] for row in names])  # GENRES are in order of frequency here
    assert found.majority.blind_micro == pytest.approx(np.mean(main == "drama"), abs=0.08)
    assert found.majority.blind_macro == pytest.approx(1 / 5)
    has = np.array([[g in row for g in GENRES] for row in names])
    often = has.mean(axis=0)
    assert found.multilabel.blind_micro == pytest.approx(
        np.maximum(often, 1 - often).mean(), abs=0.03
    )
    assert found.multilabel.blind_top == pytest.approx(often[0], abs=0.08)


def test_scale_does_not_matter_and_the_seed_does():
    vectors, names = planted(1.0)
    first = probe_vectors(vectors, names)
    assert probe_vectors(100 * vectors + 7, names).multilabel.micro == pytest.approx(
        first.multilabel.micro, abs=0.005
    )
    assert probe_vectors(vectors, names) == first
    assert probe_vectors(vectors, names, seed=1) != first


def test_rare_genres_and_items_without_any_are_left_out():
    vectors, names = planted(0.1)
    names[:9] = [["opera"]] * 9
    names[9:20] = [[]] * 11
    found = probe_vectors(vectors, names)
    assert found.categories == GENRES
    assert found.train + found.test == 880
    names[20] = ["opera", "opera"]
    assert "opera" in probe_vectors(vectors, names).categories


def test_a_genre_that_all_have_tells_nothing():
    vectors, names = planted(0.1)
    found = probe_vectors(vectors, [["film", *row] for row in names])
    assert found.majority.micro == found.majority.blind_micro == 1.0
    assert found.multilabel.macro > 0.93  # of those that not all have


def test_too_few_items_are_refused():
    with pytest.raises(DataError, match="0 items with 0 categories"):
        probe_vectors(np.ones((30, 4)), [[]] * 30)
    with pytest.raises(DataError, match="1 categories"):
        probe_vectors(np.ones((30, 4)), [["one"]] * 30)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ConfigError, match=r"dimerec\[experiments\]"):
        probe_vectors(*planted(0.1))
