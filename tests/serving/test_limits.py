"""Bounded bodies, heads, numbers and time, over bare sockets: clients that lie, stall or vanish."""

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from dimerec.serving import wire
from dimerec.serving.settings import Limits
from tests.serving.servers import Server, serving

LIMITS = {
    "body_bytes": 4096,
    "body_seconds": 0.4,
    "header_bytes": 2048,
    "header_seconds": 0.6,
    "connections": 12,
}
LONG = 20  # seconds: beyond every limit, on any machine


@pytest.fixture(scope="module")
def tight(bundle) -> Iterator[Server]:
    """A server with small limits."""
    words = [part for n, v in LIMITS.items() for part in ("--set", f"limits.{n}={v}")]
    patient = ("--set", "limits.deadline=20")
    with serving(bundle, "--store", "memory:", "--set", "drain=0", *patient, *words) as server:
        # no connection is kept: the server closes an idle one, perhaps as it is used again
        server.http = httpx.Client(
            base_url=server.url, timeout=LONG, limits=httpx.Limits(max_keepalive_connections=0)
        )
        yield server


class Wire:
    """A bare connection; all are closed at the end of the test."""

    opened: list["Wire"] = []

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(server.address, timeout=LONG)
        self.opened.append(self)

    def send(self, data: bytes) -> bool:
        """False once the other side does not listen any more."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        out = b""
        try:
            while part := self.socket.recv(65536):
                out += part
        except ConnectionResetError:
            pass
        finally:
            self.socket.close()
        return out

    def answer(self) -> tuple[int, bytes]:
        """One response: status and body; the connection stays open."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.socket.recv(1)
            assert part, head
            head += part
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = b""
        while len(body) < length:
            body += self.socket.recv(length - len(body))
        return int(head.split()[1]), body


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while Wire.opened:
        Wire.opened.pop().socket.close()


def post(
    body: bytes, *headers: str, length: int | None = None, path: str = "/v1/recommend"
) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    if not any(h.startswith("transfer-encoding") for h in headers):
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer.split()[1])


def well(server: Server) -> None:
    assert server.asks({"history": ["item 3"], "n": 2})["source"] == "model"


def test_a_body_over_the_limit_is_refused_before_it_is_sent(tight):
    bare = Wire(tight)
    bare.send(post(b"", length=10**12))
    answer = bare.rest()
    assert status(answer) == 413 and b"connection: close" in answer.lower()
    well(tight)


def test_a_chunked_body_over_the_limit_is_cut_off(tight, figure):
    bare = Wire(tight)
    bare.send(post(b"", "transfer-encoding: chunked"))
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    for _ in range(64):
        bare.send(chunk)
    code = status(bare.rest())
    assert code == 413
    well(tight)
    figure(f"{64 * len(chunk):,} bytes where {LIMITS['body_bytes']:,} may come: {code}")


def test_a_body_shorter_than_it_says_times_out(tight):
    began = time.monotonic()
    bare = Wire(tight)
    bare.send(post(b'{"n": 3}', length=100))
    assert status(bare.rest()) == 408
    assert LIMITS["body_seconds"] <= time.monotonic() - began < Limits().body_seconds


def test_a_body_longer_than_it_says_is_another_request(tight):
    bare = Wire(tight)
    bare.send(post(b'{"n": 3} and more', length=8))
    answer = bare.rest()  # the first may have been answered before the rest was looked at
    assert status(answer) in (200, 400) and b"HTTP/1.1 400" in answer
    well(tight)


def test_two_lengths_are_refused(tight):
    for lines in (["content-length: 3"], ["transfer-encoding: chunked", "content-length: 5"]):
        bare = Wire(tight)
        bare.send(post(b'{"n": 3}', *lines, length=8))
        assert status(bare.rest()) == 400


def test_a_body_that_trickles_is_given_up(tight, figure):
    began = time.monotonic()
    bare = Wire(tight)
    bare.send(post(b"", length=4000))
    while time.monotonic() - began < LONG and bare.send(b" "):
        time.sleep(0.05)
    code, seconds = status(bare.rest()), time.monotonic() - began
    assert code == 408
    assert seconds < LONG
    figure(f"a body slower than {LIMITS['body_seconds']} s: {code} after {seconds:.1f} s")


def test_a_head_that_trickles_is_given_up(tight):
    bare = Wire(tight)
    for part in post(b"{}"):  # whole after 5 seconds, and then no 408 would come
        if not bare.send(bytes([part])):
            break
        time.sleep(0.05)
    assert status(bare.rest()) == 408


def test_silent_and_idle_connections_are_closed(tight):
    began = time.monotonic()
    silent, idle, blank = Wire(tight), Wire(tight), Wire(tight)
    idle.send(post(b'{"n": 1}'))
    assert idle.answer()[0] == 200
    blank.send(b"\r\n")
    assert (silent.rest(), idle.rest()) == (b"", b"")
    assert blank.rest()[:12] in (b"", b"HTTP/1.1 408", b"HTTP/1.1 400")
    assert LIMITS["header_seconds"] * 0.9 < time.monotonic() - began < Limits().header_seconds
    well(tight)


