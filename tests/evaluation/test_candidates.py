"""One against a hundred: frozen candidates that the user never took, ranked as all items are."""

from pathlib import Path

import numpy as np
import pytest

from dimerec.data.dataset import Dataset
from dimerec.errors import DataError
from dimerec.evaluation.candidates import candidate_ranks, others
from dimerec.evaluation.ranking import ranks
from tests.evaluation.toys import V, made, whole_users


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return whole_users(tmp_path_factory.mktemp("data") / "toy")


def test_candidates_were_never_taken_and_differ(dataset: Dataset):
    queries = dataset.queries("test", "last")
    drawn = others(dataset, queries, 40)
    for q, row in enumerate(queries.rows.tolist()):
        taken = set(dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]].tolist())
        mine = set(drawn[q].tolist())
        assert len(mine) == 40 and not mine & taken and mine <= set(range(1, V))
    assert len({tuple(row) for row in drawn.tolist()}) == len(queries)


def test_all_that_is_left_can_be_drawn_and_no_more(dataset: Dataset):
    queries = dataset.queries("test", "last", limit=1)
    row = int(queries.rows[0])
    taken = np.unique(dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]])
    left = np.setdiff1d(np.arange(1, V), taken)
    assert np.array_equal(np.sort(others(dataset, queries, len(left))[0]), left)
    with pytest.raises(DataError, match="leave one-against-"):
        others(dataset, queries, len(left) + 1)


def test_candidates_are_uniform(dataset: Dataset):
    queries = dataset.queries("test", "every-position")
    times = np.bincount(others(dataset, queries, 20).ravel(), minlength=V)[1:]
    free = np.zeros(V - 1)
    for row in queries.rows.tolist():
        events = np.unique(dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]])
        mine = np.setdiff1d(np.arange(1, V), events) - 1
        free[mine] += 20 / len(mine)
    assert abs(times - free).max() < 6 * np.sqrt(free.max())


def test_candidates_are_frozen(dataset: Dataset, tmp_path: Path):
    queries = dataset.queries("test", "last")
    few = dataset.queries("test", "last", limit=4)
    drawn = others(dataset, queries, 10)
    kept = np.isin(queries.rows, few.rows)
    assert np.array_equal(others(dataset, few, 10), drawn[kept])
    again = whole_users(tmp_path / "again")
    assert np.array_equal(others(again, again.queries("test", "last"), 10), drawn)


@pytest.mark.parametrize("name", ["comirec", "popularity", "dimerec"])
def test_among_all_others_it_is_the_full_ranking_without_seen_items(
    name: str, dataset: Dataset, tmp_path: Path
):
    model = made(tmp_path, dataset, name).model()
    queries = dataset.queries("test", "last")
    wanted = ranks(model, queries, length=8, hide_seen=True)
    for q in range(len(queries)):
        part = dataset.queries("test", "last")
        part.rows, part.positions = queries.rows[q : q + 1], queries.positions[q : q + 1]
        row = int(part.rows[0])
        taken = np.unique(dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]])
        left = np.setdiff1d(np.arange(1, V), taken)[None]
        assert candidate_ranks(model, part, left, length=8)[0] == wanted[q]
