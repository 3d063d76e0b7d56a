"""The routes: path, role, structs in and out, and what each does. One list, for the application
and for its description (whose own routes the application adds)."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from dimerec.serving import wire
from dimerec.serving.access import Principal
from dimerec.serving.history import storable
from dimerec.serving.metrics import CONTENT_TYPE
from dimerec.serving.service import NotReady, Service
from dimerec.serving.settings import Role


class Raw(msgspec.Struct, frozen=True):
    """An answer that is no JSON of a struct."""

    kind: bytes
    body: bytes


class Call(msgspec.Struct):
    """A request on its way: when it began, the path's and query's values, who asks, the body."""

    service: Service
    began: float
    path: Mapping[str, str]
    query: bytes
    principal: Principal = Principal("", "", frozenset(), 0.0)
    request: Any = None


class Route(msgspec.Struct, frozen=True):
    """One method of one path.

    Attributes:
        run: makes the answer.
        answer: its struct; None for other documents.
        role: that a token needs; None for everybody.
        request: struct of the body; None where there is none.
        query: struct of the query string.
        always: answered whatever the load.
        errors: codes that this route may answer besides those that any does.
    """

    method: str
    path: str
    run: Callable[[Call], Awaitable[Any]]
    answer: Any
    role: Role | None
    about: str
    request: Any = None
    query: Any = None
    always: bool = False
    errors: tuple[str, ...] = ()


async def _recommend(call: Call) -> wire.RecommendResponse:
    (answer,), snapshot, timings = await call.service.recommend(
        [call.request], call.principal, call.began
    )
    return wire.RecommendResponse(
        **msgspec.structs.asdict(answer), model_version=snapshot.version, timings=timings
    )


async def _recommend_batch(call: Call) -> wire.BatchResponse:
    queries = call.request.queries
    call.service.rates.charge(call.principal, len(queries) - 1)
    answers, snapshot, timings = await call.service.recommend(queries, call.principal, call.began)
    sources = {answer.source for answer in answers}
    reasons = [answer.degraded_reason for answer in answers if answer.degraded_reason]
    return wire.BatchResponse(
        answers=answers,
        model_version=snapshot.version,
        source=sources.pop() if len(sources) == 1 else "mixed",
        degraded_reason=reasons[0] if reasons else None,
        timings=timings,
    )


async def _similar(call: Call) -> wire.SimilarResponse:
    if call.request is None:
        pairs = parse_qsl(call.query.decode("latin-1"), keep_blank_values=True, max_num_fields=10)
        try:
            call.request = msgspec.convert(dict(pairs), wire.SimilarQuery, strict=False)
        except msgspec.ValidationError as e:
            raise wire.BadRequest(f"the query string: {e}") from None
    asked = call.request
    items, scores, snapshot, timings = await call.service.similar(asked.item, asked.n, call.began)
    return wire.SimilarResponse(
        item=asked.item,
        items=items,
        scores=scores,
        model_version=snapshot.version,
        source="model",
        degraded_reason=None,
        timings=timings,
    )


async def _events(call: Call) -> wire.EventsResponse:
    stored = await call.service.ingest(call.request.events, call.principal.tenant)
    return wire.EventsResponse(stored=sum(stored), duplicates=len(stored) - sum(stored))


def _user(call: Call) -> str:
    user = call.path["user"]
    if not storable(user):
        raise wire.BadRequest("a user's id is 1 to 512 characters of UTF-8")
    return user


async def _history(call: Call) -> wire.HistoryResponse:
    user = _user(call)
    items = await call.service.history(user, call.principal.tenant)
    return wire.HistoryResponse(user=user, items=items)


async def _erase(call: Call) -> wire.ErasedResponse:
    user = _user(call)
    return wire.ErasedResponse(user, await call.service.erase(user, call.principal.tenant))


async def _items(call: Call) -> wire.ItemsResponse:
    snapshot, asked = call.service.shelf.current, call.request.items
    return wire.ItemsResponse(
        items=[
            wire.ItemInfo(id=id, known=False)
            if item is None
            else wire.ItemInfo(id, True, item.title, list(item.categories))
            for id, item in zip(asked, snapshot.describe(asked), strict=True)
        ],
        model_version=snapshot.version,
    )


async def _bundle(call: Call) -> wire.BundleResponse:
    snapshot = call.service.shelf.current
    manifest = snapshot.bundle.manifest
    return wire.BundleResponse(
        model_version=snapshot.version,
        digest=manifest.digest,
        name=snapshot.name,
        model=manifest.config.model,
        items=manifest.sizes.items - 1,
        length=manifest.sizes.length,
        origin=msgspec.to_builtins(manifest.origin),
        versions=manifest.versions,
    )


async def _reload(call: Call) -> wire.ReloadResponse:
    previous, fresh = await call.service.reload(call.request.bundle)
    seconds = round(time.monotonic() - call.began, 3)
    return wire.ReloadResponse(fresh.version, previous.version, seconds)


async def _live(call: Call) -> wire.StateResponse:
    if reasons := call.service.dead():
        raise NotReady("; ".join(reasons))
    return wire.StateResponse(ok=True)


async def _ready(call: Call) -> wire.StateResponse:
    if reasons := call.service.reasons():
        raise NotReady("; ".join(reasons))
    return wire.StateResponse(ok=True)


async def _metrics(call: Call) -> Raw:
    return Raw(CONTENT_TYPE.encode(), call.service.metrics.text())


BUSY = ("overloaded", "deadline-exceeded")
STORE = ("history-unavailable",)
ROUTES: tuple[Route, ...] = (
    Route(
        *("POST", "/v1/recommend", _recommend, wire.RecommendResponse, "read"),
        "Items for one user.",
        request=wire.RecommendRequest,
        errors=(*BUSY, "not-answerable"),
    ),
    Route(
        *("POST", "/v1/recommend/batch", _recommend_batch, wire.BatchResponse, "read"),
        "Items for several users.",
        request=wire.BatchRequest,
        errors=(*BUSY, "not-answerable"),
    ),
    Route(
        *("GET", "/v1/similar", _similar, wire.SimilarResponse, "read"),
        "Items like one.",
        query=wire.SimilarQuery,
        errors=(*BUSY, "index-unavailable", "not-found", "not-answerable"),
    ),
    Route(
        *("POST", "/v1/similar", _similar, wire.SimilarResponse, "read"),
        "Items like one.",
        request=wire.SimilarRequest,
        errors=(*BUSY, "index-unavailable", "not-found", "not-answerable"),
    ),
    Route(
        *("POST", "/v1/events", _events, wire.EventsResponse, "ingest"),
        "Store what users did; the answer means that it is durable.",
        request=wire.EventsRequest,
        errors=(*BUSY, *STORE),
    ),
    Route(
        *("GET", "/v1/users/{user}/history", _history, wire.HistoryResponse, "read"),
        "A user's newest items.",
        errors=STORE,
    ),
    Route(
        *("DELETE", "/v1/users/{user}/history", _erase, wire.ErasedResponse, "ingest"),
        "Forget a user.",
        errors=STORE,
    ),
    Route(
        *("POST", "/v1/items", _items, wire.ItemsResponse, "read"),
        "Titles and categories of items.",
        request=wire.ItemsRequest,
    ),
    Route("GET", "/v1/bundle", _bundle, wire.BundleResponse, "read", "What is served."),
    Route(
        *("POST", "/v1/reload", _reload, wire.ReloadResponse, "admin"),
        "Serve another bundle; if it is broken, the old one goes on serving.",
        request=wire.ReloadRequest,
        errors=("bad-name", "reload-running", "bundle-refused"),
    ),
    Route(
        *("GET", "/live", _live, wire.StateResponse, None),
        "Whether the process should go on running.",
        always=True,
        errors=("not-ready",),
    ),
    Route(
        *("GET", "/ready", _ready, wire.StateResponse, None),
        "Whether requests should come here.",
        always=True,
        errors=("not-ready",),
    ),
    Route("GET", "/metrics", _metrics, None, "read", "For Prometheus.", always=True),
)
