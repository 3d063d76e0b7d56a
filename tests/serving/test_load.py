"""The service under more than it can bear, from a load generator that does not wait for it; and
the generator itself, which must own up to it when it was late."""

import json
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from benchmarks import load
from benchmarks.load import Generator, Request, Step
from tests.serving import servers
from tests.serving.models import paced
from tests.serving.servers import Server, serving
from tests.tools.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
LATE = 0.3  # seconds: the machine may be shared with other tests
BATCH = 4
CAPACITY = BATCH / paced.SECONDS  # requests a second
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextmanager
def answering(pause: float = 0.0) -> Iterator[str]:
    """A server of plain answers, each connection with a thread; nobody is answered for `pause`
    seconds after the first request. Its URL."""
    door = socket.create_server(("127.0.0.1", 0), backlog=512)
    began: list[float] = []

    def answer(connection: socket.socket) -> None:
        with connection:
            while connection.recv(1 << 16):
                began.append(time.monotonic())
                time.sleep(max(0.0, began[0] + pause - time.monotonic()))
                connection.sendall(HEALTHY)

    def accept() -> None:
        while True:
            try:
                connection, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.close()


def sent(url: str, step: Step, connections: int = 256) -> list[Request]:
    plan = load.schedule([step], "even", 0)
    Generator(url, "/", [b"{}"], connections).run(plan)
    return plan


def test_send_times_are_fixed_by_the_seed_and_have_the_rate():
    steps = [Step(1000, 4), Step(10, 1)]
    plan = load.schedule(steps, "poisson", 1)
    assert plan == load.schedule(steps, "poisson", 1) != load.schedule(steps, "poisson", 2)
    first = [request.due for request in plan if request.step == 0]
    assert len(first) == pytest.approx(4000, abs=4 * 4000**0.5)
    assert first == sorted(first) and first[-1] < 4.0 <= plan[len(first)].due
    gaps = [b - a for a, b in pairwise(first)]
    mean = sum(gaps) / len(gaps)  # of exponential gaps the deviation is the mean
    assert (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)
    even = [request.due for request in load.schedule([Step(4, 1)], "even", 0)]
    assert even == [0.0, 0.25, 0.5, 0.75]


def test_load_is_bounded_and_of_this_machine_alone():
    for steps in ([Step(1, 700)], [Step(1e6, 1)]):
        with pytest.raises(ValueError, match="at most"):
            load.schedule(steps, "even", 0)
    for text in ("0x1", "5x0", "5x-1", "infx1", "5"):
        with pytest.raises(ValueError):
            Step.parse(text)
    for url in ("http://example.org:80", "https://127.0.0.1:80", "http://127.0.0.1"):
        with pytest.raises(ValueError, match="only this machine"):
            Generator(url, "/", [b"{}"], 1)


def test_a_generator_that_is_held_up_voids_the_run(monkeypatch, figure):
    step = Step(50, 1.2)
    with answering() as url:
        for _ in range(5):  # on a busy machine it may be held up unasked
            fine = load.report([step], sent(url, step), within=1.0, late=0.5)
            if fine["void"] is None:
                break
        assert fine["void"] is None and fine["steps"][0]["statuses"] == {"200": 60}
        turns = iter(range(10_000))

        def held_up(*given):
            if next(turns) == 20:
                time.sleep(0.8)
            return select_(*given)

        select_ = select.select
        monkeypatch.setattr(select, "select", held_up)
        plan = sent(url, step)
    found = load.report([step], plan, within=1.0, late=0.5)
    assert "sends at 50/s were over 500 ms late" in found["void"]
    assert all(request.status == 200 for request in plan)
    # what was late is in the latency, although each answer came at once
    behind = [request for request in plan if request.sent - request.due > 0.5]
    assert 10 <= len(behind) == found["steps"][0]["late"]
    assert all(request.ended - request.due > 0.5 for request in behind)
    figure(f"a generator held up: {len(behind)} of {len(plan)} sends over 500 ms late, run void")


def test_a_server_that_stalls_is_measured_as_its_users_felt_it(figure):
    step = Step(100, 1.5)
    with answering(pause=1.0) as url:
        plan = sent(url, step)
    waited = [request.ended - request.due for request in plan]
    assert all(request.status == 200 for request in plan)
    # sent one after the other, only the first would have waited; here all that were due then did
    assert sum(seconds > 0.5 for seconds in waited) >= 45
    for request in plan[:90]:
        assert request.ended >= 1.0 - 0.01
    late = sum(seconds > 0.5 for seconds in waited)
    p99 = load.quantile(sorted(waited), 0.99)
    assert p99 is not None
    figure(
        f"a stall of 1 s at {step.rate:.0f}/s: {late} of {len(plan)} waited over 500 ms, "
        f"p99 {1000 * p99:.0f} ms"
    )


def test_too_few_connections_make_sends_late_and_no_answer_is_no_answer():
    step = Step(100, 1)
    with answering(pause=0.9) as url:
        plan = sent(url, step, connections=2)
    assert load.report([step], plan, within=1.0, late=0.3)["void"]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    found = load.report([step], sent(url, Step(20, 0.2)), within=1.0, late=9.0)
    row = found["steps"][0]
    assert found["void"] is None
    assert row["statuses"] == {"0": 4} and row["good"] == 0 and row["p99_ms"] is None


def test_quantiles_are_by_hand():
    values = [float(n) for n in range(1, 101)]
    assert [load.quantile(values, share) for share in (0.5, 0.99, 0.999)] == [50.0, 99.0, 100.0]
    assert load.quantile([3.0], 0.5) == 3.0 and load.quantile([], 0.5) is None


