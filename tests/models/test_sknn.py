"""V-SKNN by hand, and against plain loops over sessions as its official code has them."""

import math
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimerec import config
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models import sknn
from dimerec.models.sknn import Config, Model

SIZE, LENGTH = 8, 5
NOISE = torch.zeros(1, 0, 0)
SESSIONS = [[1, 2, 3], [2, 4], [1, 2, 2, 5], [6, 7]]


def fitted(settings: Config, sessions: Iterable[list[int]], size: int = SIZE) -> Model:
    model = Model(settings, Catalogue(size=size, length=LENGTH, counts=torch.zeros(size)))
    for session in sessions:
        window = torch.tensor([[0] * (LENGTH + 1 - len(session)) + session])
        history = window[:, :-1]
        targets = torch.where(history > 0, window[:, 1:], 0)
        empty = torch.zeros(0, dtype=torch.int64)
        model.observe(SequenceBatch(history, targets, empty, empty.float()))
    model.finish()
    return model


def scored(model: Model, *histories: list[int]) -> torch.Tensor:
    padded = [[0] * (LENGTH - len(h)) + h for h in histories]
    return model.scores(torch.tensor(padded), NOISE)


def test_by_hand() -> None:
    """The current session is 1 2: item 1 weighs 1/2, item 2 weighs 1, and there are two of them.

    Sessions 0 and 2 share both: (1/2 + 1) / 2 = 3/4. Session 1 shares item 2: 1/2. All share item
    2, the last one, so that nothing decays; session 3 shares nothing.
    """
    got = scored(fitted(Config(), SESSIONS), [1, 2])[0]
    want = [0, 0.75 + 0.75, 0.75 + 0.5 + 0.75, 0.75, 0.5, 0.75, 0, 0]
    torch.testing.assert_close(got, torch.tensor(want))


def test_the_vote_decays_with_the_place_of_the_last_shared_item() -> None:
    """The current session is 1 4: session 1 shares 4, the last: 1/2 * 1 / 2 items; sessions 0 and 2
    share 1, the last but one: similarity 1/2 / 2 = 1/4, times 1/2."""
    sessions = [[1, 3], [2, 4], [1, 5]]
    got = scored(fitted(Config(), sessions), [1, 4])[0]
    torch.testing.assert_close(got, torch.tensor([0, 0.25, 0.5, 0.125, 0.5, 0.125, 0, 0]))


def test_only_the_nearest_and_of_those_the_recent_ones_vote() -> None:
    """One neighbour: sessions 0 and 2 are equally similar, and 2 is the more recent."""
    got = scored(fitted(Config(neighbours=1), SESSIONS), [1, 2])[0]
    torch.testing.assert_close(got, torch.tensor([0, 0.75, 0.75, 0, 0, 0.75, 0, 0]))


def test_only_recent_sessions_are_looked_at() -> None:
    """The two most recent that share an item with 2 are sessions 1 and 2."""
    got = scored(fitted(Config(sample=2), SESSIONS), [2])[0]
    torch.testing.assert_close(got, torch.tensor([0, 1.0, 2.0, 0, 1.0, 1.0, 0, 0]))


def test_frequent_items_count_less() -> None:
    """Item 2 has four events in four sessions, log 1 = 0; item 4 has one: 1 + 2 log 4."""
    got = scored(fitted(Config(idf=2.0), SESSIONS), [4])[0]
    torch.testing.assert_close(got[2], torch.tensor(1.0))
    torch.testing.assert_close(got[4], torch.tensor(1 + 2 * math.log(4)))


def test_sknns_cosine() -> None:
    """Of 2: session 1 has two items, sessions 0 and 2 have three."""
    plain = Config(weighting="same", score="same", cosine=True)
    got = scored(fitted(plain, SESSIONS), [2])[0]
    torch.testing.assert_close(got[4], torch.tensor(1 / math.sqrt(2)))
    torch.testing.assert_close(got[3], torch.tensor(1 / math.sqrt(3)))