def test_what_follows_a_refusal_is_not_read_for_ever(tight):
    bare = Wire(tight)
    bare.send(post(b"", "content-type: text/plain", length=3000).replace(b"application/json", b"x"))
    assert bare.answer()[0] == 415
    began = time.monotonic()
    while time.monotonic() - began < LONG and bare.send(b" "):
        time.sleep(0.05)
    assert time.monotonic() - began < LONG


@pytest.mark.parametrize("where", ["path", "name", "value", "many"])
def test_a_large_head_is_refused(tight, where):
    large = "x" * 3000
    lines = {
        "path": [f"GET /{large} HTTP/1.1", "host: x"],
        "name": ["GET /live HTTP/1.1", "host: x", f"{large}: x"],
        "value": ["GET /live HTTP/1.1", "host: x", f"x: {large}"],
        "many": ["GET /live HTTP/1.1", "host: x", *["a: b"] * 1000],
    }[where]
    for whole in (True, False):
        bare = Wire(tight)
        bare.send("\r\n".join([*lines, "", ""]).encode()[: None if whole else -4])
        assert status(bare.rest()) == 431
    well(tight)


def test_a_head_without_end_takes_no_memory(tight, figure):
    bare = Wire(tight)
    bare.send(b"GET /live HTTP/1.1\r\nhost: x\r\nx: ")
    sent = 0
    while sent < 2**22 and bare.send(b"x" * 4096):
        sent += 4096
    assert sent < 2**22
    code = status(bare.rest())
    assert code == 431
    figure(f"a head without end: {code}, closed after {sent:,} bytes were sent")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/recommend HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET /live HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_no_matter(tight, data):
    bare = Wire(tight)
    bare.send(data)
    bare.socket.shutdown(socket.SHUT_WR)
    answer = bare.rest()
    assert not answer or status(answer) < 500
    well(tight)


def test_a_client_that_vanishes_leaves_nothing_behind(tight):
    for cut in (3, 60, 110, None):
        bare = Wire(tight)
        bare.send(post(b'{"n": 3, "history": ["item 3"]}')[:cut])
        bare.socket.close()
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline and tight.metric("dimerec_in_flight") > 0:
        time.sleep(0.05)
    assert tight.metric("dimerec_in_flight") == 0


def test_requests_in_a_row_on_one_connection_are_answered_in_order(tight):
    bare = Wire(tight)
    bare.send(b"".join(post(json.dumps({"n": n}).encode()) for n in (1, 2, 3, 4)))
    for n in (1, 2, 3, 4):
        code, body = bare.answer()
        assert code == 200 and len(json.loads(body)["items"]) == n


def test_a_client_may_ask_before_it_sends_its_body(tight):
    bare = Wire(tight)
    body = b'{"n": 2}'
    bare.send(post(b"", "expect: 100-continue", length=len(body)))
    assert bare.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    bare.send(body)
    assert bare.answer()[0] == 200


def test_connections_are_bounded_and_come_back(tight):
    refused, end = b"", time.monotonic() + LONG
    while not refused and time.monotonic() < end:  # on a slow machine the held ones time out
        held = [Wire(tight) for _ in range(int(LIMITS["connections"]))]
        refused = Wire(tight).rest()
        for one in held:
            one.socket.close()
    assert status(refused) == 503 and b"retry-after: 1" in refused
    while (answer := tight.http.get("/live")).status_code == 503:
        assert time.monotonic() < end, answer.text
    well(tight)


@pytest.mark.parametrize(
    "body",
    [
        {"n": 0},
        {"n": wire.MAX_N + 1},
        {"n": 10**30},
        {"history": ["x"] * (wire.MAX_HISTORY + 1)},
        {"context": [1] * (wire.MAX_HISTORY + 1)},
        {"exclude": [1] * (wire.MAX_IDS + 1)},
        {"user": "x" * 513},
        {"user": ""},
        {"diversity": -1},
        {"seed": -1},
        {"surprise": 1},
    ],
)
def test_numbers_and_lengths_are_bounded(plain, body, figure):
    code = plain.asks(body, 400)["error"]["code"]
    assert code == "bad-request"
    figure("{refused} numbers and lengths past a bound refused", refused=code == "bad-request")


def test_the_largest_that_is_allowed_is_answered(plain):
    body = {
        "history": ["item 3"] * wire.MAX_HISTORY,
        "exclude": list(range(wire.MAX_IDS)),
        "n": wire.MAX_N,
        "user": "x" * 512,
    }
    assert plain.asks(body)["source"] == "model"
    queries = [{"n": 1}] * wire.MAX_QUERIES
    assert len(plain.ask("/v1/recommend/batch", {"queries": queries})["answers"]) == 64
    plain.ask("/v1/recommend/batch", {"queries": [*queries, {}]}, 400)
    plain.ask("/v1/recommend/batch", {"queries": []}, 400)
    plain.ask("/v1/items", {"items": [1] * (wire.MAX_N + 1)}, 400)
