"""Reloads of a live server: corrupt bundles, names that are paths, and many reloads under load."""

import itertools
import json
import os
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest
import torch

from dimerec.bundle import Bundle
from dimerec.recommender import Query
from tests.serving.servers import Server, token
from tests.test_bundle import forge_tensors, reseal

CHIEF = {"authorization": f"Bearer {token('all')}"}
HISTORY = ["item 3", "item 9"]


def reload(server: Server, name: str | None, code: int = 200) -> dict:
    return server.ask("/v1/reload", {"bundle": name}, code, headers=CHIEF)


def flip(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 4
    (path / name).write_bytes(content)


def forge_json(path: Path, name: str, change) -> None:
    (path / name).write_bytes(json.dumps(change(json.loads((path / name).read_bytes()))).encode())
    reseal(path)


def nan(tensors: dict) -> dict:
    return {k: torch.full_like(v, torch.nan) for k, v in tensors.items()}


def other_weights(tensors: dict) -> dict:
    return {k: v.flip(0).contiguous() if v.ndim else v for k, v in tensors.items()}


WEIGHTS = "weights.safetensors"
CORRUPTIONS = {
    "truncated": lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:-9]),
    "emptied": lambda p: (p / WEIGHTS).write_bytes(b""),
    "flipped-weights": lambda p: flip(p, WEIGHTS),
    "flipped-ids": lambda p: flip(p, "vocabulary.json"),
    "flipped-manifest": lambda p: flip(p, "manifest.json"),
    "missing": lambda p: (p / "counts.safetensors").unlink(),
    "swapped": lambda p: shutil.copy(p.parent / "two" / WEIGHTS, p / WEIGHTS),
    "stranger": lambda p: (p / "more.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
    "linked": lambda p: ((p / "items.json").unlink(), (p / "items.json").symlink_to("/dev/zero")),
    "piped": lambda p: ((p / "items.json").unlink(), os.mkfifo(p / "items.json")),
    "pickled": lambda p: ((p / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n"), reseal(p)),
    "twice": lambda p: forge_json(p, "vocabulary.json", lambda ids: [ids[0], *ids[:-1]]),
    "fewer": lambda p: forge_json(p, "vocabulary.json", lambda ids: ids[:-1]),
    "nan": lambda p: forge_tensors(p, WEIGHTS, nan),
    "narrow": lambda p: forge_tensors(
        p, WEIGHTS, lambda t: {k: v[..., :1].clone() for k, v in t.items()}
    ),
    "other": lambda p: forge_tensors(p, WEIGHTS, other_weights),
    "negative": lambda p: forge_tensors(
        p, "counts.safetensors", lambda t: {"counts": -t["counts"]}
    ),
}


def break_one(shelf: Path, how: str) -> str:
    """A corrupt bundle's name on the shelf."""
    name = f"bad-{how}"
    if not (shelf / name).exists():
        shutil.copytree(shelf / "one", shelf / name)
        CORRUPTIONS[how](shelf / name)
    return name


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_a_corrupt_bundle_is_refused_and_the_old_one_serves(guarded, shelf, how, figure):
    before = guarded.asks({"history": HISTORY}, headers=CHIEF)
    refused = reload(guarded, break_one(shelf, how), 409)
    assert refused["error"]["code"] == "bundle-refused"
    after = guarded.asks({"history": HISTORY}, headers=CHIEF)
    assert {**after, "timings": 0} == {**before, "timings": 0}
    assert (shelf / "CURRENT").read_text().strip() in ("one", "two")
    assert guarded.process.poll() is None
    figure(
        "{bundles} corrupt bundles refused, {same} answers afterwards as before",
        bundles=refused["error"]["code"] == "bundle-refused",
        same=after["items"] == before["items"],
    )


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "../shelf/one",
        "one/../two",
        "/etc",
        "one/",
        "one\x00",
        "one\n",
        " one",
        "-one",
        ".hidden",
        "nothing",
        "CURRENT",
        "linked-folder",
        "x" * 129,
        "x" * 4000,
        "öne",
        "one\\two",
        "%2e%2e",
    ],
)
def test_a_name_is_a_name_and_no_path(guarded, shelf, name, figure):
    if not (shelf / "linked-folder").is_symlink():
        (shelf / "linked-folder").symlink_to(shelf / "two")
        (shelf / ".hidden").mkdir()
    before = (shelf / "CURRENT").read_text()
    error = reload(guarded, name, 422)["error"]
    assert error["code"] == "bad-name" and str(shelf) not in error["message"]
    after = (shelf / "CURRENT").read_text()
    assert after == before
    figure(
        "{names} names refused, {switched} of them switched to",
        names=error["code"] == "bad-name",
        switched=after != before,
    )


