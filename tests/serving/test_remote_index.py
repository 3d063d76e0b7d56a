"""The service with a remote index: its answers, and what an outage of the index costs."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from dimerec.cli import app
from dimerec.errors import BundleError, DataError
from dimerec.recommender import Query
from dimerec.retrieval import remote
from dimerec.retrieval.exact import ExactIndex
from dimerec.serving import remote_index, snapshot
from dimerec.serving.engine import Engine
from dimerec.serving.remote_index import GuardedIndex, IndexUnavailable
from dimerec.serving.settings import load
from tests.serving import servers
from tests.serving.servers import PATIENCE, Server, serving

ROWS = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
ASKED = np.random.default_rng(1).standard_normal((3, 2, 4)).astype(np.float32)
DEADLINE = 4.0  # seconds
HISTORIES = [[f"item {n}", f"item {n + 7}"] for n in range(1, 20)]


@pytest.fixture
def held(monkeypatch) -> remote.RemoteIndex:
    """The collection of ROWS, in a server that this process plays itself."""
    client = remote.connect(":memory:")
    monkeypatch.setattr(remote, "connect", lambda *_: client)
    return remote.RemoteIndex.build(ROWS, collection=remote.name(ROWS))


def opened(seconds: float = 5.0) -> GuardedIndex:
    return GuardedIndex.open(ROWS, url="http://test", seconds=seconds)


def test_it_finds_what_exact_search_finds(held):
    for n, hidden in [(3, []), (60, [1, 2, 39])]:
        exclude = [np.array(hidden, np.int64)] * 3
        numbers, scores = opened().search(ASKED, n, exclude)
        exact = ExactIndex.build(ROWS).search(ASKED, n, exclude)
        assert numbers.tolist() == exact[0].tolist()
        np.testing.assert_allclose(scores, exact[1], rtol=1e-5)


def test_a_collection_of_other_vectors_is_refused(held):
    client, name = held._client, remote.name(ROWS)
    opened()
    held.add([39], -ROWS[39:])
    with pytest.raises(DataError, match=f"{name}.* delete it .curl.*dimerec index BUNDLE --remote"):
        opened()
    held.add([39], ROWS[39:])
    opened()
    held.remove([20])
    with pytest.raises(DataError, match="holds 38 vectors of 4, which are not the 39 of 4"):
        opened()
    client.delete_collection(name)
    remote.RemoteIndex.build(ROWS[:, :3], collection=name)
    with pytest.raises(DataError, match="holds 39 vectors of 3, which are not the 39 of 4"):
        opened()
    client.delete_collection(name)
    with pytest.raises(DataError, match=f"has no collection '{name}'; `dimerec index BUNDLE"):
        opened()


def answers_with(number: int, score: float = 1.0):
    def search(self, queries, n, exclude, allow):
        return np.full((len(queries), n), number), np.full((len(queries), n), score, np.float32)

    return search


@pytest.mark.parametrize(
    "said", [answers_with(5), answers_with(40), answers_with(-1), answers_with(7, np.nan)]
)
def test_answers_that_were_not_asked_for_count_as_none(held, monkeypatch, said):
    index = opened()
    monkeypatch.setattr(remote.RemoteIndex, "_search", said)
    with pytest.raises(IndexUnavailable, match="does not answer as it should"):
        index.search(ASKED, 1, [np.array([5])] * 3)


def test_a_search_that_hangs_is_given_up_and_then_nobody_waits(held, monkeypatch):
    index, now = opened(seconds=0.1), [0.0]
    good = index.search(ASKED, 2)
    index.clock = lambda: now[0]
    calls, go = [], threading.Event()
    search = remote.RemoteIndex._search

    def hangs(self, *asked):
        calls.append(asked)
        assert go.wait(PATIENCE)
        return search(self, *asked)

    monkeypatch.setattr(remote.RemoteIndex, "_search", hangs)
    for seconds in (0.0, 0.0, 10 * remote_index.PAUSE):  # the first still hangs
        now[0] += seconds
        with pytest.raises(IndexUnavailable):
            index.search(ASKED, 2)
    assert len(calls) == 1
    go.set()
    ended = time.monotonic() + PATIENCE
    while True:  # it is tried in the background, and then used
        now[0] += remote_index.PAUSE
        try:
            assert index.search(ASKED, 2)[0].tolist() == good[0].tolist()
            break
        except IndexUnavailable:
            assert time.monotonic() < ended
            time.sleep(0.01)
    assert len(calls) == 3


def test_settings_name_a_server_or_none():
    assert remote_index.opener(load()) is None
    for url in ("localhost:6333", "ftp://a", "http://", "http://user:secret@a", "http://a/b"):
        with pytest.raises(Exception, match="index"):
            load(None, [f"index={json.dumps(url)}"])
    assert remote_index.opener(load(None, ['index="http://[::1]:6333/"'])) is not None


def test_options_of_the_local_index_do_not_go_with_a_remote_one(bundle):
    for more in (("--codes", "flat"), ("--exact-up-to", "0"), ("--recall", "0.9")):
        assert "leave the rest" in indexed(bundle, "http://127.0.0.1:9", *more, code=2)
    assert "does not answer as it should" in indexed(bundle, "http://127.0.0.1:9", code=2)


class StandIn:
    """A process of `qdrant_stand_in`; `start` again finds its port and data."""

    def __init__(self, folder: Path) -> None:
        self.port, self._journal = 0, folder / "journal"
        self.start()

    def start(self) -> None:
        words = ["-m", "tests.serving.qdrant_stand_in", str(self.port), str(self._journal)]
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.port = int(lines.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    server = StandIn(tmp_path_factory.mktemp("qdrant"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    servers.bundle(folder / "one")
    servers.bundle(folder / "two", seed=1)
    (folder / "CURRENT").write_text("one\n")
    return folder


def indexed(bundle: Path, url: str, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["index", str(bundle), "--remote", url, *words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def server(folder: Path, far: StandIn) -> Iterator[Server]:
    indexed(folder / "one", far.url)
    words = ("--set", "drain=0", "--set", f"limits.deadline={DEADLINE}", "--store", "memory:")
    with serving(folder, *words, "--set", f"index={json.dumps(far.url)}") as server:
        yield server


def same(server: Server, bundle: Path) -> None:
    """The service answers as exact search of the bundle does."""
    engine = Engine.open(bundle, index="exact")
    wanted = engine.recommend([Query(history, n=9) for history in HISTORIES])
    for history, exact in zip(HISTORIES, wanted, strict=True):
        answer = server.asks({"history": history, "n": 9})
        assert (answer["source"], answer["degraded_reason"]) == ("model", None)
        assert answer["items"] == exact.items
        assert answer["scores"] == pytest.approx(exact.scores, rel=1e-4, abs=1e-6)
    near = server.ask("/v1/similar", {"item": "item 3", "n": 5})
    assert near["items"] == engine.similar("item 3", 5).items


@pytest.mark.slow
def test_a_reload_goes_with_the_collection_of_its_bundle(server, folder, far):
    same(server, folder / "one")
    refused = server.ask("/v1/reload", {"bundle": "two"}, 409)["error"]
    assert refused["code"] == "bundle-refused"
    assert f"`dimerec index BUNDLE --remote {far.url}` makes it" in refused["message"]
    same(server, folder / "one")
    about = json.loads(indexed(folder / "two", far.url, "--json"))
    assert about["built"] and about["collection"].startswith("dimerec-")
    assert "exists already" in indexed(folder / "two", far.url, code=2).replace("\n", " ")
    server.ask("/v1/reload", {"bundle": "two"})
    same(server, folder / "two")
    server.ask("/v1/reload", {"bundle": "one"})
    same(server, folder / "one")
    with pytest.raises(BundleError, match="does not answer as it should"):
        opener = remote_index.opener(load(None, ['index="http://127.0.0.1:9"']))
        snapshot.Snapshot(folder / "one", 1, opener)


class Load:
    """Two threads that ask without end; `seen` holds status, answer and seconds of each request."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[int, dict, float]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url, k)) for k in range(2)]

    def _run(self, url: str, at: int) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            while not self._over.wait(0.02):
                at = (at + 1) % len(HISTORIES)
                began = time.monotonic()
                answer = client.post("/v1/recommend", json={"history": HISTORIES[at], "n": 9})
                row = (answer.status_code, answer.json(), time.monotonic() - began)
                self.seen.append(row)

    def until(self, reason: str | None, more: int) -> float:
        """Wait for `more` answers with that reason; the seconds until the first."""
        began, start, first = time.monotonic(), len(self.seen), None
        while sum(row[1].get("degraded_reason") == reason for row in self.seen[start:]) < more:
            assert time.monotonic() - began < PATIENCE, self.seen[-3:]
            time.sleep(0.02)
            if first is None and reason in [r[1].get("degraded_reason") for r in self.seen[start:]]:
                first = time.monotonic() - began
        return first or time.monotonic() - began

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.mark.slow
def test_an_index_that_goes_away_costs_its_ranking_and_nothing_else(server, folder, far, figure):
    same(server, folder / "one")
    popular = server.asks({"history": [], "n": 9})["items"]
    with Load(server.url) as load:
        load.until(None, 30)
        far.process.send_signal(signal.SIGSTOP)
        load.until("index-unavailable", 100)
        near = server.ask("/v1/similar", {"item": "item 3"}, 503)["error"]
        assert near["code"] == "index-unavailable"
        assert server.asks({"history": ["item none"]})["degraded_reason"] is None
        assert server.http.get("/ready").status_code == 200
        far.process.send_signal(signal.SIGCONT)
        resumed = load.until(None, 50)
        far.kill()
        load.until("index-unavailable", 100)
        far.start()
        restarted = load.until(None, 50)
    assert {status for status, _, _ in load.seen} == {200}
    reasons = [(answer["source"], answer["degraded_reason"]) for _, answer, _ in load.seen]
    assert set(reasons) == {("model", None), ("popularity", "index-unavailable")}
    for _, answer, _ in load.seen:
        if answer["degraded_reason"]:
            assert len(answer["items"]) == 9 and len(set(answer["items"]) & set(popular)) >= 7
    seconds = [took for _, _, took in load.seen]
    # one search is waited for in vain, by those in its batch and those behind it
    assert max(seconds) < DEADLINE and sum(s > DEADLINE / 8 for s in seconds) < len(seconds) / 20
    degraded = sum(source == "popularity" for source, _ in reasons)
    assert server.metric("dimerec_answers_total", degraded="index-unavailable") == degraded
    assert server.metric("dimerec_requests_total", status="500") == 0
    same(server, folder / "one")
    figure(
        f"{len(seconds)} answers, {degraded} of popular items, slowest {1000 * max(seconds):.0f} "
        f"ms; by the model again {resumed:.1f} s after it went on, {restarted:.1f} s after its restart"
    )
