"""Who may do what: every role against every route of a real server, tenants, rates, loopback."""

import hmac
import time

import pytest

from dimerec.serving import access
from dimerec.serving.access import Access, Forbidden, Unauthenticated
from dimerec.serving.routes import ROUTES
from dimerec.serving.settings import Settings, Token
from tests.serving.servers import Server, digest, token

BODIES = {
    "/v1/recommend": {"n": 1},
    "/v1/recommend/batch": {"queries": [{"n": 1}]},
    "/v1/similar": {"item": "item 3", "n": 1},
    "/v1/events": {"events": [{"user": "m", "item": "x", "time": 1, "event_id": "m"}]},
    "/v1/items": {"items": [1]},
    "/v1/reload": {"bundle": "one"},
}
ROLES = {
    "reader": {"read"},
    "writer": {"ingest"},
    "chief": {"admin"},
    "all": {"read", "ingest", "admin"},
    "unknown": None,
    None: None,
}


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token(name)}"}


def call(server: Server, method: str, path: str, headers: dict[str, str]) -> int:
    url = path.replace("{user}", "m")
    body = BODIES.get(path) if method == "POST" else None
    query = {"item": "item 3"} if (method, path) == ("GET", "/v1/similar") else None
    answer = server.http.request(method, url, json=body, params=query, headers=headers)
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    return answer.status_code


@pytest.mark.parametrize("name", ROLES)
def test_every_role_against_every_route(guarded, name, figure):
    roles = ROLES[name]
    wanted, got = {}, {}
    for route in ROUTES:
        key = f"{route.method} {route.path}"
        if route.role is None:
            wanted[key] = 200
        elif roles is None:
            wanted[key] = 401
        else:
            wanted[key] = 200 if route.role in roles else 403
        got[key] = call(guarded, route.method, route.path, bearer(name) if name else {})
    for path in ("/docs", "/openapi.json"):
        assert call(guarded, "GET", path, {}) == 200
    assert got == wanted
    figure(
        "{callers} callers: {answers} answers, {others} other than the table of roles says",
        callers=1,
        answers=len(got),
        others=sum(got[key] != wanted[key] for key in got),
    )
    assert {route.role for route in ROUTES} == {"read", "ingest", "admin", None}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        f"Basic {token('all')}",
        token("all"),
        f"Bearer {token('all')}x",
        f"Bearer {token('all')[:-1]}",
        f"Bearer {token('all')} {token('all')}",
        "Bearer " + digest(token("all")),
        "Bearer " + "x" * 5000,
        "Bearer ÿ\xa0",
    ],
)
def test_what_is_not_the_token_is_refused(guarded, header):
    raw = [(b"authorization", header.encode("latin-1"))]
    assert guarded.http.get("/v1/bundle", headers=raw).status_code == 401
    assert guarded.http.get("/v1/bundle", headers=bearer("all")).status_code == 200


def test_admin_is_taken_from_this_machine_alone_and_not_through_a_proxy(guarded, figure):
    for name in access.FORWARDED:
        headers = {**bearer("chief"), name: "127.0.0.1"}
        refused = call(guarded, "POST", "/v1/reload", headers)
        assert refused == 403
        figure("admin through {proxies} kinds of proxy refused", proxies=refused == 403)
        # the same through a proxy is no matter for a reader
        assert call(guarded, "GET", "/v1/bundle", {**bearer("reader"), name: "8.8.8.8"}) == 200


def test_admin_from_elsewhere_needs_the_setting():
    known = digest("t")
    tokens = [Token(name="a", sha256=known, roles=["admin", "read"])]
    headers = {"authorization": "Bearer t"}
    strict = Access(Settings(tokens=tokens))
    loose = Access(Settings(tokens=tokens, admin="anywhere"))
    for peer in ("10.0.0.1", None, "::2", "128.0.0.1"):
        with pytest.raises(Forbidden):
            strict.principal(headers, peer, "admin")
        assert strict.principal(headers, peer, "read").name == "a"
        assert loose.principal(headers, peer, "admin").name == "a"
    for peer in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert strict.principal(headers, peer, "admin").name == "a"
    with pytest.raises(Unauthenticated):
        loose.principal({}, "127.0.0.1", "admin")


def test_every_digest_is_compared_in_constant_time(monkeypatch, figure):
    compared = []

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    names = ["a", "b", "c"]
    tokens = [Token(n, d, ["read"]) for n, d in zip(names, map(digest, names))]
    gate = Access(Settings(tokens=tokens))
    monkeypatch.setattr(access, "hmac", type("Spy", (), {"compare_digest": staticmethod(spy)}))
    for given in ("a", "c", "nothing"):
        compared.clear()
        try:
            assert gate.principal({"authorization": f"bearer {given}"}, None, "read").name == given
        except Unauthenticated:
            assert given == "nothing"
        assert compared == [(32, 32)] * 3
        figure("{given} tokens tried, {times} comparisons", given=1, times=len(compared))


def test_tenants_never_see_each_other(guarded, figure):
    def event(item: str) -> dict:
        # the same user and the same event id in both
        return {"events": [{"user": "eve", "item": item, "time": 1, "event_id": "same"}]}

    for name, item in (("writer", "item 3"), ("other", "item 9")):
        answer = guarded.ask("/v1/events", event(item), headers=bearer(name))
        assert answer == {"stored": 1, "duplicates": 0}
    for name, item in (("reader", "item 3"), ("other", "item 9")):
        seen = guarded.ask("/v1/users/eve/history", headers=bearer(name))
        assert seen["items"] == [item]
        figure(
            "one user id in {tenants} tenants: {items} events, each tenant sees its own",
            tenants=1,
            items=len(seen["items"]),
        )
        by_user = guarded.asks({"user": "eve", "n": 5}, headers=bearer(name))
        by_item = guarded.asks({"history": [item], "n": 5}, headers=bearer(name))
        assert by_user["items"] == by_item["items"]
    erased = guarded.http.delete("/v1/users/eve/history", headers=bearer("other")).json()
    assert erased["erased"] == 1
    assert guarded.ask("/v1/users/eve/history", headers=bearer("reader"))["items"] == ["item 3"]
    assert guarded.ask("/v1/users/eve/history", headers=bearer("other"))["items"] == []


def test_one_principal_over_its_rate_is_no_matter_to_another(guarded, figure):
    codes, began = [], time.monotonic()
    while codes.count(429) < 3:
        answer = guarded.http.get("/v1/bundle", headers=bearer("slow"))
        codes.append(answer.status_code)
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "rate-limited"
            assert int(answer.headers["retry-after"]) >= 1
    seconds = time.monotonic() - began
    assert codes[:2] == [200, 200] and codes.count(200) <= 2 + 2 * (time.monotonic() - began)
    assert guarded.http.get("/v1/bundle", headers=bearer("fast")).status_code == 200
    assert guarded.http.get("/v1/bundle", headers=bearer("reader")).status_code == 200
    time.sleep(0.6)
    assert guarded.http.get("/v1/bundle", headers=bearer("slow")).status_code == 200
    figure(
        f"at 2 a second: {codes.count(200)} of {len(codes)} answered in {seconds:.2f} s, the others "
        "429"
    )


def test_a_batch_counts_each_of_its_queries(guarded):
    body = {"queries": [{"n": 1}] * 4}
    guarded.ask("/v1/recommend/batch", body, headers=bearer("fast"))
    answer = guarded.http.get("/v1/bundle", headers=bearer("fast"))
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 3
