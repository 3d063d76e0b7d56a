"""Diagnoses of real bundles on a real dataset: each figure against one computed by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from dimerec.bundle import Bundle
from dimerec.data import dataset as datasets
from dimerec.data.dataset import Dataset
from dimerec.errors import DataError
from dimerec.evaluation import geometry
from dimerec.evaluation.diagnostics import diagnose, interests, item_vectors, neighbours
from dimerec.evaluation.evaluator import evaluate
from dimerec.vocabulary import Vocabulary
from tests.evaluation.toys import USERS, V, made, whole_users


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return whole_users(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def comirec(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Bundle:
    return made(tmp_path_factory.mktemp("bundles"), dataset, "comirec")


@pytest.fixture(scope="module")
def popularity(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Bundle:
    return made(tmp_path_factory.mktemp("bundles"), dataset, "popularity")


def test_neighbours_by_loops(dataset: Dataset):
    wanted = []
    for row in range(USERS):
        events = dataset.items[dataset.offsets[row] :][: dataset.train_end[row]].tolist()
        wanted += [[a, b] for a, b in itertools.pairwise(events) if a != b]
    assert neighbours(dataset).tolist() == wanted


def test_item_vectors_by_hand(dataset: Dataset):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(V, 6)).astype(np.float32)
    vectors[0] = 0
    counts = dataset.counts()
    vectors[1:] *= np.log2(2 + counts[1:, None])
    found = item_vectors(vectors, counts, dataset)
    trained = counts > 0
    assert found.items == trained.sum() < V - 1
    assert found.uniformity == pytest.approx(geometry.uniformity(vectors[trained]))
    assert found.norm_by_popularity is not None and found.norm_by_popularity > 0.4
    pairs = neighbours(dataset)
    assert found.alignment == pytest.approx(geometry.alignment(*vectors[pairs].transpose(1, 0, 2)))
    assert found.alignment_by_chance == pytest.approx(found.alignment, abs=0.2)
    alone = item_vectors(vectors, counts)
    assert alone.alignment is None and alone.uniformity == found.uniformity


def test_alignment_tells_vectors_of_neighbours_from_others(dataset: Dataset):
    """Vectors that say which items follow one another are better aligned than chance."""
    pairs = neighbours(dataset)
    near = np.zeros((V, V))
    np.add.at(near, (pairs[:, 0], pairs[:, 1]), 1.0)
    near = near + near.T + 3 * np.eye(V)
    found = item_vectors(near, dataset.counts(), dataset)
    assert found.alignment is not None and found.alignment_by_chance is not None
    assert found.alignment < found.alignment_by_chance - 0.05


def test_spearman_is_that_of_scipy(dataset: Dataset):
    from scipy import stats

    vectors = np.random.default_rng(2).normal(size=(V, 4)) ** 3
    counts = dataset.counts()
    trained = counts > 0
    theirs = stats.spearmanr(np.linalg.norm(vectors[trained], axis=1), counts[trained])
    found = item_vectors(vectors, counts).norm_by_popularity
    assert found == pytest.approx(float(np.asarray(theirs)[0]))
    same = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert item_vectors(same, counts).norm_by_popularity is None


def test_one_item_has_no_geometry():
    with pytest.raises(DataError, match="two or more"):
        item_vectors(np.ones((3, 2)), np.array([0.0, 5.0, 0.0]))


def test_lists_agree_with_the_evaluation(comirec: Bundle, dataset: Dataset):
    lists = diagnose(comirec, dataset).lists
    result = evaluate(comirec, dataset)
    assert lists is not None and lists.queries == len(result.ranks)
    assert lists.categories == pytest.approx(result.metrics["categories@100"])
    for n in (10, 20, 50):
        assert lists.coverage[n] == pytest.approx(result.metrics[f"coverage@{n}"])
        hits = sum(b.queries * b.hr[n] for b in lists.bands if b.queries)
        assert hits / lists.queries == pytest.approx(result.metrics[f"hr@{n}"])
    assert sum(b.items for b in lists.bands) == V - 1
    assert sum(b.shown for b in lists.bands) == pytest.approx(1.0)
    assert lists.interests == 4 and lists.interest_cosine is not None
    assert -1 <= lists.interest_cosine <= 1
    assert lists.slates is not None and 2 <= lists.slates.ahead <= 10
    assert lists.slates.coverage[20] <= lists.slates.coverage[50]


def test_interests_are_the_models_own(comirec: Bundle, dataset: Dataset):
    queries = dataset.queries("test", "every-position")
    model = comirec.model()
    found = interests(model, queries, 8, 0, "cpu")
    assert found is not None
    one = torch.from_numpy(queries.histories(slice(3, 4), 8))
    wanted = model.encode(one, torch.zeros(1, 0, 16))
    np.testing.assert_allclose(found[3], wanted[0].numpy(), atol=1e-5)


def test_of_a_generative_model_they_are_those_of_its_guidance(dataset: Dataset, tmp_path: Path):
    bundle = made(tmp_path, dataset, "dimerec")
    found = diagnose(bundle, dataset, limit=20)
    assert found.lists is not None and found.lists.interests == 4  # its one query is the mean
    assert found.vectors is not None and found.vectors.norms.mean == pytest.approx(1.0)
    assert found.vectors.norm_by_popularity is None


def test_a_counting_model(popularity: Bundle, dataset: Dataset):
    found = diagnose(popularity, dataset)
    assert found.vectors is None and found.lists is not None
    head, _, tail = found.lists.bands
    assert found.lists.gini[10] == pytest.approx(1 - 10 / (V - 1))  # ten items take it all
    assert found.lists.interests is None
    assert head.hr[10] == 1.0 and tail.hr[10] < 0.2
    assert found.lists.novelty[10] < found.lists.novelty_of_targets
    assert diagnose(popularity).lists is None


def test_another_catalogue_is_refused(comirec: Bundle, tmp_path: Path):
    other = datasets.write(
        tmp_path / "other",
        vocabulary=Vocabulary(["a", "b"]),
        users=Vocabulary(["u"]),
        offsets=np.array([0, 3]),
        items=np.array([1, 2, 1]),
        times=np.arange(3),
        train_end=np.array([1]),
        valid_end=np.array([2]),
        card={"name": "toy", "protocol": {"name": "leave-one-out"}},
    )
    with pytest.raises(DataError, match="trained on"):
        diagnose(comirec, other)
