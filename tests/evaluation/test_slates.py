"""Slates against sets in plain Python."""

from pathlib import Path

import numpy as np
import pytest

from dimerec.data import dataset as datasets
from dimerec.data.dataset import Dataset
from dimerec.evaluation import slates
from dimerec.vocabulary import Vocabulary


def write(path: Path, n: list[int], valid_end: list[int]) -> Dataset:
    rng = np.random.default_rng(0)
    lengths = np.array(n)
    return datasets.write(
        path,
        vocabulary=Vocabulary([f"i{i}" for i in range(1, 31)]),
        users=Vocabulary([f"u{u}" for u in range(len(n))]),
        offsets=np.cumsum([0, *n]),
        items=rng.integers(1, 31, lengths.sum()),
        times=np.arange(lengths.sum()),
        train_end=np.minimum(lengths, valid_end) * 0,
        valid_end=np.array(valid_end),
        card={"name": "toy", "protocol": {"name": "users-8-1-1"}},
    )


def test_what_comes_next(tmp_path: Path):
    data = write(tmp_path / "d", [14, 1, 3, 6], [0, 0, 3, 4])
    asked, ahead = slates.upcoming(data, "test")
    wanted = []
    for row, (n, first) in enumerate([(14, 1), (1, 1), (3, 3), (6, 4)]):
        events = data.items[data.offsets[row] : data.offsets[row + 1]].tolist()
        for p in range(first, n):
            if n - p >= 2:
                wanted.append((row, p, (events[p : p + 10] + [0] * 10)[:10]))
    found = zip(asked.rows.tolist(), asked.positions.tolist(), ahead.tolist())
    assert list(found) == wanted and len(wanted) == 12 + 1
    assert np.array_equal(asked.targets(slice(0, 13)), ahead[:, 0])
    some, least = slates.upcoming(data, "test", limit=5)
    assert len(some) == len(least) == 5
    valid, _ = slates.upcoming(data, "valid")
    assert [(r, p) for r, p in zip(valid.rows, valid.positions)] == [(2, 1), (3, 1), (3, 2)]


def test_no_slates_where_each_user_has_one_target(tmp_path: Path):
    asked, ahead = slates.upcoming(write(tmp_path / "d", [5, 4], [4, 3]), "test")
    assert len(asked) == len(ahead) == 0


def test_coverage_by_sets():
    rng = np.random.default_rng(1)
    ahead = rng.integers(0, 12, (40, 10))
    ahead[:, 0] = rng.integers(1, 12, 40)
    lists = np.stack([rng.permutation(np.arange(1, 30))[:8] for _ in range(40)])
    lists[3, 2:] = 0
    found = slates.coverage(lists, ahead, (3, 8))
    later = [set(row.tolist()) - {0} for row in ahead]
    assert found.slates == 40
    assert found.ahead == pytest.approx(np.mean([len(s) for s in later]))
    for n in (3, 8):
        held = [len(s & set(row[:n].tolist())) for s, row in zip(later, lists)]
        assert found.coverage[n] == pytest.approx(
            np.mean([h / len(s) for h, s in zip(held, later)])
        )
        assert found.any[n] == pytest.approx(np.mean([h > 0 for h in held]))