def test_the_file_current_is_switched_by_name_and_followed_without(guarded, shelf):
    versions = {n: Bundle.open(shelf / n).manifest.digest[:16] for n in ("one", "two")}
    assert reload(guarded, "two")["model_version"] == versions["two"]
    assert (shelf / "CURRENT").read_text() == "two\n"
    (shelf / "CURRENT.new").write_text("one\n")
    os.replace(shelf / "CURRENT.new", shelf / "CURRENT")
    answer = reload(guarded, None)
    assert (answer["previous"], answer["model_version"]) == (versions["two"], versions["one"])
    for text in ("../one", "gone", "", "one\ntwo", "\xff"):
        (shelf / "CURRENT").write_text(text, "latin-1")
        error = guarded.http.post("/v1/reload", json={}, headers=CHIEF)
        assert error.status_code in (409, 422)
        assert guarded.ask("/v1/bundle", headers=CHIEF)["name"] == "one"
    (shelf / "CURRENT").write_text("one\n")
    info = list(guarded_metrics(guarded))
    assert info == [({"version": versions["one"], "model": "sasrec"}, 1.0)]


def guarded_metrics(server: Server):
    server.http.headers.update(CHIEF)
    try:
        yield from server.metrics("dimerec_bundle_info")
    finally:
        del server.http.headers["authorization"]


def under_load(server: Server, shelf: Path, names: list[str], rate: float, threads: int) -> int:
    """Reload `names` one after the other while requests come; how many were answered.

    Every request must succeed, and be the whole answer of one version. After each reload more
    answers come than were on their way, so some are by what the reload left.
    """
    query = Query(history=HISTORY, n=8)
    expected = {}
    for name in ("one", "two"):
        bundle = Bundle.open(shelf / name)
        expected[bundle.manifest.digest[:16]] = bundle.recommender().answer([query])[0].items
    assert len({tuple(items) for items in expected.values()}) == 2
    body = {"queries": [{"history": HISTORY, "n": 8}] * 3}
    stop, wrong, versions = threading.Event(), [], []

    def load(number: int) -> None:
        with httpx.Client(base_url=server.url, headers=CHIEF, timeout=30) as http:
            for turn in itertools.count():
                if stop.is_set():
                    return
                single = (turn + number) % 2
                path = "/v1/recommend" if single else "/v1/recommend/batch"
                try:
                    answer = http.post(path, json=body["queries"][0] if single else body)
                except httpx.HTTPError as error:
                    wrong.append(repr(error))
                    continue
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    continue
                content = answer.json()
                version = content["model_version"]
                lists = [content] if single else content["answers"]
                if any(part["items"] != expected.get(version) for part in lists):
                    wrong.append(content)
                versions.append(version)
                time.sleep(threads / rate)

    workers = [threading.Thread(target=load, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        for name in names:
            reload(server, name, 409 if name.startswith("bad") else 200)
            wanted, deadline = len(versions) + threads + 1, time.monotonic() + 60
            while len(versions) < wanted and not wrong:
                assert time.monotonic() < deadline, f"no answers after the reload of {name}"
                time.sleep(0.005)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert not wrong, wrong[:3]
    assert set(versions) == set(expected)
    return len(versions)


def test_reloads_under_load_fail_nobody_and_mix_nothing(guarded, shelf):
    broken = break_one(shelf, "flipped-weights")
    assert under_load(guarded, shelf, ["two", broken, "one", "two", "one"], 100, 2) >= 15


@pytest.mark.slow
def test_fifty_reloads_at_seventy_percent_load(guarded, shelf, figure):
    began, count = time.monotonic(), 0
    while time.monotonic() - began < 2:
        guarded.asks({"history": HISTORY, "n": 8}, headers=CHIEF)
        count += 1
    broken = [break_one(shelf, how) for how in ("nan", "other", "missing")]
    names = itertools.cycle(["two", broken[0], "one", "two", broken[1], "one", broken[2]])
    answered = under_load(guarded, shelf, [*itertools.islice(names, 49), "one"], 0.7 * count / 2, 4)
    assert answered >= 250
    figure(f"50 reloads, {answered:,} requests, none failed or mixed")
