"""Qdrant: what goes wrong on the way to the server is one clear error."""

import subprocess
import sys

import numpy as np
import pytest

from dimerec.errors import DataError
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


def test_the_client_is_loaded_when_it_is_needed(monkeypatch):
    code = "import sys, dimerec.retrieval.remote; sys.exit('qdrant_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(DataError, match=r"pip install 'dimerec\[qdrant\]'"):
        RemoteIndex.build(ROWS)
