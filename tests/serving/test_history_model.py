"""At least once in, exactly once in effect: any run of calls against a model in plain Python.

Deliveries are repeated, late and out of order, stores are reopened, killed and copied.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dimerec.serving.history import Event, HistoryStore, MemoryStore
from dimerec.serving.redis import RedisStore
from dimerec.serving.sqlite import SqliteStore
from tests.tools.redis_server import RedisServer

KEEP = 3
MEMORY = Path("/dev/shm")
tenants, users = st.sampled_from(["a", "b"]), st.sampled_from(["u", "v", 7])
# few ids and times, so that most deliveries collide with others
events = st.lists(
    st.builds(
        Event,
        user=users,
        item=st.integers(0, 9),
        time=st.integers(0, 4),
        event_id=st.sampled_from([f"e{n}" for n in range(30)]),
    ),
    max_size=8,
)


class Model:
    """What a store of histories must do, as slowly as can be."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.rows: list[tuple[str, str, int, Any]] = []  # in order of arrival

    def append(self, tenant: str, events: list[Event]) -> list[bool]:
        out = []
        for event in events:
            new = (tenant, event.event_id) not in self.seen
            self.seen.add((tenant, event.event_id))
            if new:
                self.rows.append((tenant, str(event.user), event.time, event.item))
            out.append(new)
        return out

    def history(self, tenant: str, user: object) -> list[Any]:
        rows = [row for row in self.rows if row[:2] == (tenant, str(user))]
        return [item for *_, item in sorted(rows, key=lambda row: row[2])][-KEEP:]  # a stable sort

    def erase(self, tenant: str, user: object) -> int:
        removed = len(self.history(tenant, user))
        self.rows = [row for row in self.rows if row[:2] != (tenant, str(user))]
        return removed


class AnyStore(RuleBasedStateMachine):
    """What is asked of a store; subclasses say how it is opened, and what befalls it."""

    store: HistoryStore
    counts: Counter[str] = Counter()  # of all runs

    @initialize()
    def begin(self) -> None:
        self.counts["runs"] += 1
        self.model = Model()
        self.sent: list[tuple[str, list[Event]]] = []
        self.store = self.opened()

    def opened(self) -> HistoryStore:
        return MemoryStore(KEEP)

    def deliver(self, tenant: str, batch: list[Event]) -> None:
        stored = self.store.append(tenant, batch)
        self.counts.update(delivered=len(stored), stored=sum(stored))
        assert stored == self.model.append(tenant, batch)

    @rule(tenant=tenants, batch=events)
    def append(self, tenant: str, batch: list[Event]) -> None:
        self.sent.append((tenant, batch))
        self.deliver(tenant, batch)

    @rule(which=st.integers(0, 99), backwards=st.booleans())
    def deliver_again(self, which: int, backwards: bool) -> None:
        if self.sent:
            tenant, batch = self.sent[which % len(self.sent)]
            again = batch[::-1] if backwards else batch
            self.deliver(tenant, again)
            assert not any(self.store.append(tenant, again))

    @rule(tenant=tenants, user=users)
    def erase(self, tenant: str, user: object) -> None:
        assert self.store.erase(tenant, user) == self.model.erase(tenant, user)

    @invariant()
    def histories_are_the_models(self) -> None:
        for tenant in ("a", "b"):
            for user in ("u", "v", 7):
                wanted = self.model.history(tenant, user)
                assert self.store.read(tenant, user, 99) == wanted
                assert self.store.read(tenant, user, 2) == wanted[-2:]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


class InMemory(AnyStore):
    pass


class InSqlite(AnyStore):
    def opened(self) -> HistoryStore:
        # in memory where there is a file system of it: syncing is the business of other tests
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.path = self.folder / "h.db"
        return SqliteStore(self.path, KEEP)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.path, KEEP)

    @rule()
    def kill(self) -> None:
        """Go on with the files as they stand, as after kill -9: nothing was closed."""
        after = Path(tempfile.mkdtemp(dir=self.folder))
        for name in ("h.db", "h.db-wal"):
            if self.path.with_name(name).exists():
                shutil.copy(self.path.with_name(name), after / name)
        self.store.close()
        self.path = after / "h.db"
        self.store = SqliteStore(self.path, KEEP)

    @rule()
    def another_process_opens_it(self) -> None:
        other, self.store = self.store, SqliteStore(self.path, KEEP)
        self.histories_are_the_models()
        other.close()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


class InRedis(AnyStore):
    server: RedisServer

    def opened(self) -> HistoryStore:
        self.server.command("FLUSHALL")
        return RedisStore(self.server.url, KEEP)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = RedisStore(self.server.url, KEEP)

    @rule()
    def the_server_forgets_its_scripts(self) -> None:
        self.server.command("SCRIPT", "FLUSH")


class InKilledRedis(InRedis):
    @rule()
    def kill(self) -> None:
        self.server.kill()
        self.server.start()


def run(machine: type[AnyStore], examples: int, steps: int) -> None:
    case: Any = machine.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    case("runTest").runTest()


def test_in_memory():
    run(InMemory, 12, 15)


def test_in_sqlite():
    run(InSqlite, 8, 12)


@pytest.mark.slow
def test_in_sqlite_at_length(figure):
    AnyStore.counts.clear()
    run(InSqlite, 100, 40)
    runs, delivered, stored = (AnyStore.counts[name] for name in ("runs", "delivered", "stored"))
    figure(f"{runs} runs: {delivered:,} events delivered, {stored:,} of them new, each stored once")


@pytest.fixture
def server(tmp_path: Path):
    InRedis.server = RedisServer(tmp_path)
    yield InRedis.server
    InRedis.server.kill()


def test_in_redis(server: RedisServer):
    run(InRedis, 12, 12)


@pytest.mark.slow
def test_in_redis_at_length_with_the_server_killed(server: RedisServer):
    run(InRedis, 80, 40)
    run(InKilledRedis, 10, 25)
