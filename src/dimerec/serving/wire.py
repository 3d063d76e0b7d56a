"""What goes over the wire: structs of requests and answers, decoded strictly from raw bytes.

Unknown keys are refused, and so is every number that is not finite. Of a key that comes twice,
the last one counts.
"""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dimerec.config import Struct
from dimerec.errors import ServingError
from dimerec.serving.history import Event

T = TypeVar("T")
MAX_N, MAX_HISTORY, MAX_IDS, MAX_QUERIES, MAX_EVENTS = 1000, 2000, 10_000, 64, 1000
_INTEGER = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
ItemId = _INTEGER | Annotated[str, Meta(min_length=1, max_length=512)]
UserId = ItemId
Category = Annotated[str, Meta(min_length=1, max_length=512)]
Count = Annotated[int, Meta(ge=1, le=MAX_N)]
Ids = Annotated[list[ItemId], Meta(max_length=MAX_IDS)]


class BadRequest(ServingError):
    """The bytes are not what this route takes; the message names the place."""


class RecommendRequest(Struct, frozen=True):
    """Whom to recommend to, and what.

    The user's stored history is asked of the model. `history` takes its place for a user of whom
    nothing is stored, while the store is down, or where no user is named. Where no item of it is
    known, `context` (what is on the screen, say) is asked instead; after that come popular items.

    Attributes:
        user: whose stored history to use. The integer 7 and the text "7" are one user.
        history: item ids, oldest first.
        context: item ids, oldest first.
        n: how many items, at most.
        hide_seen: leave out the items of the history.
        exclude: items to leave out, too.
        only: the only items to choose from.
        categories: items must be in one of these; empty for any.
        diversity: weight of items of different categories; 0 ranks by score alone.
        seed: of a generative model's noise; the same request with the same seed gets the same.
    """

    user: UserId | None = None
    history: Annotated[list[ItemId], Meta(max_length=MAX_HISTORY)] = []
    context: Annotated[list[ItemId], Meta(max_length=MAX_HISTORY)] = []
    n: Count = 20
    hide_seen: bool = True
    exclude: Ids = []
    only: Ids | None = None
    categories: Annotated[list[Category], Meta(max_length=100)] = []
    diversity: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class BatchRequest(Struct, frozen=True):
    """Several users at once, answered by one version of the model."""

    queries: Annotated[list[RecommendRequest], Meta(min_length=1, max_length=MAX_QUERIES)]


class SimilarRequest(Struct, frozen=True):
    """Items like this one."""

    item: ItemId
    n: Count = 20


class SimilarQuery(Struct, frozen=True):
    """Items like this one, as a query string: `?item=ID&n=10`."""

    item: Annotated[str, Meta(min_length=1, max_length=512)]
    n: Count = 20


class EventsRequest(Struct, frozen=True):
    """What users did. An event id that was stored before changes nothing."""

    events: Annotated[list[Event], Meta(min_length=1, max_length=MAX_EVENTS)]


class ItemsRequest(Struct, frozen=True):
    """Items to describe."""

    items: Annotated[list[ItemId], Meta(min_length=1, max_length=MAX_N)]


class ReloadRequest(Struct, frozen=True):
    """Which bundle to serve.

    Attributes:
        bundle: its name in the folder of bundles that is served; without it, what the folder's
            `CURRENT` names, or the one bundle that is served, as it now stands on the disk.
    """

    bundle: Annotated[str, Meta(max_length=4096)] | None = None


class Timings(Struct, frozen=True):
    """Milliseconds from the request's arrival to its answer, and what they went for."""

    total: float
    store: float = 0.0
    queue: float = 0.0
    model: float = 0.0


class Answer(Struct, frozen=True):
    """Items for one user.

    Attributes:
        items: ids, best first, distinct.
        scores: theirs; the number of training events for popular items.
        source: "model" (from the history), "context" (from the context), or "popularity".
        degraded_reason: why the answer is not what it would be on a good day: null,
            "history-unavailable", "index-unavailable" or "model-failed".
        filled: how many items at the end are popular ones because the model gave too few.
        unknown: ids of the history asked that the catalogue does not hold.
    """

    items: list[ItemId]
    scores: list[float]
    source: str
    degraded_reason: str | None = None
    filled: int = 0
    unknown: list[ItemId] = []


class RecommendResponse(Answer, frozen=True, kw_only=True):
    """Items for one user, with the version that chose them."""

    model_version: str
    timings: Timings


class BatchResponse(Struct, frozen=True):
    """An answer for each query, in order, all by one version.

    `source` and `degraded_reason` sum the answers up: "mixed" where they differ, and the first
    reason there is.
    """

    answers: list[Answer]
    model_version: str
    source: str
    degraded_reason: str | None
    timings: Timings


class SimilarResponse(Struct, frozen=True):
    """Items like the one asked, best first, without it."""

    item: ItemId
    items: list[ItemId]
    scores: list[float]
    model_version: str
    source: str
    degraded_reason: str | None
    timings: Timings


class EventsResponse(Struct, frozen=True):
    """What is now durable: events stored by this request, and those that were there before."""

    stored: int
    duplicates: int


class HistoryResponse(Struct, frozen=True):
    """A user's newest items, oldest first."""

    user: str
    items: list[ItemId]


class ErasedResponse(Struct, frozen=True):
    """How many events of the user were removed."""

    user: str
    erased: int


class ItemInfo(Struct, frozen=True):
    """What is known of an item."""

    id: ItemId
    known: bool
    title: str | None = None
    categories: list[str] = []


class ItemsResponse(Struct, frozen=True):
    """One entry an id asked, in order."""

    items: list[ItemInfo]
    model_version: str


class BundleResponse(Struct, frozen=True):
    """What is served."""

    model_version: str
    digest: str
    name: str
    model: str
    items: int
    length: int
    origin: dict[str, Any]
    versions: dict[str, str]


class ReloadResponse(Struct, frozen=True):
    """The version that serves from now on, and the one before it."""

    model_version: str
    previous: str
    seconds: float


class StateResponse(Struct, frozen=True):
    """It is so; a refusal says what speaks against it."""

    ok: bool


class Problem(Struct, frozen=True):
    """Why a request was not answered: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorResponse(Struct, frozen=True):
    """What every refusal carries."""

    error: Problem


def decode(body: bytes, kind: type[T]) -> T:
    """`body` as the struct `kind`; BadRequest says what is wrong and where."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadRequest(f"the body is not a {kind.__name__}: {e}") from None


class BadType(ServingError):
    """A body that does not say it is JSON: a browser would send it for any page's asking."""


def check_type(kind: str | None) -> None:
    """BadType unless a Content-Type header says JSON."""
    if (kind or "").split(";")[0].strip().lower() != "application/json":
        raise BadType(f"send Content-Type: application/json, not {(kind or 'nothing')[:80]!r}")
