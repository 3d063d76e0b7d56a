"""HTTP/1.1 of the service: uvicorn's, with bounds on heads, on idle and slow connections and on
their number, and with a cheap refusal for what comes on top of too much."""

import asyncio
from typing import TYPE_CHECKING, Any

from dimerec.serving.service import Service

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ALWAYS = (b"/live", b"/ready", b"/metrics")
MODEL = b"/v1/recommend"  # what waits for the model, batches included


def protocol(service: Service) -> "type[HttpToolsProtocol]":
    """The protocol class for one service."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    limits = service.settings.limits

    class Guarded(HttpToolsProtocol):
        """One connection. One timer: for a head or for idling, then for the body."""

        _timer: asyncio.TimerHandle | None = None
        _in_head = True
        _bytes = 0  # of the head, or of a body that nobody reads
        _skip = False  # the message at hand was refused

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            service.connections = len(self.connections)
            if len(self.connections) > limits.connections:
                self._refuse(503, "overloaded", "too many connections; try again later")
            else:
                self._arm(limits.header_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            service.connections = len(self.connections)
            self._disarm()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._in_head:
                self._bytes += len(data)
            super().data_received(data)
            if self._in_head and self._bytes > limits.header_bytes:
                self._large_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._skip = False

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._bytes = 0
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            idle = self.cycle is None or self.cycle.response_complete
            if size > limits.header_bytes:
                self._large_head()
            elif idle and self.url not in ALWAYS and (words := self._too_much()):
                self._skip = True
                keep = self.parser is not None and self.parser.should_keep_alive()
                self._refuse(503, "overloaded", words, close=not keep)
            else:
                if idle:
                    self._arm(limits.body_seconds)
                super().on_headers_complete()

        def _too_much(self) -> str:
            """What speaks against another request: told here, it costs half of what it does as an
            exception of the application, and under overload that is most of the work."""
            if len(self.tasks) >= limits.in_flight:
                return f"{len(self.tasks)} requests are being answered already; try again later"
            if service.batcher.full and self.url.startswith(MODEL):
                return f"{service.batcher.waiting} queries wait for the model already; try later"
            return ""

        def on_body(self, body: bytes) -> None:
            if self._skip or self.cycle.response_complete:
                self._bytes += len(body)
                if self._bytes > limits.body_bytes:
                    self.transport.abort()
            else:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self._in_head = True
            self._bytes = 0
            if not self._skip:
                super().on_message_complete()
                if not self.cycle.response_complete:
                    self._disarm()

        def on_response_complete(self) -> None:
            if not self.pipeline:
                self._arm(limits.header_seconds)
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "bad-request", "this is no HTTP/1.1 request")

        def _large_head(self) -> None:
            self._skip = True
            self._refuse(431, "too-large", f"the head is over {limits.header_bytes} bytes")

        def _refuse(self, status: int, code: str, words: str, close: bool = True) -> None:
            from dimerec.serving.app import refusal

            service.metrics.requests.labels("other", status).inc()
            service.metrics.refusals.labels(code).inc()
            self.transport.write(refusal(status, code, words, close))
            if close:
                self._disarm()
                self.transport.close()
            else:
                self._arm(limits.header_seconds)

        def _arm(self, seconds: float) -> None:
            self._disarm()
            self._timer = self.loop.call_later(seconds, self._late)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self._in_head and self._bytes and not self.transport.is_closing():
                seconds = limits.header_seconds
                self._refuse(408, "too-slow", f"the head did not come within {seconds:g} s")
            elif self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return Guarded
