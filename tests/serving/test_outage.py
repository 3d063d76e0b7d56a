"""The history store of a live server hangs, dies and comes back, under load."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.servers import Server, serving
from tests.tools.redis_server import RedisServer

STORE, DEADLINE = 0.5, 5.0  # seconds
LIMITS = ("--set", "drain=0", "--set", f"limits.store={STORE}")
LIMITS += ("--set", f"limits.deadline={DEADLINE}")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    yield redis
    redis.kill()


@pytest.fixture(scope="module")
def server(bundle: Path, redis: RedisServer) -> Iterator[Server]:
    with serving(bundle, "--store", redis.url, *LIMITS) as server:
        yield server


def event(name: str) -> dict:
    return {"events": [{"user": "rita", "item": "item 3", "time": 1, "event_id": name}]}


def recover(server: Server) -> float:
    """Seconds until the store is used again."""
    began = time.monotonic()
    while server.asks({"user": "rita"})["degraded_reason"]:
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["hangs", "dies"])
def test_a_store_that_goes_away_costs_histories_and_nothing_else(server, redis, how, figure):
    stored = event(f"before it {how}")
    assert sum(server.ask("/v1/events", stored).values()) == 1
    good = server.asks({"user": "rita", "n": 5})
    assert (good["source"], good["degraded_reason"]) == ("model", None)
    if how == "hangs":
        redis.signal(signal.SIGSTOP)
    else:
        redis.kill()
    seconds = []
    for _ in range(200):
        began = time.monotonic()
        plain = server.asks({"user": "rita", "n": 5})
        seconds.append(time.monotonic() - began)
        assert (plain["source"], plain["degraded_reason"]) == ("popularity", "history-unavailable")
    body = {"user": "rita", "history": ["item 3"], "n": 5}
    answer = server.asks(body)
    assert (answer["source"], answer["items"]) == ("model", good["items"])
    assert answer["degraded_reason"] == "history-unavailable"
    refused = server.http.post("/v1/events", json=event(f"while it {how}"))
    assert refused.status_code == 503 and refused.headers["retry-after"]
    assert refused.json()["error"]["code"] == "history-unavailable"
    assert server.http.get("/v1/users/rita/history").status_code == 503
    assert server.http.get("/ready").status_code == 200
    assert server.metric("dimerec_store_errors_total", operation="read") > 0
    slow = sorted(seconds)
    # few wait for the store, however slow the machine is, and nobody in vain
    assert slow[len(slow) // 2] < STORE / 2 and slow[-1] < DEADLINE, slow[-20:]
    assert sum(one >= STORE for one in slow) <= len(slow) / 10, slow[-30:]
    if how == "hangs":
        redis.signal(signal.SIGCONT)
    else:
        redis.start()
    figure(
        f"it {how}: slowest of 200 answers {1000 * slow[-1]:.0f} ms, well after {recover(server):.1f} s"
    )
    assert server.asks({"user": "rita", "n": 5})["items"] == good["items"]
    assert server.ask("/v1/events", stored)["duplicates"] == 1  # nothing was forgotten
    assert server.ask("/v1/events", event(f"while it {how}"))["stored"] in (0, 1)
