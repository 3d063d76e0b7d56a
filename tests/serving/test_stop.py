"""SIGTERM: /ready says no, what is under way is answered, nobody is dropped, the process ends."""

import asyncio
import contextlib
import signal
import ssl
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.serving.servers import Server, serving
from tests.serving.test_limits import Wire, post

DRAIN = 2.0  # seconds
BODY = {"history": ["item 3"], "n": 3}


TLS = ssl.create_default_context()  # made once: it takes longer than a request


class Load:
    """Requests on kept connections, one after the other, from several threads."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self.url = url
        self.answers: list[int] = []
        self.errors: list[Exception] = []
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20) as http:
            while not self.stop.is_set():
                try:
                    self.answers.append(http.post("/v1/recommend", json=BODY).status_code)
                except httpx.TransportError as e:
                    self.errors.append(e)
                time.sleep(0.005)

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(
    "sig", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_stop_drains(bundle, sig, figure):
    words = ("--store", "memory:", "--set", f"drain={DRAIN}")
    words += ("--set", "limits.deadline=20", "--set", "limits.body_seconds=30")
    with serving(bundle, *words) as server:
        load = Load(server.url)
        while len(load.answers) < 10:
            time.sleep(0.01)
        server.process.send_signal(sig)
        sent = time.monotonic()
        late = Wire(server)
        late.send(post(b'{"n": 3', length=8))
        until, seen, tried = sent + 0.3 * DRAIN, 0, 0
        while time.monotonic() < until or not tried:
            tried += 1
            with httpx.Client(base_url=server.url, verify=TLS) as fresh:  # new ones are taken
                answer = fresh.get("/ready")
                seen += answer.status_code == 503 and "shutting down" in answer.text
                assert answer.headers.get("connection") == "close" or not seen
                assert fresh.post("/v1/recommend", json=BODY).status_code == 200
        load.join()  # as a load balancer would that asked /ready
        assert seen and set(load.answers) == {200} and not load.errors
        with pytest.raises(httpx.TransportError):  # the drain ends
            while time.monotonic() < sent + 30:
                httpx.get(server.url + "/live")
                time.sleep(0.02)
        assert time.monotonic() > sent + 0.9 * DRAIN
        late.send(b"}")
        assert late.answer()[0] == 200  # it was under way
        Wire.opened.remove(late)
        late.socket.close()
        assert server.process.wait(20) == 0
    figure(
        f"{sig.name}: {len(load.answers)} answered, {len(load.errors)} dropped, a late body "
        f"answered, exit code {server.process.returncode}"
    )


class Proxy:
    """A load balancer: asks /ready of its servers now and then, and sends a request to one that
    said yes, on a connection of its own."""

    def __init__(self, servers: list[Server | None]) -> None:
        self.servers = servers
        self.ready: set[str] = set()
        self.turn = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))
        self._thread.start()
        self._started.wait()

    async def _main(self) -> None:
        self._end = asyncio.Event()
        listening = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        checks = asyncio.create_task(self._check())
        self._started.set()
        await self._end.wait()
        checks.cancel()
        listening.close()

    async def _check(self) -> None:
        async with httpx.AsyncClient() as http:
            while True:
                for server in [s for s in self.servers if s is not None]:
                    try:
                        good = (await http.get(server.url + "/ready")).status_code == 200
                    except httpx.TransportError:
                        good = False
                    (self.ready.add if good else self.ready.discard)(server.url)
                await asyncio.sleep(0.05)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(
                int(head.lower().split(b"content-length: ")[1].split()[0])
            )
            there = sorted(self.ready)
            self.turn += 1
            host, _, port = there[self.turn % len(there)].removeprefix("http://").rpartition(":")
            back, out = await asyncio.open_connection(host, int(port))
            out.write(head.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) + body)
            writer.write(await back.read())
            await writer.drain()
            out.close()
        writer.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_restarts_behind_a_proxy_drop_nobody(bundle: Path, figure):
    drain = ("drain=1", "limits.deadline=20")
    words = (bundle, "--store", "memory:", *(w for s in drain for w in ("--set", s)))
    pair: list[Server | None] = [Server(*words).wait(), Server(*words).wait()]
    proxy = Proxy(pair)
    codes: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            with httpx.Client(timeout=60, verify=TLS) as http:
                url = f"http://127.0.0.1:{proxy.port}/v1/recommend"
                codes.append(http.post(url, json=BODY).status_code)
            time.sleep(0.03)

    fresh: Server | None = None
    try:
        while len(proxy.ready) < 2:
            time.sleep(0.05)
        loads = [threading.Thread(target=load) for _ in range(2)]
        for thread in loads:
            thread.start()
        fresh = Server(*words)
        for cycle in range(30):
            old, new = pair[cycle % 2], fresh.wait()
            assert old is not None
            fresh = Server(*words)  # for the next cycle: it starts while this one stops
            assert old.stop() == 0
            pair[cycle % 2] = new
            wanted = len(codes) + 35
            while new.url not in proxy.ready or len(codes) < wanted:
                assert all(thread.is_alive() for thread in loads)
                time.sleep(0.02)
        stop.set()
        for thread in loads:
            thread.join()
        assert set(codes) == {200} and len(codes) > 1000
        figure(f"30 restarts, {len(codes):,} requests, none dropped")
    finally:
        stop.set()
        proxy.stop()
        for server in (*pair, fresh):
            if server is not None:
                server.stop()
