"""Servers that several tests share: they are started together, for starting is the slow part."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import servers
from tests.serving.servers import Server, token_settings

TOKENS = "".join(
    [
        token_settings("reader", ["read"]),
        token_settings("writer", ["ingest"]),
        token_settings("chief", ["admin"]),
        token_settings("all", ["read", "ingest", "admin"]),
        token_settings("other", ["read", "ingest"], tenant="elsewhere"),
        token_settings("slow", ["read"], rate=2.0),
        token_settings("fast", ["read"], rate=2.0),
    ]
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    return servers.bundle(tmp_path_factory.mktemp("served") / "bundle").path


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles: `one`, which CURRENT names, and `two`."""
    folder = tmp_path_factory.mktemp("shelf")
    servers.bundle(folder / "one")
    servers.bundle(folder / "two", seed=1)
    (folder / "CURRENT").write_text("one\n")
    return folder


@pytest.fixture(scope="session")
def started(
    bundle: Path, shelf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Server]]:
    folder = tmp_path_factory.mktemp("servers")
    (folder / "tokens.toml").write_text(TOKENS)
    # Patient, for a test machine may be busy; deadlines have tests with servers of their own.
    common = ("--set", "drain=0", "--set", "limits.deadline=20", "--set", "limits.store=5")
    store = f"sqlite:///{folder / 'histories.db'}"
    running = {
        "plain": Server(bundle, "--store", store, *common),
        "guarded": Server(
            shelf, "--settings", folder / "tokens.toml", "--store", "memory:", *common
        ),
    }
    try:
        yield {name: server.wait() for name, server in running.items()}
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture(scope="session")
def plain(started: dict[str, Server]) -> Server:
    """An open server of one bundle, with a real store. Each test uses users of its own."""
    return started["plain"]


@pytest.fixture(scope="session")
def guarded(started: dict[str, Server]) -> Server:
    """A server with `TOKENS`, of a folder of bundles."""
    return started["guarded"]
