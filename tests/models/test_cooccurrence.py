"""Counts by hand and against a plain double loop."""

import numpy as np
import pytest
import torch

from dimerec.batch import SequenceBatch
from dimerec.model import Catalogue
from dimerec.models.cooccurrence import Config, Model
from dimerec.models.popularity import Config as PopularityConfig
from dimerec.models.popularity import Model as Popularity

NOISE = torch.zeros(1, 0, 0)


def batch(history: list[list[int]], targets: list[list[int]]) -> SequenceBatch:
    empty = torch.zeros(0, dtype=torch.int64)
    return SequenceBatch(torch.tensor(history), torch.tensor(targets), empty, empty.float())


def fitted(config: Config, size: int, *batches: SequenceBatch) -> Model:
    length = batches[0].history.shape[1]
    model = Model(config, Catalogue(size=size, length=length, counts=torch.zeros(size)))
    for b in batches:
        model.observe(b)
    model.finish()
    return model


def test_by_hand() -> None:
    """Sequence 1 2 3 and 1 3: from 1, one step leads to 2 and to 3, two steps to 3."""
    data = batch([[1, 2], [0, 1]], [[2, 3], [0, 3]])
    model = fitted(Config(reach=2, decay=0.5, popularity=0.0), 4, data)
    got = model.scores(torch.tensor([[0, 1], [1, 2], [0, 0]]), NOISE)
    # weights from 1: 2 -> 1, 3 -> 1 + 0.5; shares 0.4 and 0.6; from 2: 3 -> 1
    torch.testing.assert_close(got[0], torch.tensor([0, 0, 0.4, 0.6]))
    torch.testing.assert_close(got[1], torch.tensor([0, 0, 0.5 * 0.4, 1 + 0.5 * 0.6]))
    assert not bool(got[2].any())


def test_against_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    size, length, config = 9, 7, Config(reach=3, decay=0.7, popularity=0.1)
    windows = rng.integers(1, size, (12, length + 1))
    windows[:4, :3] = 0
    history, targets = windows[:, :-1], np.where(windows[:, :-1] > 0, windows[:, 1:], 0)
    halves = [batch(history[i].tolist(), targets[i].tolist()) for i in (slice(0, 5), slice(5, 12))]
    model = fitted(config, size, *halves)
    weight = np.zeros((size, size))
    popularity = np.zeros(size)
    for row in windows:
        for j in range(1, length + 1):
            if row[j - 1] == 0:
                continue
            popularity[row[j]] += 1
            for back in range(1, config.reach + 1):
                if j - back >= 0 and row[j - back] > 0:
                    weight[row[j - back], row[j]] += config.decay ** (back - 1)
    share = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    got = model.scores(torch.from_numpy(history), NOISE).numpy()
    for b in range(len(history)):
        want = config.popularity * popularity / popularity.sum()
        for back in range(config.reach):
            item = history[b, -1 - back]
            if item > 0:
                want = want + config.decay**back * share[item]
        assert got[b] == pytest.approx(want, abs=1e-6)


def test_popularity_counts_targets() -> None:
    catalogue = Catalogue(size=5, length=2, counts=torch.zeros(5))
    model = Popularity(PopularityConfig(), catalogue)
    model.observe(batch([[1, 2], [0, 1]], [[2, 3], [0, 3]]))
    model.observe(batch([[3, 4]], [[4, 4]]))
    assert model.scores(torch.tensor([[1, 2]]), NOISE)[0].tolist() == [0, 0, 1, 2, 2]
