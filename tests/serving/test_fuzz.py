"""Any bytes get an answer, and none is a 5xx: raw bodies, bent JSON, and the whole OpenAPI."""

import json
import string
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from hypothesis.strategies import SearchStrategy

from dimerec.serving.routes import ROUTES
from tests.serving.servers import Server, token

POSTS = [r.path for r in ROUTES if r.method == "POST" and r.path != "/v1/reload"]
JSON = {"content-type": "application/json"}
FIELDS = ["user", "history", "context", "n", "queries", "events", "item", "items", "time"]
FIELDS += ["event_id", "exclude", "only", "categories", "diversity", "seed", "hide_seen", "zzz"]

# JSON as text, so that it may say what no encoder would.
scalars = st.one_of(
    st.sampled_from(
        ["null", "true", "NaN", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "0.5", "9" * 400]
        + ['"item 3"', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\udcff"', '""', '"\\x"']
        + ["[]", "{}", "", "[" * 3000, '{"a":' * 3000, '"' + "x" * 600 + '"', "01", "+1", "1_0"]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.text(st.characters(), max_size=8).map(json.dumps),
)


def grown(parts: SearchStrategy[str]) -> SearchStrategy[str]:
    pair = st.tuples(st.sampled_from(FIELDS), parts).map(lambda p: f'"{p[0]}":{p[1]}')
    return st.one_of(
        st.lists(parts, max_size=4).map(lambda p: f"[{','.join(p)}]"),
        st.lists(pair, max_size=5).map(lambda p: f"{{{','.join(p)}}}"),  # keys may come twice
    )


bent = st.recursive(scalars, grown, max_leaves=12).map(
    lambda s: s.encode("utf-8", "surrogateescape")
)
bodies = st.one_of(st.binary(max_size=60), bent, bent.map(lambda b: b[: len(b) // 2]))


@settings(max_examples=150)
@given(st.sampled_from(POSTS), bodies)
@example("/v1/recommend", b'{"n":2,"n":3}')
@example("/v1/recommend", b'{"user":"\\u0000","history":["\\u0000"]}')
@example("/v1/events", b'{"events":[{"user":"\\u0000","item":"a","time":1,"event_id":"\\u0000"}]}')
@example("/v1/recommend", b'{"history":["\xed\xa0\x80"]}')
@example("/v1/recommend", b"\xef\xbb\xbf{}")
def test_any_body_gets_an_answer(plain, figure, path, body):
    answer = plain.http.post(path, content=body, headers=JSON)
    faults = answer.status_code >= 500
    figure("{bodies} bodies, {faults} answers of 500 or above", bodies=1, faults=faults)
    assert answer.status_code in (200, 400, 404, 422), (answer.text, plain.log[-2000:])
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] in ("bad-request", "not-found", "not-answerable")


@settings(max_examples=60)
@given(bodies)
def test_any_body_of_a_reload_is_refused_or_names_no_path(guarded, body):
    headers = {**JSON, "authorization": f"Bearer {token('chief')}"}
    answer = guarded.http.post("/v1/reload", content=body, headers=headers)
    assert answer.status_code in (200, 400, 409, 422)


@settings(max_examples=80)
@given(st.text(string.printable + "é\x00\u2028", max_size=20), st.binary(max_size=20))
@example("%00", b"")
@example("..", b"%ff=%ff")
@example("%ff%fe", b"item=%ff&n=1")
@example("x" * 600, b"item=" + b"x" * 600)
def test_any_path_and_query_gets_an_answer(plain, figure, name, query):
    encoded = "".join(
        c if (c.isalnum() and c.isascii()) or c == "%" else f"%{b:02x}"
        for c in name
        for b in c.encode()
    )
    quoted = "".join(f"%{b:02x}" for b in query)
    paths = [f"/v1/users/{encoded}/history", f"/{encoded}"]
    for path in (*paths, f"/v1/similar?item={quoted}&n=3", f"/v1/similar?{quoted}"):
        answer = plain.http.get(path)
        faults = answer.status_code >= 500
        figure("{paths} paths, {faults} answers of 500 or above", paths=1, faults=faults)
        assert answer.status_code in (200, 400, 404), answer.text


def test_of_a_key_that_comes_twice_the_last_counts(plain):
    answer = plain.http.post("/v1/recommend", content=b'{"n":2,"n":3}', headers=JSON)
    assert len(answer.json()["items"]) == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # those of the tool itself
def test_the_openapi_holds_against_schemathesis(plain: Server, figure):
    import schemathesis
    from hypothesis import HealthCheck, Phase
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.result import Ok

    schema = schemathesis.openapi.from_url(f"{plain.url}/openapi.json")
    tried = 0

    def attack(operation: Any) -> None:
        documented = operation.definition.raw["responses"]

        @settings(
            max_examples=60,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def one(case) -> None:
            answer = case.call(base_url=plain.url)
            faults = answer.status_code >= 500
            figure("{calls} calls by the OpenAPI, {faults} of 500 or above", calls=1, faults=faults)
            if answer.status_code == 503:  # /ready and /live alone may say so
                raise AssertionError(answer.text)
            case.validate_response(answer, checks=[not_a_server_error])
            assert str(answer.status_code) in documented or answer.status_code in (404, 405)

        one()

    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        attack(result.ok())
        tried += 1
    assert tried == len(ROUTES)
    assert plain.asks({"history": ["item 3"]})["source"] == "model"
