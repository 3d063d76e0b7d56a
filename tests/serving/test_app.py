"""The routes of a real server, one by one, and the fallback ladder."""

import time
from collections import Counter

import pytest

from dimerec.bundle import Bundle
from dimerec.recommender import Query
from tests.serving.servers import SIZE, Server

HISTORY = ["item 3", "item 9", "item 4"]


@pytest.fixture(scope="module")
def recommender(bundle):
    return Bundle.open(bundle).recommender()


def record(server: Server, user: str, items: list[str]) -> None:
    events = [
        {"user": user, "item": item, "time": 1000 + n, "event_id": f"{user}-{n}"}
        for n, item in enumerate(items)
    ]
    assert server.ask("/v1/events", {"events": events})["stored"] == len(items)


def test_the_answer_is_that_of_the_bundle(plain, recommender, bundle):
    body = {"history": HISTORY, "n": 7, "seed": 3}
    answer = plain.asks(body)
    (expected,) = recommender.answer([Query(history=HISTORY, n=7, seed=3)])
    assert answer["items"] == expected.items
    assert answer["scores"] == pytest.approx(expected.scores, rel=1e-5)
    assert answer["source"] == "model" and answer["degraded_reason"] is None
    assert answer["model_version"] == Bundle.open(bundle).manifest.digest[:16]
    timings = answer["timings"]
    assert timings["total"] >= timings["queue"] + timings["model"] > 0


@pytest.mark.parametrize(
    "more",
    [
        {"exclude": ["item 5", "item 6"]},
        {"only": ["item 3", "item 11", "item 12", "nothing"]},
        {"categories": ["odd"]},
        {"hide_seen": False},
        {"diversity": 2.5, "n": 10},
        {"exclude": ["item 7"], "categories": ["even"], "n": 1000},
    ],
)
def test_every_field_of_a_query_reaches_the_recommender(plain, recommender, more, figure):
    answer = plain.asks({"history": HISTORY, **more})
    (expected,) = recommender.answer([Query(history=HISTORY, **more)])
    assert answer["items"] == expected.items
    assert answer["unknown"] == expected.unknown
    figure(
        "{queries} filtered queries over HTTP, their {items} items those of the library",
        queries=1,
        items=len(answer["items"]),
    )


def test_a_stored_history_is_asked(plain, recommender):
    record(plain, "ann", HISTORY)
    answer = plain.asks({"user": "ann", "n": 5})
    assert answer["items"] == recommender.answer([Query(history=HISTORY, n=5)])[0].items
    assert answer["timings"]["store"] > 0
    # what is stored goes before what the request holds
    assert plain.asks({"user": "ann", "n": 5, "history": ["item 8"]})["items"] == answer["items"]


def test_the_history_of_the_request_stands_in_for_an_unknown_user(plain, recommender):
    answer = plain.asks({"user": "nobody", "n": 5, "history": HISTORY})
    assert answer["items"] == recommender.answer([Query(history=HISTORY, n=5)])[0].items
    assert (answer["source"], answer["degraded_reason"]) == ("model", None)


def test_the_ladder_goes_down_to_context_and_popularity(plain, recommender, figure):
    by_context = recommender.answer([Query(history=["item 9"], n=4)])[0].items
    tally: Counter[str] = Counter()
    for history in ([], ["never seen", "nor this"]):
        body = {"history": history, "context": ["item 9"], "n": 4}
        answer = plain.asks(body)
        assert (answer["source"], answer["items"]) == ("context", by_context)
        tally[answer["source"]] += 1
        answer = plain.asks({**body, "context": ["unknown, too"]})
        popular = recommender.answer([Query(history=[], n=4)])[0].items
        assert (answer["source"], answer["items"]) == ("popularity", popular)
        tally[answer["source"]] += 1
    odd = plain.asks({"categories": ["odd"], "n": 4})
    expected = recommender.answer([Query(history=[], n=4, categories=["odd"])])[0].items
    assert (odd["source"], odd["items"]) == ("popularity", expected)
    assert plain.asks({"history": ["item 3"], "context": ["item 9"]})["source"] == "model"
    figure(
        f"of users and items unknown: {tally['context']} answered by what is on the page, "
        f"{tally['popularity']} by popularity"
    )


def test_a_batch_answers_each_query_as_if_alone(plain):
    record(plain, "bob", ["item 1", "item 2"])
    queries = [
        {"user": "bob"},
        {"history": HISTORY, "n": 3},
        {"history": ["item 3"], "exclude": ["item 6"]},
        {},
    ]
    answer = plain.ask("/v1/recommend/batch", {"queries": queries})
    alone = [plain.asks(query) for query in queries]
    assert [a["items"] for a in answer["answers"]] == [a["items"] for a in alone]
    assert [a["source"] for a in answer["answers"]] == ["model"] * 3 + ["popularity"]
    assert (answer["source"], answer["degraded_reason"]) == ("mixed", None)
    assert answer["model_version"] == alone[0]["model_version"]


