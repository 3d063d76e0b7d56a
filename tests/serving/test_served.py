"""What is served is what is evaluated: hits counted from the answers of a real service, index on,
against `dimerec evaluate` on the same targets."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimerec import Dataset
from tests.serving.servers import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
POSITIONS = "every-position"
N, QUERIES_A_REQUEST, CLIENTS = 20, 64, 2
BOUND = 0.005
SHORT = [
    *("--set", "length=20", "--set", "options.width=32", "--set", "training.max_steps=200"),
    *("--set", "training.batch_size=64", "--set", "training.validate_every=100"),
    *("--set", "training.validation_queries=200"),
]


def dimerec(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dimerec", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "data"
    dimerec("prepare", "ml-latest-small", "--min-item-events", 5, "--out", path)
    return path


@pytest.fixture(scope="module", params=["sasrec", "dimerec"])
def run(request, data: Path) -> Path:
    path = data.parent / request.param
    dimerec("train", data, "--config", request.param, "--out", path, *SHORT)
    return path


@contextmanager
def service(run: Path) -> Iterator[Server]:
    words = ("--store", "memory:", "--set", "drain=0", "--set", "limits.deadline=60")
    with serving(run, *words) as server:
        yield server


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far two hit rates are apart, as a share of the second."""
    return abs(ours.mean() / theirs.mean() - 1)


def evaluated(run: Path, data: Path, hide_seen: bool) -> np.ndarray:
    """Which targets `dimerec evaluate` finds among the best N."""
    out = run.parent / f"{run.name}-{hide_seen}"
    words: list[Any] = ["--positions", POSITIONS, "--out", out, "--json"]
    found = json.loads(
        dimerec("evaluate", run, data, *words, *(["--hide-seen"] if hide_seen else []))
    )
    hits = np.load(out / "ranks.npy")["rank"] <= N
    assert found["metrics"][f"hr@{N}"] == pytest.approx(hits.mean())
    return hits


def served(server: Server, data: Path, hide_seen: bool) -> np.ndarray:
    """Which targets the service finds, asked with the user's whole history, in ids."""
    dataset = Dataset.open(data)
    queries = dataset.queries("test", POSITIONS)
    users = {int(row): [] for row in np.unique(queries.rows)}
    for row in users:
        numbers = dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]]
        users[row] = dataset.vocabulary.ids(numbers.tolist())
    asked = list(zip(queries.rows.tolist(), queries.positions.tolist(), strict=True))
    assert len(asked) > 5000

    def ask(part: list[tuple[int, int]]) -> list[bool]:
        rest = {"n": N, "hide_seen": hide_seen}
        body = {"queries": [{"history": users[row][:at][-2000:], **rest} for row, at in part]}
        answers = server.ask("/v1/recommend/batch", body)["answers"]
        assert {answer["source"] for answer in answers} == {"model"}
        return [
            users[row][at] in answer["items"]
            for (row, at), answer in zip(part, answers, strict=True)
        ]

    parts = [
        asked[start : start + QUERIES_A_REQUEST]
        for start in range(0, len(asked), QUERIES_A_REQUEST)
    ]
    with ThreadPoolExecutor(CLIENTS) as pool:
        return np.array([hit for hits in pool.map(ask, parts) for hit in hits])


def test_hits_through_the_service_are_those_of_evaluate(run: Path, data: Path, figure):
    wanted = evaluated(run, data, True)
    with service(run) as server:
        exact = served(server, data, True)
        if run.name == "sasrec":
            assert apart(served(server, data, False), evaluated(run, data, False)) <= BOUND
    words = ("--data", data, "--exact-up-to", 0, "--recall", 0.99, "--json")
    assert json.loads(dimerec("index", run, *words))["built"]
    with service(run) as server:
        cells = served(server, data, True)
    figure(
        f"{run.name}: HR@{N} {wanted.mean():.3%} evaluated, {exact.mean():.3%} served, "
        f"{cells.mean():.3%} by the index"
    )
    assert apart(exact, wanted) <= BOUND and np.mean(exact != wanted) <= 0.001
    assert apart(cells, wanted) <= BOUND
