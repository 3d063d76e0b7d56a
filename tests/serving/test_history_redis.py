"""A real Redis server that is stopped, hangs, is full, forbids, or would forget."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dimerec.errors import ConfigError, DimeRecError, Overloaded, StoreUnavailable
from dimerec.serving import redis
from dimerec.serving.history import Event, open_store
from dimerec.serving.redis import RedisStore
from tests.tools.redis_server import DURABLE, RedisServer


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start a server with some options."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(RedisServer(folder, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def server(start: Callable[..., RedisServer]) -> RedisServer:
    return start(*DURABLE)


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(server.url)
    assert store.append("t", events(0, 1, 2)) == [True] * 3
    yield store
    store.close()


def events(*numbers: int) -> list[Event]:
    return [Event("u", n, n, f"e{n}") for n in numbers]


def refused(store: RedisStore, what: str) -> float:
    """Seconds until reading, writing and erasing were all refused."""
    began = time.monotonic()
    for call in (
        lambda: store.read("t", "u", 9),
        lambda: store.append("t", events(9)),
        lambda: store.erase("t", "u"),
    ):
        with pytest.raises(StoreUnavailable, match=f"^{store._name}: .*{what}"):
            call()
    assert not store.healthy()
    return time.monotonic() - began


def recovers(store: RedisStore) -> None:
    time.sleep(redis.REST + 0.05)
    assert store.healthy()
    assert store.append("t", events(2, 3)) == [False, True]
    assert store.read("t", "u", 9) == [0, 1, 2, 3]


def test_a_server_that_stops_and_comes_back(server: RedisServer, store: RedisStore):
    server.kill()
    assert refused(store, "no answer; see to the server|down a moment ago") < redis.ANSWER
    server.start()
    recovers(store)


def test_a_server_that_hangs_costs_one_caller_some_time_and_the_others_none(
    server: RedisServer, monkeypatch
):
    monkeypatch.setattr(redis, "ANSWER", 1.0)
    store = RedisStore(server.url)
    store.append("t", events(0, 1, 2))
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no answer"):
        store.read("t", "u", 9)
    assert redis.ANSWER * 0.9 < time.monotonic() - began < redis.ANSWER + 5
    monkeypatch.setattr(store, "_down_until", time.monotonic() + 60)
    assert refused(store, "down a moment ago") < redis.ANSWER / 2
    server.signal(signal.SIGCONT)
    store._down_until = 0.0
    recovers(store)
    store.close()


def test_nobody_there():
    with pytest.raises(StoreUnavailable, match=r"^redis://127.0.0.1:1/0: no answer"):
        RedisStore("redis://127.0.0.1:1/0")


def test_a_full_server_refuses_and_goes_on(server: RedisServer, store: RedisStore):
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="refused; see to its memory"):
        store.append("t", events(3))
    assert not store.healthy()
    assert store.read("t", "u", 9) == [0, 1, 2]
    server.command("CONFIG", "SET", "maxmemory", "0")
    recovers(store)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--appendonly", "no"), "appendonly is no"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "appendfsync is everysec"),
        ((*DURABLE, "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy is allkeys-lru"),
    ],
)
def test_a_server_that_would_forget_is_refused(start, options: tuple[str, ...], what: str):
    server = start(*options)
    with pytest.raises(StoreUnavailable, match=f"would lose.*{what}.*--appendfsync always"):
        RedisStore(server.url)


def test_a_server_that_begins_to_forget_is_not_healthy(server: RedisServer, store: RedisStore):
    server.command("CONFIG", "SET", "appendfsync", "everysec")
    assert not store.healthy()


def test_a_server_that_does_not_tell_is_taken_with_a_warning(server: RedisServer, caplog):
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-config")
    url = f"redis://app:secret@127.0.0.1:{server.port}/0"
    with caplog.at_level(logging.WARNING, "dimerec"):
        store = open_store(url)
        assert store.append("t", events(1)) == [True] and store.healthy()
    store.close()
    (line,) = [record.message for record in caplog.records]
    assert "--appendfsync always" in line and "secret" not in line


def test_a_password_is_in_no_message(server: RedisServer):
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
    wrong = f"redis://app:letmein@127.0.0.1:{server.port}/0"
    with pytest.raises(StoreUnavailable, match="name and password") as told:
        open_store(wrong)
    assert "letmein" not in str(told.value)
    for url in ("redis://app:letmein@here:port/0", f"{wrong}?what=1", f"{wrong}?keep=x"):
        with pytest.raises(ConfigError) as told_too:
            open_store(url)
        assert "letmein" not in str(told_too.value)


def test_requests_on_their_way_are_bounded(store: RedisStore, monkeypatch):
    monkeypatch.setattr(redis, "TURN", 0.05)
    for _ in range(redis.CONNECTIONS):
        assert store._turns.acquire(blocking=False)
    with pytest.raises(Overloaded, match="on their way"):
        store.read("t", "u", 9)
    store._turns.release()
    assert store.read("t", "u", 9) == [0, 1, 2]


def test_databases_of_one_server_are_apart(server: RedisServer, store: RedisStore):
    other = open_store(server.url.replace("/0", "/1"))
    assert other.read("t", "u", 9) == []
    assert other.append("t", events(0)) == [True]
    other.close()


def test_large_batches_are_cut_and_all_stored(store: RedisStore):
    many = [Event(n % 7, n, n, f"m{n}") for n in range(3 * redis.BATCH + 1)]
    assert store.append("t", many) == [True] * len(many)
    assert store.read("t", 0, 999) == list(range(0, len(many), 7))
    assert not any(store.append("t", many))


def test_every_error_is_one_of_ours(store: RedisStore, server: RedisServer):
    server.command("SET", 'dimerec:["t","u"]', "something else")
    for call in (lambda: store.read("t", "u", 9), lambda: store.append("t", events(8))):
        with pytest.raises(DimeRecError, match="WRONGTYPE"):
            call()
