"""The engine: a bundle that answers, whatever its encoder, index and thread."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from dimerec.bundle import Bundle
from dimerec.errors import BundleError, ServingError
from dimerec.recommender import Query
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.serving import export
from dimerec.serving.engine import Engine, UnknownItem
from tests.tools import bundles

QUERIES = [
    Query(["item 3", "item 9"], n=7),
    Query([], n=5),
    Query(["item 1", "nothing known"], n=60, hide_seen=False, seed=4),
    Query(["item 8"] * 9, n=3, exclude=["item 2"], only=[f"item {n}" for n in range(20)]),
]


@pytest.fixture(autouse=True)
def _around() -> Iterator[None]:
    threads = torch.get_num_threads()
    with bundles.tiny_models():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundles.write(tmp_path / "bundle")


def test_it_answers_as_the_bundle_does(bundle):
    engine = Engine.open(bundle.path, compiled=False)
    assert engine.recommend(QUERIES) == bundle.recommender().answer(QUERIES)
    assert engine.bundle.manifest == bundle.manifest
    assert len(engine.version) == 16 and bundle.manifest.digest.startswith(engine.version)
    assert (engine.compiled, engine.reason) == (False, "not asked for")
    engine.warm_up()
    engine.check_golden()


def test_a_broken_bundle_is_none(bundle):
    (bundle.path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="weights.safetensors"):
        Engine.open(bundle.path)


def test_the_compiled_encoder_is_the_one_that_runs(bundle, monkeypatch):
    calls = []

    def load(bundle, model):
        def encode(history, noise):
            calls.append((history.numpy().copy(), noise.shape))
            return model.encode(history, noise)

        return encode

    monkeypatch.setattr(export, "load", load)
    engine = Engine.open(bundle)
    assert engine.compiled and engine.reason == ""
    assert engine.recommend(QUERIES) == bundle.recommender().answer(QUERIES)
    ((history, noise),) = calls  # one batch; the query without a history is not in it
    assert history.tolist() == [[0, 0, 0, 0, 3, 9], [0, 0, 0, 0, 0, 1], [8] * 6]
    assert noise == (3, 2, 4)


def test_golden_answers_are_those_of_what_is_served(bundle, monkeypatch):
    monkeypatch.setattr(export, "load", lambda bundle, model: lambda h, n: -model.encode(h, n))
    engine = Engine.open(bundle)
    with pytest.raises(BundleError, match="golden"):
        engine.check_golden()


def test_a_failing_encoder_is_an_error_not_a_crash(bundle, monkeypatch):
    def encode(history, noise):
        raise RuntimeError("broken")

    monkeypatch.setattr(export, "load", lambda bundle, model: encode)
    with pytest.raises(BundleError, match="cannot answer"):
        Engine.open(bundle).check_golden()


def test_the_index_is_the_one_that_was_given(bundle, monkeypatch):
    vectors = bundle.model().item_vectors().numpy()
    given = ApproximateIndex.build(vectors)
    searched = []
    search = given.search
    monkeypatch.setattr(
        given, "search", lambda *args: searched.append(args[0].shape) or search(*args)
    )
    engine = Engine.open(bundle, index=given, compiled=False)
    exact = Engine.open(bundle, index="exact", compiled=False)
    one, two = engine.recommend(QUERIES[:1])[0], exact.recommend(QUERIES[:1])[0]
    assert searched == [(1, 2, 4)]
    assert one.items == two.items
    assert one.scores == pytest.approx(two.scores, rel=1e-6)


def test_similar_items_are_those_nearest_by_inner_product(bundle):
    engine = Engine.open(bundle, compiled=False)
    vectors = bundle.model().item_vectors().numpy()
    scores = vectors @ vectors[5]
    scores[[0, 5]] = -np.inf
    best = np.lexsort((np.arange(len(scores)), -scores))[:10]
    found = engine.similar("item 5", 10)
    assert found.items == [f"item {n}" for n in best]
    assert found.scores == pytest.approx(scores[best].tolist(), rel=1e-5)
    assert len(engine.similar("item 5", 500).items) == bundles.SIZE - 2


def test_similar_to_nothing(bundle, tmp_path):
    engine = Engine.open(bundle, compiled=False)
    for item in ("item 0", "", 5):
        with pytest.raises(UnknownItem, match="no item"):
            engine.similar(item, 3)
    for n in (0, -1, True):
        with pytest.raises(ServingError, match="n must be"):
            engine.similar("item 5", n)
    counting = Engine.open(bundles.write(tmp_path / "counts", "tiny_counts"))
    assert not counting.compiled and "counts" in counting.reason
    counting.warm_up()
    counting.check_golden()
    with pytest.raises(ServingError, match="no item vectors"):
        counting.similar("item 5", 3)


def test_every_thread_keeps_to_its_number_of_threads(bundle):
    with pytest.raises(ServingError, match="threads must be at least 1"):
        Engine.open(bundle, threads=0)
    before = torch.get_num_threads()
    engine = Engine.open(bundle, compiled=False, threads=before + 1)
    seen = []

    def ask() -> None:
        engine.recommend(QUERIES)
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    ask()
    assert seen == [before + 1] * 2


def test_threads_share_it(bundle):
    engine = Engine.open(bundle, compiled=False)
    wanted = engine.recommend(QUERIES)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: engine.recommend(QUERIES), range(40)))
    assert all(answer == wanted for answer in answers)


def test_a_process_that_answers_holds_neither_data_nor_training(bundle):
    program = f"""
import json, sys
from tests.tools import bundles
from dimerec.recommender import Query
from dimerec.serving.engine import Engine
with bundles.tiny_models():
    engine = Engine.open({str(bundle.path)!r})
    engine.warm_up()
    assert engine.recommend([Query(["item 3"], n=5)])[0].source == "model"
    engine.similar("item 3", 5)
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "dimerec.serving.engine" in loaded
    packages = ("cli", "data", "evaluation", "experiments", "training")
    frames = {"duckdb", "pandas", "polars", "pyarrow"}
    web = {"starlette", "uvicorn", "httpx", "prometheus_client"}
    assert not loaded & ({f"dimerec.{p}" for p in packages} | frames | web)
