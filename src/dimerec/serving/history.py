"""What users did, kept: one contract for every store of histories, and the store in memory.

Events may come twice, late and out of order (at least once); their effect is exactly once. An
event's id is what makes it one: unique per tenant, remembered after the event itself is gone.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from dimerec.config import Struct
from dimerec.errors import ConfigError, StoreUnavailable
from dimerec.vocabulary import Id

KEEP = 500  # events a user, unless the URL says otherwise
MAX_TIME = 253_402_300_799  # the end of the year 9999: milliseconds are refused
_INT64 = 1 << 63
_ID = (
    Annotated[int, Meta(ge=-_INT64, le=_INT64 - 1)]
    | Annotated[str, Meta(min_length=1, max_length=512)]
)


class Event(Struct, frozen=True):
    """One thing a user did.

    Attributes:
        user, item: ids; an integer of 64 bits, or 1 to 512 characters. 7 and "7" are one user
            (an address on the web knows no difference) but two items.
        time: Unix seconds, 0 to the end of the year 9999.
        event_id: what makes a second delivery of the event known as one; 1 to 512 characters,
            unique per tenant. It should say nothing about the user: its digest outlives `erase`.

    Raises:
        ValueError: a value out of these bounds (decoding reports it as a validation error).
    """

    user: _ID
    item: _ID
    time: Annotated[int, Meta(ge=0, le=MAX_TIME)]
    event_id: Annotated[str, Meta(min_length=1, max_length=512)]

    def __post_init__(self) -> None:
        for name in ("user", "item", "event_id"):
            value = getattr(self, name)
            if not storable(value) or (name == "event_id" and isinstance(value, int)):
                raise ValueError(f"{name} must be 1 to 512 characters of text or a 64-bit integer")
        if type(self.time) is not int or not 0 <= self.time <= MAX_TIME:
            raise ValueError(f"time must be Unix seconds, an integer in 0..{MAX_TIME}")


def storable(id: object) -> bool:
    """Whether an event can have this id for its user or item."""
    if isinstance(id, str):
        # isascii is quick; what is no UTF-8 (half a surrogate pair) cannot be stored
        return 0 < len(id) <= 512 and (id.isascii() or _is_utf8(id))
    return type(id) is int and -_INT64 <= id < _INT64


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class HistoryStore(ABC):
    """Histories of many tenants, each blind to the others. Safe to use from many threads.

    A store keeps the last `keep` events of a user, in the order (time, arrival). Every method
    raises StoreUnavailable when the store cannot do its work: it is down, full, corrupt or
    closed. After an error nothing is half done, and the same call may be made again.
    """

    @abstractmethod
    def append(self, tenant: str, events: Sequence[Event]) -> list[bool]:
        """Store events; returns when they are as durable as the store makes them.

        Returns:
            For each event, True: stored now. False: an event of this id was there already, so
            this one changed nothing, whatever it holds. An event older than the `keep` a full
            history holds is stored and trimmed in one step: True, and not read.

        Raises:
            StoreUnavailable: none or only some were stored; send them all again.
            Overloaded: too many events wait; none were stored.
        """

    @abstractmethod
    def read(self, tenant: str, user: Id, limit: int) -> list[Id]:
        """The items of the last `limit` events of `user`, oldest first, in the order
        (time, arrival); empty for a user nothing is known of."""

    @abstractmethod
    def erase(self, tenant: str, user: Id) -> int:
        """Forget the history of `user`; returns how many events were removed.

        Ids of events outlive them, as digests that name no user, item or time: what was once
        stored and is delivered again after the erasure stays away. Events never seen before
        start a new history.
        """

    @abstractmethod
    def healthy(self) -> bool:
        """Whether it could read and append now; never raises."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was accepted and let go of everything; a second time does nothing."""


def digest(tenant: str, event_id: str) -> bytes:
    """16 bytes that stand for an event id of a tenant."""
    text = msgspec.json.encode((tenant, event_id))
    return hashlib.blake2b(text, digest_size=16).digest()


class MemoryStore(HistoryStore):
    """Histories in this process, gone with it: for tests and demonstrations."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._seen: set[bytes] = set()
        self._events: dict[tuple[str, str], list[tuple[int, int, Id]]] = {}
        self._arrival = 0
        self._lock = threading.Lock()
        self._closed = False

    def append(self, tenant: str, events: Sequence[Event]) -> list[bool]:
        with self._lock:
            self._check_open()
            return [self._add(tenant, event) for event in events]

    def _add(self, tenant: str, event: Event) -> bool:
        key = digest(tenant, event.event_id)
        if key in self._seen:
            return False
        self._seen.add(key)
        history = self._events.setdefault((tenant, str(event.user)), [])
        self._arrival += 1
        insort(history, (event.time, self._arrival, event.item))
        if len(history) > self._keep:
            del history[0]
        return True

    def read(self, tenant: str, user: Id, limit: int) -> list[Id]:
        with self._lock:
            self._check_open()
            history = self._events.get((tenant, str(user)), [])[-limit:] if limit > 0 else []
        return [item for _, _, item in history]

    def erase(self, tenant: str, user: Id) -> int:
        with self._lock:
            self._check_open()
            return len(self._events.pop((tenant, str(user)), []))

    def healthy(self) -> bool:
        return not self._closed

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store in memory was closed")


def plain(url: str) -> str:
    """`url` without name, password and settings, for messages."""
    split = urlsplit(url)
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, "", ""))


FORMS = "sqlite:///FILE, redis://HOST:PORT/DB or memory:"


def open_store(url: str) -> HistoryStore:
    """The store a URL names.

    `sqlite:///FILE` is a file (`sqlite:///histories.db` in the current folder,
    `sqlite:////var/lib/dimerec/histories.db` anywhere), `redis://HOST:PORT/DB` a Redis server
    (the extra `redis`), `memory:` this process. `?keep=N` behind any of them sets how many events
    a user has at most.

    Raises:
        ConfigError: no such kind of store, or a setting it does not know.
        StoreUnavailable: the store cannot be opened, is corrupt or does not keep its promises.
    """
    address, _, query = url.partition("?")
    name = plain(address) if "@" in address else address
    settings: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    keep = settings.pop("keep", str(KEEP))
    if settings:
        raise ConfigError(f"{name}: a store knows no setting {', '.join(settings)}, only keep=N")
    if not (keep.isascii() and keep.isdigit() and 0 < int(keep) <= 1_000_000):
        raise ConfigError(f"{name}: keep={keep} must be a number of events in 1..1000000")
    if address in ("memory:", "memory://"):
        return MemoryStore(int(keep))
    if address.startswith("sqlite:///") and len(address) > len("sqlite:///"):
        from dimerec.serving.sqlite import SqliteStore

        return SqliteStore(address.removeprefix("sqlite:///"), int(keep))
    if address.startswith(("redis://", "rediss://")):
        from dimerec.serving.redis import RedisStore

        return RedisStore(address, int(keep))
    raise ConfigError(f"{name}: not the URL of a store; it is {FORMS}")
