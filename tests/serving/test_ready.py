"""A model that fails, hangs and ends: what is answered, and what /ready and /live say."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving import servers
from tests.serving.models import moody
from tests.serving.servers import Server, serving
from tests.serving.test_limits import Wire, post

FINE, BREAKS, NAN, KILLS, HANGS = (
    [f"item {n}"] for n in (3, moody.RAISES, moody.NAN, moody.KILLS, moody.HANGS)
)
SETTINGS = ("queue=2", "batch=1", "in_flight=6", "deadline=2.0", "stalled=2.2", "body_seconds=20")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """One for this file: the last test breaks it for good."""
    bundle = servers.bundle(tmp_path_factory.mktemp("moody") / "bundle", "moody").path
    words = [part for setting in SETTINGS for part in ("--set", f"limits.{setting}")]
    with serving(bundle, "--store", "memory:", "--set", "drain=300", *words) as server:
        yield server


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def code(server: Server, path: str) -> int:
    return server.http.get(path).status_code


def test_a_model_that_fails_on_one_query_fails_on_that_alone(server, figure):
    for history in (BREAKS, NAN):
        answer = server.asks({"history": history, "n": 4})
        assert answer["source"] == "popularity" and len(answer["items"]) == 4
        assert answer["degraded_reason"] == "model-failed"
    answer = server.asks({"history": ["never seen"], "n": 4})
    assert (answer["source"], answer["degraded_reason"]) == ("popularity", None)
    queries = [{"history": history, "n": 3} for history in (FINE, BREAKS, FINE, NAN)]
    batch = server.ask("/v1/recommend/batch", {"queries": queries})
    sources = [answer["source"] for answer in batch["answers"]]
    assert sources == ["model", "popularity", "model", "popularity"]
    assert (batch["source"], batch["degraded_reason"]) == ("mixed", "model-failed")
    assert server.metric("dimerec_answers_total", degraded="model-failed") == 4
    assert code(server, "/ready") == code(server, "/live") == 200
    figure(f"a batch with an error and a NaN: answered by {', '.join(sources)}")


def test_too_many_inside_are_refused_before_their_bodies_are_read(server):
    try:
        held = [Wire(server) for _ in range(6)]
        time.sleep(0.3)  # the request before has its answer a moment before it counts as ended
        for wire in held:
            wire.send(post(b'{"n": 1', length=8))
        until(lambda: server.metric("dimerec_in_flight") == 6)
        refused = Wire(server)
        refused.send(post(b"", length=100))  # the body never comes
        kind, body = refused.answer()
        assert kind == 503 and b"overloaded" in body
        answer = server.http.post("/v1/recommend", json={})
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert code(server, "/live") == code(server, "/metrics") == 200
        for wire in held:
            wire.send(b"}")
            assert wire.answer()[0] == 200
        assert server.asks({"history": FINE})["source"] == "model"
    finally:
        while Wire.opened:
            Wire.opened.pop().socket.close()


def test_a_full_queue_and_a_stuck_model_are_said_and_pass(server, figure):
    with ThreadPoolExecutor(4) as pool:
        began = time.monotonic()

        def ask(history: list[str]) -> tuple[int, Any, float]:
            answer = server.http.post("/v1/recommend", json={"history": history})
            return answer.status_code, answer, time.monotonic() - began

        hung = pool.submit(ask, HANGS)
        until(lambda: server.metric("dimerec_in_flight") == 1)
        time.sleep(0.2)  # until the model has it
        waiting = [pool.submit(ask, FINE) for _ in range(2)]
        until(lambda: server.metric("dimerec_queue") == 2)
        ready = server.http.get("/ready")
        assert ready.status_code == 503 and "2 queries wait" in ready.json()["error"]["message"]
        assert server.metric("dimerec_ready") == 0
        refused = server.http.post("/v1/recommend", json={"history": FINE})
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1"
        for future in (hung, *waiting):  # the deadline holds, whatever the model does
            kind, answer, seconds = future.result()
            assert kind == 503 and answer.json()["error"]["code"] == "deadline-exceeded"
            assert answer.headers["retry-after"] and seconds < moody.HANG_SECONDS
        waits = [future.result()[2] for future in (hung, *waiting)]
        until(lambda: code(server, "/live") == 503)
        assert "at one batch" in server.http.get("/live").json()["error"]["message"]
    until(lambda: code(server, "/ready") == code(server, "/live") == 200)
    assert server.asks({"history": FINE})["source"] == "model"
    assert server.metric("dimerec_queue") == 0
    figure(
        f"{len(waits)} queries at a stuck model refused, the last after {max(waits):.1f} s; /ready "
        f"said {ready.status_code}, and {code(server, '/ready')} when it was over"
    )


def test_a_worker_that_ended_is_said_and_the_process_still_stops_well(server, figure):
    killed = server.http.post("/v1/recommend", json={"history": KILLS})
    assert killed.status_code == 503 and killed.json()["error"]["code"] == "worker-gone"
    for path in ("/ready", "/live"):
        answer = server.http.get(path)
        assert answer.status_code == 503 and "worker has ended" in answer.text
    answer = server.http.post("/v1/recommend", json={"history": FINE})
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert server.metric("dimerec_ready") == 0
    server.process.send_signal(signal.SIGTERM)
    until(lambda: "shutting down" in server.http.get("/ready").text)
    assert server.process.poll() is None  # it drains, for as long as it was told to
    ended = server.stop()
    assert ended == 0  # and a second signal ends that
    figure(f"without a worker /ready and /live say {answer.status_code}; exit code {ended}")
