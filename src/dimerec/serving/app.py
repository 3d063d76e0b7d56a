"""The HTTP application: routes, and the only place of status codes.

A request is admitted, authenticated, counted, read, decoded and answered, in this order; what
refuses it is an exception, and becomes a status here.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec

from dimerec.errors import (
    BundleError,
    DeadlineExceeded,
    Overloaded,
    ServingError,
    StoreUnavailable,
)
from dimerec.serving import access, admission, docs, snapshot, wire
from dimerec.serving.batcher import WorkerGone
from dimerec.serving.engine import UnknownItem
from dimerec.serving.remote_index import IndexUnavailable
from dimerec.serving.routes import ROUTES, Call, Raw, Route
from dimerec.serving.service import NotReady, Service

logger = logging.getLogger(__name__)
JSON, HTML = b"application/json", b"text/html; charset=utf-8"
HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (admission.RateLimited, 429, "rate-limited"),
    (DeadlineExceeded, 503, "deadline-exceeded"),
    (Overloaded, 503, "overloaded"),
    (StoreUnavailable, 503, "history-unavailable"),
    (IndexUnavailable, 503, "index-unavailable"),
    (WorkerGone, 503, "worker-gone"),
    (NotReady, 503, "not-ready"),
    (access.Unauthenticated, 401, "unauthenticated"),
    (access.Forbidden, 403, "forbidden"),
    (admission.TooLarge, 413, "too-large"),
    (admission.TooSlow, 408, "too-slow"),
    (admission.Gone, 400, "gone"),
    (wire.BadRequest, 400, "bad-request"),
    (wire.BadType, 415, "bad-type"),
    (UnknownItem, 404, "not-found"),
    (snapshot.BadName, 422, "bad-name"),
    (snapshot.ReloadRunning, 409, "reload-running"),
    (BundleError, 409, "bundle-refused"),
    (ServingError, 422, "not-answerable"),
    (Exception, 500, "fault"),
)
Send = Callable[[dict[str, Any]], Awaitable[None]]


def application(service: Service) -> Any:
    """The ASGI application of a service; its lifespan starts and ends the service."""
    from starlette.routing import Route as Path
    from starlette.routing import Router

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    by_path: dict[str, dict[str, Route]] = {}
    for route in (*ROUTES, *_documents()):
        by_path.setdefault(route.path, {})[route.method] = route
    paths = [
        Path(path.replace("{user}", "{user:path}"), endpoint=_Resource(service, methods))
        for path, methods in by_path.items()
    ]
    nothing = _Resource(service, {})
    return Router(paths, redirect_slashes=False, default=nothing, lifespan=lifespan)


def _documents() -> tuple[Route, Route]:
    """The routes that describe all routes."""
    statuses = {code: status for _, status, code in STATUS}
    described = docs.openapi(ROUTES, statuses)
    pages = Raw(JSON, msgspec.json.encode(described)), Raw(HTML, docs.page(described).encode())

    async def machine(call: Call) -> Raw:
        return pages[0]

    async def people(call: Call) -> Raw:
        return pages[1]

    return (
        Route("GET", "/openapi.json", machine, None, None, "This description.", always=True),
        Route("GET", "/docs", people, None, None, "This description, for people.", always=True),
    )


class _Resource:
    """All methods of one path."""

    def __init__(self, service: Service, methods: dict[str, Route]) -> None:
        self._service = service
        self._methods = methods
        if "GET" in methods:
            self._methods = {**methods, "HEAD": methods["GET"]}
        self._allow = ", ".join(sorted(self._methods)).encode()

    async def __call__(self, scope: Any, receive: admission.Receive, send: Send) -> None:
        began = time.monotonic()
        if scope["type"] != "http":
            return
        route = self._methods.get(scope["method"])
        service = self._service
        extra: list[tuple[bytes, bytes]] = []
        if route is None:
            status, code = (405, "bad-method") if self._methods else (404, "not-found")
            body = _problem(code, f"{code.replace('-', ' ')}: see /docs for what there is")
            extra = [(b"allow", self._allow)] if self._methods else []
            kind, name = JSON, "other"
        else:
            name = route.path
            try:
                status, kind, body = 200, *await self._answer(route, scope, receive, began)
            except Exception as e:
                status, code, extra = _refusal(e)
                service.metrics.refusals.labels(code).inc()
                kind, body = JSON, _problem(code, str(e) if status != 500 else "a fault of ours")
        service.metrics.requests.labels(name, status).inc()
        service.metrics.seconds.labels(name).observe(time.monotonic() - began)
        await _send(send, status, kind, body, extra, close=service.draining)

    async def _answer(
        self, route: Route, scope: Any, receive: admission.Receive, began: float
    ) -> tuple[bytes, bytes]:
        """The content type and body of the answer, or an exception."""
        service = self._service
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        peer = scope["client"][0] if scope.get("client") else None
        call = Call(service, began, scope.get("path_params", {}), scope["query_string"])
        if route.always:
            call.principal = service.access.principal(headers, peer, route.role)
            return _encoded(await route.run(call))
        with service.in_flight:
            call.principal = service.access.principal(headers, peer, route.role)
            service.rates.take(call.principal)
            if route.request is not None:
                wire.check_type(headers.get("content-type"))
                length = headers.get("content-length")
                body = await admission.read_body(receive, length, service.settings.limits)
                call.request = wire.decode(body, route.request)
            return _encoded(await route.run(call))


def _encoded(answer: Any) -> tuple[bytes, bytes]:
    if isinstance(answer, Raw):
        return answer.kind, answer.body
    return JSON, msgspec.json.encode(answer)


def _refusal(error: Exception) -> tuple[int, str, list[tuple[bytes, bytes]]]:
    status, code = next((s, c) for kind, s, c in STATUS if isinstance(error, kind))
    if status == 500:
        logger.error("a request failed", exc_info=error)
        return status, code, [(b"connection", b"close")]
    extra: list[tuple[bytes, bytes]] = []
    if status in (429, 503):
        extra.append((b"retry-after", b"%d" % admission.retry_after(error)))
    if status in (408, 413):  # the rest of the body is not wanted
        extra.append((b"connection", b"close"))
    if status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    return status, code, extra


def refusal(status: int, code: str, words: str, close: bool) -> bytes:
    """A whole HTTP/1.1 response, for what is refused before it is a request."""
    body = _problem(code, words)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *(["retry-after: 1"] if status == 503 else [])]
    lines += [*(["connection: close"] if close else []), "", ""]
    return "\r\n".join(lines).encode() + body


def _problem(code: str, message: str) -> bytes:
    return msgspec.json.encode(wire.ErrorResponse(wire.Problem(code, message)))


async def _send(
    send: Send,
    status: int,
    kind: bytes,
    body: bytes,
    extra: list[tuple[bytes, bytes]],
    close: bool,
) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *HEADERS, *extra]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
