"""Qdrant: what goes wrong on the way to the server is one clear error."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from dimerec.errors import DataError
from dimerec.retrieval import remote
from dimerec.retrieval.remote import RemoteIndex, connect

ROWS = np.eye(4, dtype=np.float32)


def test_a_collection_can_be_found_again():
    client = RemoteIndex.build(ROWS, collection="mine")._client
    again = RemoteIndex(client, 4, "mine")
    assert again.width == 4
    assert again.search(ROWS[None, 2:3], 1)[0].tolist() == [[2]]


def test_many_items_are_sent_in_parts():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2301, 3)).astype(np.float32)
    built = RemoteIndex.build(rows)
    best = 1 + int((rows[1:] @ rows[2300]).argmax())
    assert built._client.count("dimerec").count == 2300
    assert built.search(rows[None, 2300:], 1)[0].tolist() == [[best]]


def test_other_collections_are_refused():
    from qdrant_client import models

    client = connect(":memory:")
    with pytest.raises(DataError, match="'none' does not answer as it should: .*not found"):
        RemoteIndex(client, 4, "none")
    cosine = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("cosine", vectors_config=cosine)
    client.create_collection("named", vectors_config={"title": cosine})
    for name in ("cosine", "named"):
        with pytest.raises(DataError, match=f"'{name}' is not of vectors under distance Dot"):
            RemoteIndex(client, 4, name)


def test_a_server_that_is_away_is_said_to_be():
    with pytest.raises(DataError, match="'dimerec' does not answer as it should: .*refused"):
        RemoteIndex.build(ROWS, url="http://127.0.0.1:9")
    built = RemoteIndex.build(ROWS)
    built._client = connect("http://127.0.0.1:9")
    for call in (
        lambda: built.search(ROWS[None, :1], 1),
        lambda: built.add([1], ROWS[:1]),
        lambda: built.remove([1]),
    ):
        with pytest.raises(DataError, match="does not answer"):
            call()


@contextmanager
def leaving(how: str) -> Iterator[str]:
    """A server that describes its collection, and from the second request on closes its door,
    breaks off in the middle of an answer, or answers nothing. Its URL."""
    about = RemoteIndex.build(ROWS)._client.get_collection("dimerec").model_dump_json()
    body = f'{{"result": {about}, "status": "ok", "time": 0.0}}'.encode()
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
    answer = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    door = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):  # the door is shut
            while True:
                connection, _ = door.accept()
                held.append(connection)
                connection.recv(1 << 16)
                if len(held) == 1 or how == "breaks off":
                    connection.sendall(answer if len(held) == 1 else answer[: -len(body) // 2])
                    connection.close()
                if how == "closes":
                    return door.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in (door, *held):
            connection.close()


@pytest.mark.parametrize("how", ["closes", "breaks off", "hangs"])
def test_a_server_that_goes_away_is_given_up_in_time(monkeypatch, how, figure):
    monkeypatch.setattr(remote, "TIMEOUT", 1)
    slowest = 0.0
    with leaving(how) as url:
        built = RemoteIndex(connect(url), 4)
        assert built.width == 4
        for call in (
            lambda: built.search(ROWS[None, :1], 1),
            lambda: built.add([1], ROWS[:1]),
            lambda: built.remove([1]),
        ):
            began = time.monotonic()
            with pytest.raises(DataError, match="'dimerec' does not answer as it should: .*"):
                call()
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 10 * remote.TIMEOUT  # whatever else the machine does
    figure(f"an index server that {how}: an error within {1000 * slowest:.0f} ms")


def test_the_client_is_loaded_when_it_is_needed(monkeypatch):
    code = "import sys, dimerec.retrieval.remote; sys.exit('qdrant_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(DataError, match=r"pip install 'dimerec\[qdrant\]'"):
        RemoteIndex.build(ROWS)