WEIGHTING = {
    "same": lambda i, n: 1.0,
    "div": lambda i, n: i / n,
    "linear": lambda i, n: 1 - 0.1 * (n - i) if i <= 10 else 0,
    "quadratic": lambda i, n: (i / n) ** 2,
    "log": lambda i, n: 1 / math.log10(n - i + 1.7),
}
SCORE = {
    "same": lambda i: 1.0,
    "div": lambda i: 1 / i,
    "linear": lambda i: 1 - 0.1 * i if i <= 100 else 0,
    "quadratic": lambda i: 1 / i**2,
    "log": lambda i: 1 / math.log10(i + 1.7),
}


def looped(settings: Config, sessions: list[list[int]], current: list[int]) -> np.ndarray:
    """Session by session and item by item."""
    places = {item: i for i, item in enumerate(current, 1)}
    weights = {item: WEIGHTING[settings.weighting](i, len(current)) for item, i in places.items()}
    relevant = [n for n, s in enumerate(sessions) if set(s) & set(current)]
    near = []
    for n in relevant[-settings.sample :]:
        similarity = sum(weights[i] for i in set(sessions[n]) & set(current)) / len(weights)
        if settings.cosine:
            similarity /= math.sqrt(len(set(sessions[n])))
        if round(similarity, 9) > 0:
            near.append((-round(similarity, 9), -n))
    events = [item for s in sessions for item in s]
    out = np.zeros(SIZE)
    for negative, back in sorted(near)[: settings.neighbours]:
        items = set(sessions[-back])
        step = next(i for i, item in enumerate(reversed(current), 1) if item in items)
        for item in items:
            lift = 1 + settings.idf * math.log(len(sessions) / events.count(item))
            out[item] += -negative * SCORE[settings.score](step) * lift
    return out


item_lists = st.lists(st.integers(1, SIZE - 1), min_size=2, max_size=LENGTH + 1)


@settings(max_examples=60)
@given(
    sessions=st.lists(item_lists, min_size=1, max_size=12),
    current=st.lists(st.integers(1, SIZE - 1), min_size=1, max_size=LENGTH),
    weighting=st.sampled_from(list(WEIGHTING)),
    score=st.sampled_from(list(SCORE)),
    sample=st.integers(1, 6),
    neighbours=st.integers(1, 4),
    rest=st.tuples(st.sampled_from([0.0, 1.5]), st.booleans()),
)
def test_against_loops(sessions, current, weighting, score, sample, neighbours, rest) -> None:
    how = Config(neighbours, sample, weighting, score, *rest)
    got = scored(fitted(how, sessions), current)[0].numpy()
    np.testing.assert_allclose(got, looped(how, sessions, current), atol=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(Config(), SESSIONS)
    histories = [[1, 2], [], [2], [7, 6], [5, 4, 3]]
    whole = scored(model, *histories)
    monkeypatch.setattr(sknn, "ENTRIES", 2)
    assert torch.equal(scored(model, *histories), whole)


def test_several_windows_of_a_batch_are_sessions_of_their_own() -> None:
    model = Model(Config(), Catalogue(size=SIZE, length=2, counts=torch.zeros(SIZE)))
    history = torch.tensor([[1, 2], [0, 4]])
    targets = torch.tensor([[2, 3], [0, 5]])
    empty = torch.zeros(0, dtype=torch.int64)
    model.observe(SequenceBatch(history, targets, empty, empty.float()))
    model.finish()
    assert model.first_item.tolist() == [0, 3, 5]
    assert model.items.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("options.neighbours=0", "neighbours = 0: must be an integer >= 1"),
        ("options.sample=0", "sample = 0: must be an integer >= 1"),
        ("options.weighting=cubic", "weighting = 'cubic': must be one of 'div', 'linear'"),
        ("options.idf=-1.0", "idf = -1.0: must be a number >= 0"),
    ],
)
def test_wrong_options_are_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load("sknn", [change])


def test_the_recipe_is_the_published_one() -> None:
    assert config.load("sknn").model_config() == msgspec.convert({}, Config)
