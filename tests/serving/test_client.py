"""The client against a real server, and against one that refuses as a test wants it to."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dimerec.serving import client as module
from dimerec.serving.client import Client, Refused
from dimerec.serving.history import Event
from dimerec.serving.wire import RecommendRequest
from tests.serving.servers import token


@pytest.fixture
def client(plain) -> Iterator[Client]:
    with Client(plain.url) as client:
        yield client


def test_everything_once(client, plain):
    assert client.ready()
    assert client.record("cleo", "item 3") and client.record("cleo", "item 9", time=5)
    assert client.history("cleo") == ["item 9", "item 3"]
    answer = client.recommend("cleo", n=4)
    assert answer.source == "model" and len(answer.items) == 4
    batch = client.recommend_batch([RecommendRequest(user="cleo", n=4), RecommendRequest()])
    assert batch.answers[0].items == answer.items
    assert client.similar("item 3", 2).items
    assert client.items(["item 3"])[0].title == "Title 3"
    assert client.bundle().model_version == answer.model_version
    assert client.erase("cleo") == 2
    assert client.reload().model_version == answer.model_version
    many = [Event(user="a/b", item=n, time=n, event_id=f"many {n}") for n in range(1500)]
    assert client.send(many) == 1500
    assert client.send(many) == 0
    assert client.history("a/b")[-1] == 1499


def test_refusals_are_errors(client, guarded):
    with pytest.raises(Refused, match="no item 'x'") as refused:
        client.similar("x")
    assert (refused.value.status, refused.value.code) == (404, "not-found")
    with Client(guarded.url, token=token("reader")) as reader:
        assert reader.bundle().items
        with pytest.raises(Refused) as refused:
            reader.reload()
        assert refused.value.status == 403
    with Client("http://127.0.0.1:9", retries=0) as nobody:
        assert not nobody.ready()
        with pytest.raises(Refused, match="unreachable"):
            nobody.bundle()


class Script(BaseHTTPRequestHandler):
    """Answers as the list `script` says: a status and its Retry-After, or None to hang up."""

    script: list[tuple[int, str] | None]
    bodies: list[bytes]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        step = self.script.pop(0)
        if step is None:
            self.close_connection = True
            return
        status, after = step
        body = b'{"stored": 1, "duplicates": 0}' if status == 200 else b"<html>a proxy's</html>"
        self.send_response(status)
        if after:
            self.send_header("retry-after", after)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch) -> Iterator[Callable]:
    """Runs a client against a script: the bodies it sent, and the seconds it waited."""
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    opened = []

    def run(*steps: tuple[int, str] | None) -> tuple[Client, list[bytes], list[float]]:
        handler = type("Handler", (Script,), {"script": list(steps), "bodies": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        client = Client(f"http://127.0.0.1:{server.server_port}", retries=3)
        opened.extend([server, client])
        return client, handler.bodies, waits

    yield run
    for server, client in zip(opened[::2], opened[1::2]):
        client.close()
        server.shutdown()
        server.server_close()


def test_it_waits_as_it_is_told_and_sends_the_same_again(scripted):
    client, bodies, waits = scripted((503, "2"), (429, "7"), (200, ""))
    assert client.record("u", "i")
    assert waits == [2.0, 7.0]
    assert len(set(bodies)) == 1 and len(bodies) == 3  # the same event id


def test_it_waits_longer_each_time_when_it_is_not_told(scripted):
    client, bodies, waits = scripted((503, ""), None, (503, "soon"), (200, ""))
    assert client.record("u", "i")
    assert waits[0] == 0.1 and 0.1 <= waits[1] <= 0.2 and waits[2] == 0.4
    assert len(set(bodies)) == 1 and len(bodies) == 4


def test_it_gives_up(scripted):
    client, bodies, waits = scripted(*[(503, "1")] * 4)
    with pytest.raises(Refused, match="a proxy's") as refused:
        client.record("u", "i")
    assert refused.value.status == 503 and len(bodies) == 4 and waits == [1.0] * 3


def test_it_does_not_insist_where_that_cannot_help(scripted):
    for status in (400, 403, 404, 500):
        client, bodies, waits = scripted((status, "1"))
        with pytest.raises(Refused):
            client.record("u", "i")
        assert len(bodies) == 1 and not waits


def test_no_wait_is_endless(scripted):
    client, _, waits = scripted((503, "86400"), (200, ""))
    client.record("u", "i")
    assert waits == [module.LONGEST]
