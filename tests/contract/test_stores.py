"""Every store of histories obeys one contract: in memory, in SQLite, in a real Redis server."""

import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from dimerec.errors import ConfigError, StoreUnavailable
from dimerec.serving.history import Event, HistoryStore, open_store
from tests.tools.redis_server import RedisServer

Open = Callable[..., HistoryStore]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the store of this test, as often as it is called; it is empty at first."""
    stores: list[HistoryStore] = []
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.command("FLUSHALL")
        url = server.url
    else:
        url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/h.db"}[request.param]

    def opened(keep: int = 500) -> HistoryStore:
        stores.append(open_store(f"{url}?keep={keep}"))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def event(user: int | str, item: int | str, time: int, event_id: str = "") -> Event:
    return Event(user, item, time, event_id or f"{user}/{item}/{time}")


def test_a_history_is_read_back_in_order_of_time(opened: Open):
    store = opened()
    events = [event("u", "b", 20), event("u", "c", 30), event("u", "a", 10), event("v", "x", 1)]
    assert store.append("t", events) == [True] * 4
    assert store.read("t", "u", 10) == ["a", "b", "c"]
    assert store.read("t", "u", 2) == ["b", "c"]
    assert store.read("t", "u", 1) == ["c"]
    assert store.read("t", "v", 5) == ["x"]
    assert store.read("t", "nobody", 5) == []
    assert store.read("t", "u", 0) == []


def test_what_happened_at_one_time_stands_in_order_of_arrival(opened: Open):
    store = opened()
    # item ids sort otherwise, and the calls are two
    store.append("t", [event("u", "z", 5), event("u", 10, 5), event("u", "a", 5)])
    store.append("t", [event("u", 9, 5), event("u", "y", 4)])
    assert store.read("t", "u", 10) == ["y", "z", 10, "a", 9]


def test_arrivals_are_in_order_past_ten(opened: Open):
    store = opened()
    store.append("t", [event("u", 100 - n, 5) for n in range(30)])
    assert store.read("t", "u", 50) == [100 - n for n in range(30)]


def test_an_event_counts_once(opened: Open):
    store = opened()
    first, other = event("u", 1, 10, "same"), event("v", 2, 20, "same")
    assert store.append("t", [first, first]) == [True, False]
    assert store.append("t", [first, event("u", 3, 11), other]) == [False, True, False]
    assert store.read("t", "u", 10) == [1, 3]
    assert store.read("t", "v", 10) == []


def test_nothing_is_nothing(opened: Open):
    store = opened()
    assert store.append("t", []) == []
    assert store.erase("t", "nobody") == 0


def test_tenants_are_blind_to_one_another(opened: Open):
    store = opened()
    store.append("one", [event("u", 1, 10, "e")])
    assert store.append("two", [event("u", 2, 10, "e")]) == [True]
    # names that a careless join of parts would take for one another
    store.append("a", [event("b,c", 3, 10)])
    store.append("a,b", [event("c", 4, 10)])
    store.append('a"', [event(',"b', 5, 10)])
    assert store.read("one", "u", 9) == [1] and store.read("two", "u", 9) == [2]
    assert store.read("a", "b,c", 9) == [3] and store.read("a,b", "c", 9) == [4]
    assert store.read("a", "b", 9) == store.read("a,b", "b,c", 9) == []
    assert store.erase("two", "u") == 1
    assert store.read("one", "u", 9) == [1]


def test_a_user_is_one_under_a_number_and_its_text_an_item_is_not(opened: Open):
    store = opened()
    store.append("t", [event(7, 7, 1), event("7", "7", 2)])
    assert store.read("t", 7, 9) == store.read("t", "7", 9) == [7, "7"]
    assert store.erase("t", "7") == 2
    assert store.read("t", 7, 9) == []


def test_a_history_is_bounded(opened: Open):
    store = opened(keep=3)
    for n in range(50):
        assert store.append("t", [event("u", n, n)]) == [True]
    assert store.read("t", "u", 100) == [47, 48, 49]
    assert store.append("t", [event("u", "late", 5)]) == [True]  # older than what is kept
    assert store.read("t", "u", 100) == [47, 48, 49]
    assert store.append("t", [event("u", 0, 0)]) == [False]  # gone, and still known
    assert store.append("t", [event("u", n, 60) for n in range(5)]) == [True] * 5
    assert store.read("t", "u", 100) == [2, 3, 4]
    assert store.erase("t", "u") == 3


def test_what_was_erased_stays_away_when_it_is_delivered_again(opened: Open):
    store = opened(keep=2)
    events = [event("u", n, n) for n in range(4)]
    store.append("t", [*events, event("v", 1, 1)])
    assert store.erase("t", "u") == 2
    assert store.read("t", "u", 9) == []
    assert store.append("t", events) == [False] * 4  # also those trimmed before
    assert store.read("t", "u", 9) == [] and store.read("t", "v", 9) == [1]
    assert store.append("t", [event("u", "new", 0)]) == [True]
    assert store.read("t", "u", 9) == ["new"]


@pytest.mark.parametrize("opened", ["sqlite", "redis"], indirect=True)
def test_what_was_stored_is_there_for_the_next_who_opens_it(opened: Open):
    store = opened()
    store.append("t", [event("u", 1, 5), event("u", 2, 5)])
    store.append("t", [event("v", 1, 5)])
    store.erase("t", "v")
    both = opened()  # at the same time
    assert both.append("t", [event("u", 2, 5), event("u", 3, 5)]) == [False, True]
    assert store.read("t", "u", 9) == [1, 2, 3]
    store.close()
    both.close()
    again = opened()
    assert again.append("t", [event("v", 1, 5), event("u", 1, 5)]) == [False, False]
    assert again.append("t", [event("u", 4, 5)]) == [True]
    assert again.read("t", "u", 9) == [1, 2, 3, 4] and again.read("t", "v", 9) == []


def test_many_writers_at_once(opened: Open, figure):
    store = opened()
    wins: list[int] = []

    def write(who: int) -> None:
        for n in range(8):
            own, shared = event(f"user {who}", n, n), event("shared", n, n)
            wins.append(sum(store.append("t", [own, shared])) - 1)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == 8  # each shared event was stored by one of the eight
    figure(
        "{stores} stores: {asked} deliveries of shared events, {stored} took effect",
        stores=1,
        asked=len(wins),
        stored=sum(wins),
    )
    assert all(store.read("t", f"user {who}", 99) == list(range(8)) for who in range(8))
    assert store.read("t", "shared", 99) == list(range(8))


def test_a_closed_store_says_so(opened: Open):
    store = opened()
    assert store.healthy()
    store.close()
    store.close()
    assert not store.healthy()
    for call in (
        lambda: store.append("t", [event("u", 1, 1)]),
        lambda: store.read("t", "u", 1),
        lambda: store.erase("t", "u"),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


ids = st.integers(-(2**63), 2**63 - 1) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ids, ids, st.integers(0, 253_402_300_799)), min_size=1, max_size=5))
def test_any_id_comes_back_as_it_was(opened: Open, rows):
    if not hasattr(opened, "store"):
        opened.store = opened()
    store: HistoryStore = opened.store
    for user, item, time in rows:
        store.erase("t\0 é", user)
        assert store.append("t\0 é", [Event(user, item, time, event_id())]) == [True]
        assert store.read("t\0 é", user, 9) == [item]
        assert type(store.read("t\0 é", user, 9)[0]) is type(item)


NUMBERS = count(1)


def event_id() -> str:
    """Another one at every call."""
    return f"\0{next(NUMBERS)}"


@pytest.mark.parametrize("user", [2**63, "", "\ud800", "x" * 513])
def test_nothing_is_known_of_a_user_no_event_can_name(opened: Open, user):
    store = opened()
    with pytest.raises(ValueError, match="user must be"):
        Event(user, 1, 1, "e")
    assert store.read("t", user, 1) == [] and store.erase("t", user) == 0


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("postgres://here/db", "sqlite:///FILE"),
        ("sqlite:///", "sqlite:///FILE"),
        ("sqlite://h.db", "sqlite:///FILE"),
        ("histories.db", "sqlite:///FILE"),
        ("memory:?keep=0", "1..1000000"),
        ("memory:?keep=many", "1..1000000"),
        ("memory:?keep=", "1..1000000"),
        ("sqlite:///h.db?sync=off", "no setting sync"),
        ("redis://127.0.0.1:port/0", "port"),
    ],
)
def test_an_address_that_is_none(url: str, what: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=what):
        open_store(url)
    assert not list(tmp_path.iterdir())


def test_a_relative_file_has_three_slashes_an_absolute_one_four(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///deep/h.db").close()
    open_store(f"sqlite:///{tmp_path}/other.db").close()
    assert (tmp_path / "deep" / "h.db").exists() and (tmp_path / "other.db").exists()