class Load:
    """The generator as its own process."""

    def __init__(self, server: Server, bodies: Path, *steps: str) -> None:
        command = [sys.executable, ROOT / "benchmarks" / "load.py", server.url, "--late", LATE]
        self._process = subprocess.Popen(
            [*map(str, command), "--bodies", str(bodies), "--steps", *steps],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        assert self._process.stderr.readline() == "started\n"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def report(self) -> dict:
        out, errors = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, errors
        return json.loads(out)


def asks(folder: Path, bodies: list[dict]) -> Path:
    path = folder / "asks.jsonl"
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return path


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Under the default limits a full queue is more than this model does within the deadline."""
    bundle = servers.bundle(tmp_path_factory.mktemp("paced") / "bundle", "paced").path
    words = ("--store", "memory:", "--set", "drain=0", "--set", f"limits.batch={BATCH}")
    with serving(bundle, *words) as server:
        assert server.asks({"history": ["item 3"]})["source"] == "model"
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 5])
def test_beyond_capacity_goodput_stays_and_refusals_are_polite(
    slow_model: Server, tmp_path: Path, figure, times: int
):
    bodies = asks(tmp_path, [{"history": ["item 3", f"item {n}"]} for n in range(1, 40)])
    process = psutil.Process(slow_model.process.pid)
    calm = f"{0.4 * CAPACITY:g}"
    Load(slow_model, bodies, f"{times * CAPACITY:g}x2", f"{calm}x2").report()  # warm: buffers
    before = process.memory_info().rss
    for _ in range(3):
        found = Load(
            slow_model, bodies, f"{times * CAPACITY:g}x6", f"{calm}x2", f"{calm}x3"
        ).report()
        if found["void"] is None:
            break
    over, _, after = found["steps"]
    grown = (process.memory_info().rss - before) / 2**20
    assert found["void"] is None
    assert set(over["statuses"]) == {"200", "503"}
    assert over["good"] > 0 == over["refused_without_retry_after"]
    assert over["refused"] > (1 - 1.3 / times) * over["sent"], over
    # A queue that is worked on in vain gives far less, and the same for long after.
    share = over["goodput"] / CAPACITY
    assert share > 0.4, over
    assert grown < 16
    assert after["statuses"] == {"200": after["sent"]}, after
    assert after["p50_ms"] < 250, after
    figure(
        f"{times}x: goodput {share:.0%} of what the model can do, refusals within "
        f"{over['refused_p99_ms']:.0f} ms (p99), memory {grown:+.0f} MiB"
    )


@pytest.mark.slow
def test_a_generator_that_is_stopped_says_so(slow_model: Server, tmp_path: Path):
    running = Load(slow_model, asks(tmp_path, [{"history": ["item 3"]}]), "50x3")
    time.sleep(1)
    running.signal(signal.SIGSTOP)
    time.sleep(1)
    running.signal(signal.SIGCONT)
    found = running.report()
    assert found["void"] and found["steps"][0]["latest_ms"] > 700


@pytest.mark.slow
def test_redis_stops_and_comes_back_under_load_and_no_request_fails(
    bundle: Path, tmp_path: Path, figure
):
    redis = RedisServer(tmp_path)
    users = [f"user {n}" for n in range(20)]
    try:
        patient = ("--set", "limits.store=0.5", "--set", "limits.deadline=5")
        with serving(bundle, "--store", redis.url, "--set", "drain=0", *patient) as server:
            events = [
                {"user": user, "item": f"item {n}", "time": n, "event_id": f"{user}-{n}"}
                for user in users
                for n in range(1, 6)
            ]
            assert server.ask("/v1/events", {"events": events})["stored"] == len(events)
            bodies = asks(tmp_path, [{"user": user, "history": ["item 9"]} for user in users])
            running = Load(server, bodies, "60x3", "60x4", "60x3", "60x3")
            time.sleep(3)
            redis.kill()
            time.sleep(3.5)
            redis.start()
            found = running.report()
    finally:
        redis.kill()
    before, during, _, after = found["steps"]
    for row in found["steps"]:
        assert row["statuses"] == {"200": row["sent"]}, row
    assert set(during["degraded"]) == {"history-unavailable"}
    assert during["degraded"]["history-unavailable"] > during["sent"] / 2
    assert during["p50_ms"] < 250, during  # they do not wait for it, half a second each
    assert after["degraded"] == {}
    figure(
        f"Redis gone for 3.5 s under {during['rate']:.0f} requests/s: none failed, "
        f"p99 {during['p99_ms']:.0f} ms then and {before['p99_ms']:.0f} ms before"
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_measures_what_it_says(tmp_path: Path, figure):
    out = tmp_path / "serving.json"
    command = [sys.executable, ROOT / "benchmarks" / "bench_serving.py", "--quick", "--eager"]
    command += ["--items", 2000, "--bound", 1000, "--out", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    peak = found["peak"]
    assert peak["good"] == peak["sent"] > 0 and peak["p99_ms"] < found["bound_ms"] == 1000
    figure(
        f"in short, {found['items']:,} items, not compiled: at {peak['rate']:.0f}/s p50 "
        f"{peak['p50_ms']:.1f}, p99 {peak['p99_ms']:.1f}, p99.9 {peak['p99.9_ms']:.1f} ms"
    )
    assert [row["times"] for row in found["beyond"]] == [2, 5]
    for row in found["beyond"]:
        assert row["over"]["rate"] == pytest.approx(row["times"] * peak["rate"], abs=0.1)
        assert set(row["over"]["statuses"]) <= {"200", "503"}
        assert row["over"]["refused_without_retry_after"] == 0
        assert f"{row['times']}x: refusals are 429 or 503: yes" in done.stdout
