"""Item-kNN by hand and against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimerec import config
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models import itemknn
from dimerec.models.itemknn import Config, Model

SIZE, LENGTH = 7, 4
NOISE = torch.zeros(1, 0, 0)


def fitted(how: Config, sessions: list[list[int]]) -> Model:
    model = Model(how, Catalogue(size=SIZE, length=LENGTH, counts=torch.zeros(SIZE)))
    for session in sessions:
        window = torch.tensor([[0] * (LENGTH + 1 - len(session)) + session])
        history = window[:, :-1]
        empty = torch.zeros(0, dtype=torch.int64)
        targets = torch.where(history > 0, window[:, 1:], 0)
        model.observe(SequenceBatch(history, targets, empty, empty.float()))
    model.finish()
    return model


def scored(model: Model, *last: int) -> torch.Tensor:
    return model.scores(torch.tensor([[1, item] for item in last]), NOISE)


def test_by_hand() -> None:
    """1 and 2 share two sessions, with three and two events: 2 / sqrt(3 * 2); 1 and 3 share one."""
    model = fitted(Config(regularisation=0.0), [[1, 2], [1, 2, 3], [1, 4]])
    got = scored(model, 1, 2)
    want = [0, 0, 2 / 6**0.5, 1 / 3**0.5, 1 / 3**0.5, 0, 0]
    torch.testing.assert_close(got[0], torch.tensor(want))
    torch.testing.assert_close(got[1], torch.tensor([0, 2 / 6**0.5, 0, 1 / 2**0.5, 0, 0, 0]))


def test_lambda_and_alpha_by_hand() -> None:
    """1 / ((2 + 6) ** 0.25 (1 + 6) ** 0.75) from item 1, and the other way about from item 2."""
    model = fitted(Config(regularisation=6.0, balance=0.25), [[1, 2], [1, 3]])
    got = scored(model, 1, 2)
    torch.testing.assert_close(got[0, 2], torch.tensor(1 / (8**0.25 * 7**0.75)))
    torch.testing.assert_close(got[1, 1], torch.tensor(1 / (7**0.25 * 8**0.75)))


def test_only_the_nearest_score() -> None:
    model = fitted(Config(neighbours=1), [[1, 2], [1, 2], [1, 3]])
    assert scored(model, 1).nonzero()[:, 1].tolist() == [2]


def test_padding_and_items_never_seen_have_no_neighbours() -> None:
    assert not bool(scored(fitted(Config(), [[1, 2]]), 0, 6).any())


def looped(how: Config, sessions: list[list[int]], item: int) -> np.ndarray:
    """Event by event of the item, as the official code has it."""
    support = np.array([sum(s.count(i) for s in sessions) for i in range(SIZE)])
    shared = np.zeros(SIZE)
    for session in sessions:
        for _ in range(session.count(item)):
            for other in set(session):
                shared[other] += 1
    shared[[0, item]] = 0
    low = support + how.regularisation
    norm = low[item] ** how.balance * low ** (1 - how.balance)
    values = np.divide(shared, norm, out=np.zeros(SIZE), where=norm > 0)
    kept = np.argsort(-values, kind="stable")[: how.neighbours]
    return np.where(np.isin(np.arange(SIZE), kept), values, 0)


@settings(max_examples=60)
@given(
    sessions=st.lists(
        st.lists(st.integers(1, SIZE - 1), min_size=2, max_size=LENGTH + 1), min_size=1, max_size=8
    ),
    item=st.integers(1, SIZE - 1),
    neighbours=st.integers(1, 6),
    regularisation=st.sampled_from([0.0, 3.0]),
    balance=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_against_loops(sessions, item, neighbours, regularisation, balance) -> None:
    how = Config(neighbours, regularisation, balance)
    got = scored(fitted(how, sessions), item)[0].numpy()
    np.testing.assert_allclose(got, looped(how, sessions, item), atol=1e-6)


def test_summing_up_often_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [[1, 2], [2, 3, 2], [1, 2, 3, 4], [5, 1], [1, 2]]
    once = scored(fitted(Config(), sessions), *range(SIZE))
    monkeypatch.setattr(itemknn, "PENDING", 0)
    assert torch.equal(scored(fitted(Config(), sessions), *range(SIZE)), once)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("options.neighbours=0", "neighbours = 0: must be an integer >= 1"),
        ("options.balance=1.5", "balance = 1.5: must be a number >= 0 and <= 1"),
        ("options.regularisation=-1.0", "regularisation = -1.0: must be a number >= 0"),
    ],
)
def test_wrong_options_are_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load("itemknn", [change])


def test_the_recipe_is_the_published_one() -> None:
    assert config.load("itemknn").model_config() == Config()
