"""Counters equal what a client counted; labels come from a short list."""

import random
from collections import Counter

from dimerec.serving.metrics import Metrics
from tests.serving.servers import Server


def counted(server: Server, name: str, *labels: str) -> Counter:
    return Counter(
        {tuple(found[n] for n in labels): value for found, value in server.metrics(name)}
    )


def test_counters_equal_the_tally_of_the_client(plain, figure):
    before = {
        name: counted(plain, f"dimerec_{name}_total", *labels) for name, labels in NAMES.items()
    }
    sizes = {name: plain.metric(f"dimerec_{name}") for name in SIZES}
    tally = {name: Counter() for name in NAMES}
    rng = random.Random(5)
    for turn in range(120):
        path, body, codes = REQUESTS[rng.randrange(len(REQUESTS))](turn)
        answer = plain.http.get(path) if body is None else plain.http.post(path, json=body)
        route = "/v1/users/{user}/history" if "/users/" in path else path.split("?")[0]
        route = "other" if "nowhere" in path else route
        tally["requests"][route, str(answer.status_code)] += 1
        content = answer.json()
        if "error" in content and route != "other":
            tally["refusals"][content["error"]["code"],] += 1
        for part in content.get("answers", [content] if "filled" in content else []):
            tally["answers"][part["source"], part["degraded_reason"] or ""] += 1
        if "stored" in content:
            tally["events"]["stored",] += content["stored"]
            tally["events"]["duplicate",] += content["duplicates"]
        assert answer.status_code in codes, content
    for name, labels in NAMES.items():
        after = counted(plain, f"dimerec_{name}_total", *labels)
        after.subtract(before[name])
        found = {key: n for key, n in after.items() if n and "/metrics" not in key}
        assert found == {key: n for key, n in tally[name].items() if n}, name
        assert len(tally[name]) >= 2
    asked = sum(tally["requests"][route, "200"] for route in MODEL)
    asked += tally["refusals"]["not-answerable",] + tally["refusals"]["not-found",]
    queries = asked + tally["requests"]["/v1/recommend/batch", "200"]  # two in each
    for name, more in (("queue_seconds_count", asked), ("model_seconds_count", asked)):
        assert plain.metric(f"dimerec_{name}") - sizes[name] == more
    assert plain.metric("dimerec_batch_size_sum") - sizes["batch_size_sum"] == queries
    assert plain.metric("dimerec_in_flight") == plain.metric("dimerec_queue") == 0
    assert plain.metric("dimerec_connections") >= 1
    requests, series = sum(tally["requests"].values()), sum(len(t) for t in tally.values())
    figure(f"{requests} requests: {series} counters as the client counted")


NAMES = {
    "requests": ("route", "status"),
    "refusals": ("code",),
    "answers": ("source", "degraded"),
    "events": ("result",),
}
SIZES = ("queue_seconds_count", "model_seconds_count", "batch_size_sum")
MODEL = ("/v1/recommend", "/v1/recommend/batch", "/v1/similar")
EVENT = {"user": "tally", "item": "item 3", "time": 1}
REQUESTS = [
    lambda turn: ("/v1/recommend", {"history": ["item 3"], "n": 3}, (200,)),
    lambda turn: ("/v1/recommend", {"context": ["item 3"]}, (200,)),
    lambda turn: ("/v1/recommend", {"history": [f"unknown {turn}"]}, (200,)),
    lambda turn: ("/v1/recommend", {"n": 0}, (400,)),
    lambda turn: ("/v1/recommend", {"categories": ["?"]}, (422,)),
    lambda turn: ("/v1/recommend/batch", {"queries": [{}, {"history": ["item 3"]}]}, (200,)),
    lambda turn: ("/v1/similar?item=item+3", None, (200,)),
    lambda turn: (f"/v1/similar?item=no-{turn}", None, (404,)),
    lambda turn: ("/v1/events", {"events": [{**EVENT, "event_id": f"t{turn}"}] * 2}, (200,)),
    lambda turn: (f"/v1/users/u{turn}/history", None, (200,)),
    lambda turn: (f"/nowhere/{turn}", None, (404,)),
]


def test_what_alerts_count_stands_at_zero_before_it_happens():
    text = Metrics().text().decode()
    for name, label, values in (
        ("reloads", "result", ("served", "refused")),
        ("store_errors", "operation", ("read", "append", "erase")),
        ("events", "result", ("stored", "duplicate")),
    ):
        for value in values:
            assert f'dimerec_{name}_total{{{label}="{value}"}} 0.0\n' in text


def test_nobody_can_make_new_series(plain, figure):
    def series() -> set[str]:
        lines = plain.http.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    def requests(mark: str) -> None:
        plain.http.get(f"/v1/{mark}")
        plain.http.get(f"/v1/users/{mark}/history")
        plain.http.request("BREW", f"/{mark}")
        plain.http.get(f"/v1/similar?item={mark}")
        plain.asks({"user": mark, "history": [mark], "exclude": [mark]})

    requests("first-mark")
    before = series()
    for n in range(20):
        requests(f"second-mark-{n}")
    after = series()
    assert after == before
    figure(f"{len(before)} series before new names came, {len(after)} after")
    assert not any("mark" in line for line in before)
    assert len(before) < 400