def test_a_query_that_cannot_be_answered_is_refused_alone(plain):
    answer = plain.asks({"history": HISTORY, "categories": ["ood"]}, 422)
    assert answer["error"]["code"] == "not-answerable"
    assert "'ood'" in answer["error"]["message"]
    plain.asks({"history": HISTORY})


def test_similar_items(plain):
    answer = plain.ask("/v1/similar", {"item": "item 3", "n": 5})
    assert len(set(answer["items"]) - {"item 3"}) == 5
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert plain.ask("/v1/similar?item=item%203&n=5")["items"] == answer["items"]
    assert plain.ask("/v1/similar", {"item": "no"}, 404)["error"]["code"] == "not-found"
    for query in ("", "?n=3", "?item=", "?item=x&n=0", "?item=x&n=z", "?item=x&more=1"):
        assert plain.ask(f"/v1/similar{query}", code=400)["error"]["code"] == "bad-request"


def test_a_user_can_be_read_and_forgotten(plain):
    for user, path in (("carl", "carl"), ("a/b c%ü", "a%2Fb%20c%25%C3%BC")):
        record(plain, user, HISTORY)
        route = f"/v1/users/{path}/history"
        assert plain.ask(route) == {"user": user, "items": HISTORY}
        assert plain.http.delete(route).json() == {"user": user, "erased": 3}
        assert plain.ask(route)["items"] == []
        assert plain.asks({"user": user})["source"] == "popularity"


def test_a_user_has_one_history_under_7_and_its_text(plain):
    event = {"user": 7, "item": "item 3", "time": 1, "event_id": "seven"}
    plain.ask("/v1/events", {"events": [event]})
    assert plain.ask("/v1/users/7/history")["items"] == ["item 3"]
    assert plain.asks({"user": 7})["items"] == plain.asks({"user": "7"})["items"]
    assert plain.asks({"user": 7})["source"] == "model"


def test_an_event_counts_once(plain):
    events = [{"user": "dora", "item": "item 3", "time": 1, "event_id": "once"}] * 2
    assert plain.ask("/v1/events", {"events": events}) == {"stored": 1, "duplicates": 1}
    assert plain.ask("/v1/events", {"events": events}) == {"stored": 0, "duplicates": 2}
    assert plain.ask("/v1/users/dora/history")["items"] == ["item 3"]


def test_items_and_bundle_are_described(plain, bundle):
    items = plain.ask("/v1/items", {"items": ["item 4", "nothing", 4]})["items"]
    assert items[0] == {"id": "item 4", "known": True, "title": "Title 4", "categories": ["even"]}
    assert [item["known"] for item in items] == [True, False, False]
    manifest = Bundle.open(bundle).manifest
    about = plain.ask("/v1/bundle")
    assert (about["digest"], about["items"]) == (manifest.digest, SIZE - 1)
    assert (about["model"], about["name"]) == ("sasrec", "bundle")


def test_what_is_not_there_is_refused_in_words(plain):
    for path in ("/", "/v1", "/v1/recommend/", "/v2/recommend", "//", "/docs/x", "/v1/users//x"):
        assert plain.ask(path, code=404)["error"]["code"] == "not-found"
    answer = plain.http.get("/v1/recommend")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"
    answer = plain.http.options("/v1/users/x/history")
    assert answer.status_code == 405 and answer.headers["allow"] == "DELETE, GET, HEAD"
    head = plain.http.head("/ready")
    assert head.status_code == 200 and not head.content


def test_a_body_must_say_that_it_is_json(plain):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = plain.http.post("/v1/reload", content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 415, kind
    kind = "Application/JSON; charset=utf-8"
    answer = plain.http.post("/v1/items", content=b'{"items": [1]}', headers={"content-type": kind})
    assert answer.status_code == 200


def test_the_documentation_needs_no_network(plain):
    page = plain.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    text = page.text
    assert "http://127.0.0.1" in text and "//cdn" not in text and "<script" not in text
    assert "src=" not in text and "url(" not in text and "@import" not in text
    document = plain.ask("/openapi.json")
    for path, methods in document["paths"].items():
        assert path in text
        for operation in methods.values():
            assert operation["responses"]["200"]
    fields = document["components"]["schemas"]["RecommendRequest"]["properties"]
    assert all(field["description"] for field in fields.values())


def test_one_bundle_is_read_again_in_its_place(plain):
    before = plain.ask("/v1/bundle")["model_version"]
    began = time.monotonic()
    answer = plain.ask("/v1/reload", {})
    assert answer["previous"] == answer["model_version"] == before
    assert 0 < answer["seconds"] <= time.monotonic() - began + 0.01
    assert plain.ask("/v1/reload", {"bundle": "two"}, 422)["error"]["code"] == "bad-name"
