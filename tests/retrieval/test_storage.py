"""Indexes on disk: what is damaged is refused by its digest, before anything parses it."""

import json
import os
import subprocess
import sys
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from dimerec import retrieval
from dimerec.errors import BundleError, DataError
from dimerec.retrieval import storage
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex

VECTORS = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
QUERIES = VECTORS[5:9, None].copy()


@pytest.fixture
def kept(tmp_path):
    index = ApproximateIndex(VECTORS, codes="flat", probes=3)
    index.remove([7, 8])
    index.save(tmp_path / "index")
    return index, tmp_path / "index"


@pytest.mark.parametrize("mmap", [True, False])
def test_what_comes_back_is_what_went(kept, mmap):
    index, path = kept
    again = storage.load(path, mmap=mmap)
    assert isinstance(again, ApproximateIndex)
    assert (again.codes, again.probes, again.cells) == ("flat", 3, index.cells)
    assert again.gone.tolist() == [7, 8] and again.digest == index.digest
    for a, b in zip(again.search(QUERIES, 20), index.search(QUERIES, 20), strict=True):
        assert a.tolist() == b.tolist()
    assert isinstance(again.vectors.base, np.memmap) == mmap


def test_a_mapped_index_reads_the_file_and_never_writes_it(kept):
    _, path = kept
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    again = storage.load(path)
    again.vectors[0, 0] = 5  # a private page
    assert {f.name: f.read_bytes() for f in path.iterdir()} == before
    code = (
        "import sys; from dimerec.retrieval import storage; i = storage.load(sys.argv[1]);"
        "maps = open('/proc/self/maps').read(); sys.exit(not ('lists.faiss' in maps and"
        " 'vectors.npy' in maps))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=120).returncode == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flipped_bit_is_refused_before_it_is_parsed(kept, readings, data):
    _, path = kept
    name = data.draw(st.sampled_from(sorted(f.name for f in path.iterdir())))
    content = (path / name).read_bytes()
    at, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(content)
    damaged[at] ^= 1 << bit
    (path / name).write_bytes(damaged)
    try:
        with pytest.raises(BundleError, match=name if name != "index.json" else "index"):
            storage.load(path)
    finally:
        (path / name).write_bytes(content)
    assert not readings


@pytest.fixture(scope="module")
def readings():
    """Calls of FAISS's reader while files are damaged: there must be none."""
    import faiss

    calls = []
    read = faiss.read_index
    faiss.read_index = lambda *a: calls.append(a) or read(*a)
    yield calls
    faiss.read_index = read


@pytest.mark.parametrize("name", ["vectors.npy", "lists.faiss", "gone.npy", "index.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "longer", "link", "pipe", "folder"])
def test_damaged_files_are_named(kept, tmp_path, name, damage):
    _, path = kept
    file = path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "longer":
        file.write_bytes(content + b" {")
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    elif damage == "pipe":
        os.mkfifo(file)
    elif damage == "folder":
        file.mkdir()
    with pytest.raises(BundleError, match="index.*dimerec index"):
        storage.load(path)


def test_a_manifest_that_was_edited_is_refused(kept):
    _, path = kept
    file = path / "index.json"
    plain = json.loads(file.read_text())
    for change, words in [
        ({"settings": {"codes": "flat", "probes": 4}}, "its digest is not its own"),
        ({"schema": 2}, "another version"),
        ({"kind": "pickle"}, "cannot be read"),
        ({"extra": 1}, "cannot be read"),
    ]:
        file.write_text(json.dumps({**plain, **change}))
        with pytest.raises(BundleError, match=words):
            storage.load(path)
    for settings_ in ({}, {"codes": "pq", "probes": 4}, {"codes": "flat", "probes": 0}):
        stored = msgspec.convert({**plain, "settings": settings_}, storage.Stored).sealed()
        file.write_bytes(msgspec.json.encode(stored))
        with pytest.raises(BundleError, match="not an index of this version"):
            storage.load(path)


def test_an_index_replaces_an_index_and_nothing_else(kept, tmp_path):
    _, path = kept
    ExactIndex.build(VECTORS).save(path)
    assert isinstance(storage.load(path), ExactIndex)
    assert sorted(f.name for f in path.iterdir()) == ["gone.npy", "index.json", "vectors.npy"]
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="photos exists already and is no index"):
        ExactIndex.build(VECTORS).save(tmp_path / "photos")
    with pytest.raises(DataError, match="cannot be written"):
        ExactIndex.build(VECTORS).save(path / "vectors.npy" / "below")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["index", "photos"]


def test_the_digest_is_of_vectors_and_of_which_are_gone():
    nothing = np.zeros(0, np.int64)
    digests = {
        storage.digest(VECTORS),
        storage.digest(VECTORS.reshape(600, 4)),
        storage.digest(VECTORS[:-1]),
        storage.digest(VECTORS, np.array([3])),
        storage.digest(VECTORS[:0]),
    }
    assert len(digests) == 5
    assert storage.digest(VECTORS, nothing) == storage.digest(np.asfortranarray(VECTORS))


def test_the_index_kept_is_taken_only_for_its_own_vectors(kept, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(retrieval, "EXACT_LIMIT", 299)
    path = tmp_path / "mine"
    ApproximateIndex(VECTORS, probes=5).save(path)
    taken = retrieval.index(VECTORS, path)
    assert isinstance(taken, ApproximateIndex) and taken.probes == 5 and not caplog.records
    assert isinstance(retrieval.index(VECTORS + 1, path), ExactIndex)
    assert "other item vectors" in caplog.text
    (path / "lists.faiss").write_bytes(b"")
    assert isinstance(retrieval.index(VECTORS, path), ExactIndex)
    assert "lists.faiss: size or SHA-256" in caplog.text
    assert isinstance(retrieval.index(VECTORS, tmp_path / "none"), ExactIndex)
    assert isinstance(retrieval.index(VECTORS, kept[1]), ExactIndex)  # two of them are gone


def test_a_mapped_index_starts_no_threads_for_a_search(kept):
    import faiss

    _, path = kept
    index = storage.load(path)
    assert isinstance(index, ApproximateIndex)
    lists: Any = faiss.downcast_InvertedLists(index._lists.invlists)
    assert lists.prefetch_nthread == 0
