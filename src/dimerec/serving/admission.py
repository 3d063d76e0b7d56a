"""What may come in: how many at once, how many a second of one principal, how large, how slow."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dimerec.errors import Overloaded, ServingError
from dimerec.serving.access import Principal
from dimerec.serving.settings import Limits

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RateLimited(Overloaded):
    """A principal over its rate; `seconds` until it may ask again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"over the rate of this token; ask again in {seconds:.1f} s")
        self.seconds = seconds


class TooLarge(ServingError):
    """A body over the limit."""


class TooSlow(ServingError):
    """A body that did not come in time."""


class Gone(ServingError):
    """The client went away before its request was whole."""


class InFlight:
    """Counts the requests inside; used by the event loop alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0

    def __enter__(self) -> None:
        if self.now >= self.limit:
            raise Overloaded(f"{self.now} requests are being answered already; try again later")
        self.now += 1

    def __exit__(self, *error: object) -> None:
        self.now -= 1


class Rates:
    """A token bucket for each principal; used by the event loop alone."""

    def __init__(self, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            burst: seconds of its rate that a principal may save up; at least one request.
            clock: seconds, never going back.
        """
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # name: (requests left, as of)

    def take(self, principal: Principal) -> None:
        """Count one request; RateLimited when there is none left."""
        if not principal.rate:
            return
        left = self._left(principal)
        if left < 1:
            raise RateLimited((1 - left) / principal.rate)
        self._buckets[principal.name] = (left - 1, self._clock())

    def charge(self, principal: Principal, more: int) -> None:
        """Count what a request turned out to hold beyond one; the next ones wait for it."""
        if principal.rate and more > 0:
            self._buckets[principal.name] = (self._left(principal) - more, self._clock())

    def _left(self, principal: Principal) -> float:
        most = max(1.0, principal.rate * self._burst)
        now = self._clock()
        left, since = self._buckets.get(principal.name, (most, now))
        return min(most, left + (now - since) * principal.rate)


async def read_body(receive: Receive, length: str | None, limits: Limits) -> bytes:
    """A request's whole body, counted while it is read.

    Args:
        length: the Content-Length header, if there is one.

    Raises:
        TooLarge: it is, or says it is, over `limits.body_bytes`.
        TooSlow: it took more than `limits.body_seconds`.
        Gone: the client went away.
    """
    limit = limits.body_bytes
    said = length if length is not None and length.isascii() and length.isdecimal() else ""
    if int(said.lstrip("0")[:20] or 0) > limit:
        raise TooLarge(f"a body of {said[:40]} bytes; at most {limit} are taken")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone("the client went away")
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise TooLarge(f"the body is over {limit} bytes, and no more are taken")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts) if len(parts) != 1 else parts[0]
    except TimeoutError:
        raise TooSlow(f"the body did not come within {limits.body_seconds:g} s") from None


def retry_after(error: Exception) -> int:
    """Whole seconds after which a refused request may be sent again."""
    return max(1, math.ceil(error.seconds)) if isinstance(error, RateLimited) else 1
