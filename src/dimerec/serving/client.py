"""A client of the service that may be left alone: it waits and asks again when it is told to."""

import random
import time
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from dimerec.errors import ConfigError, ServingError
from dimerec.serving import wire
from dimerec.serving.history import Event
from dimerec.vocabulary import Id

T = TypeVar("T")
AGAIN = (429, 503)
FIRST, LONGEST = 0.1, 30.0  # seconds of waiting where the service does not say


class Refused(ServingError):
    """The service refused, and asking again did not or would not help.

    Attributes:
        status: HTTP status; 0 when there was no answer at all.
        code: of the error, "unreachable" when there was no answer.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code


class Client:
    """Asks one service. One connection is kept open; use it from one thread, or make several.

    A refusal with 429 or 503 is waited out as its Retry-After says, and a broken connection is
    tried again: every route but `reload` may be called twice with the effect of once.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 5.0, retries: int = 4
    ) -> None:
        """
        Args:
            url: of the service, as http://127.0.0.1:8000.
            timeout: seconds for each try.
            retries: tries after the first one.

        Raises:
            ConfigError: httpx is not installed.
        """
        try:
            import httpx
        except ImportError as e:
            raise ConfigError("the client needs httpx: pip install 'dimerec[serve]'") from e
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._broken = httpx.TransportError
        self._retries = retries

    def recommend(self, user: Id | None = None, **fields: Any) -> wire.RecommendResponse:
        """Items for a user; `fields` are those of `wire.RecommendRequest`, history, n and so on."""
        request = wire.RecommendRequest(user=user, **fields)
        return self._call("POST", "/v1/recommend", wire.RecommendResponse, request)

    def recommend_batch(self, queries: Sequence[wire.RecommendRequest]) -> wire.BatchResponse:
        """Items for up to `wire.MAX_QUERIES` users, all by one version of the model."""
        request = wire.BatchRequest(queries=list(queries))
        return self._call("POST", "/v1/recommend/batch", wire.BatchResponse, request)

    def similar(self, item: Id, n: int = 20) -> wire.SimilarResponse:
        """Items like one."""
        request = wire.SimilarRequest(item=item, n=n)
        return self._call("POST", "/v1/similar", wire.SimilarResponse, request)

    def record(self, user: Id, item: Id, time: int | None = None) -> bool:
        """One event, now unless `time` (Unix seconds) says else; True when it is durable."""
        at = int(_now()) if time is None else time
        return self.send([Event(user=user, item=item, time=at, event_id=uuid.uuid4().hex)]) == 1

    def send(self, events: Iterable[Event]) -> int:
        """Store events, however many; how many were new. When it returns, all are durable.

        When it raises, some may be: send all of them again, for their ids make that harmless.
        """
        left, stored = list(events), 0
        while left:
            request = wire.EventsRequest(events=left[: wire.MAX_EVENTS])
            stored += self._call("POST", "/v1/events", wire.EventsResponse, request).stored
            left = left[wire.MAX_EVENTS :]
        return stored

    def history(self, user: Id) -> list[Id]:
        """A user's newest items, oldest first."""
        return self._call("GET", _user(user), wire.HistoryResponse).items

    def erase(self, user: Id) -> int:
        """Forget a user; how many events were removed (0 in a repeated try)."""
        return self._call("DELETE", _user(user), wire.ErasedResponse).erased

    def items(self, ids: Sequence[Id]) -> list[wire.ItemInfo]:
        """Titles and categories."""
        request = wire.ItemsRequest(items=list(ids))
        return self._call("POST", "/v1/items", wire.ItemsResponse, request).items

    def bundle(self) -> wire.BundleResponse:
        """What is served."""
        return self._call("GET", "/v1/bundle", wire.BundleResponse)

    def reload(self, bundle: str | None = None) -> wire.ReloadResponse:
        """Serve another bundle. Tried once; set `timeout` to what loading takes."""
        request = wire.ReloadRequest(bundle=bundle)
        return self._call("POST", "/v1/reload", wire.ReloadResponse, request, retries=0)

    def ready(self) -> bool:
        """Whether the service is there and takes requests."""
        try:
            return self._http.get("/ready").status_code == 200
        except self._broken:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self, method: str, path: str, kind: type[T], request: Any = None, retries: int | None = None
    ) -> T:
        """The decoded answer; Refused when there is none to be had."""
        body = None if request is None else msgspec.json.encode(request)
        headers = {} if body is None else {"content-type": "application/json"}
        tries = self._retries if retries is None else retries
        wait = FIRST
        for left in range(tries, -1, -1):
            try:
                answer = self._http.request(method, path, content=body, headers=headers)
            except self._broken as e:
                if not left:
                    raise Refused(0, "unreachable", f"{self._http.base_url}: {e}") from e
                time.sleep(wait * random.uniform(0.5, 1))
            else:
                if answer.status_code == 200:
                    return msgspec.json.decode(answer.content, type=kind)
                if answer.status_code not in AGAIN or not left:
                    raise _refused(answer.status_code, answer.content)
                said = answer.headers.get("retry-after", "")
                time.sleep(min(LONGEST, float(said)) if said.isdigit() else wait)
            wait = min(LONGEST, 2 * wait)
        raise AssertionError("the last try ends the loop")


def _refused(status: int, content: bytes) -> Refused:
    try:
        problem = msgspec.json.decode(content, type=wire.ErrorResponse).error
    except (msgspec.DecodeError, UnicodeDecodeError):  # not the service, but something before it
        return Refused(status, "refused", content[:200].decode("utf-8", "replace"))
    return Refused(status, problem.code, problem.message)


def _user(user: Id) -> str:
    return f"/v1/users/{quote(str(user), safe='')}/history"


_now = time.time
