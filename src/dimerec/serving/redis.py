"""Histories in Redis 7, for services of more than one machine.

A Lua script tells new events from old ones and adds them in one step. Redis keeps what it
acknowledged only with an append-only file that is synced at every write (`--appendonly yes
--appendfsync always`), so a server set up otherwise is refused.

Keys, for a tenant t and a user u written as JSON: `dimerec:[t]:arrivals` counts,
`dimerec:[t,u]` is a sorted set of "arrival item" by time, and `dimerec:[t]:seen:xxxxx` are hashes
of the digests of event ids by their first five hexadecimal digits: small, so Redis packs them.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from dimerec.errors import ConfigError, Overloaded, StoreUnavailable
from dimerec.serving.history import KEEP, Event, HistoryStore, digest, plain, storable
from dimerec.vocabulary import Id

T = TypeVar("T")
CONNECTIONS = 64
CONNECT, ANSWER, TURN = 1.0, 2.0, 1.0  # seconds: to connect, for an answer, for a turn
REST = 0.5  # seconds without another try after the server was found down
BATCH = 500  # events a script call: Redis does nothing else meanwhile

# KEYS: the counter, then of each event the hash of its digest and its user's history.
# ARGV: keep, then of each event the rest of its digest, its time and its item.
_APPEND = """
local stored, keep = {}, -tonumber(ARGV[1]) - 1
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local arrival = before
for i = 1, (#KEYS - 1) / 2 do
  local new = redis.call('HSETNX', KEYS[2 * i], ARGV[3 * i - 1], '')
  stored[i] = new
  if new == 1 then
    arrival = arrival + 1
    local history = KEYS[2 * i + 1]
    redis.call('ZADD', history, ARGV[3 * i], string.format('%016.0f ', arrival) .. ARGV[3 * i + 1])
    redis.call('ZREMRANGEBYRANK', history, 0, keep)
  end
end
if arrival > before then
  redis.call('SET', KEYS[1], string.format('%.0f', arrival))
end
return stored
"""

_NEEDED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_logger = logging.getLogger(__name__)


class RedisStore(HistoryStore):
    """Histories in a Redis database, shared by any number of processes."""

    def __init__(self, url: str, keep: int = KEEP) -> None:
        """
        Raises:
            ConfigError: the URL cannot be read, or the extra `redis` is not installed.
            StoreUnavailable: no server answers, it is too old, or would not keep what it
                acknowledges.
        """
        try:
            import redis
            from redis import exceptions
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as e:
            raise ConfigError(f"{plain(url)}: install the extra: pip install dimerec[redis]") from e
        self._name, self._keep = plain(url), keep
        self._errors = exceptions
        self._turns = threading.BoundedSemaphore(CONNECTIONS)
        self._down_until, self._closed, self._warned = 0.0, False, False
        try:
            self._pool = redis.ConnectionPool.from_url(
                url,
                socket_connect_timeout=CONNECT,
                socket_timeout=ANSWER,
                retry=Retry(NoBackoff(), 0),  # to send again is the caller's to decide
            )
        except ValueError as e:
            raise ConfigError(f"{self._name}: {e}") from e
        self._redis: Any = redis.Redis(connection_pool=self._pool)
        self._script = self._redis.register_script(_APPEND)
        try:
            self._told(self._check)
        except BaseException:
            self._pool.disconnect()
            raise

    def append(self, tenant: str, events: Sequence[Event]) -> list[bool]:
        stored: list[bool] = []
        for start in range(0, len(events), BATCH):
            keys, values = [_key(tenant) + b":arrivals"], [self._keep]
            for event in events[start : start + BATCH]:
                id = digest(tenant, event.event_id)
                keys += [
                    _key(tenant) + b":seen:" + id.hex()[:5].encode(),
                    _key(tenant, str(event.user)),
                ]
                values += [id[2:], event.time, msgspec.json.encode(event.item)]
            stored += map(bool, self._told(lambda k=keys, v=values: self._script(k, v)))
        return stored

    def read(self, tenant: str, user: Id, limit: int) -> list[Id]:
        if limit < 1 or not storable(user):
            return []
        key = _key(tenant, str(user))
        members = self._told(lambda: self._redis.zrange(key, -min(limit, self._keep), -1))
        return [msgspec.json.decode(member.partition(b" ")[2]) for member in members]

    def erase(self, tenant: str, user: Id) -> int:
        if not storable(user):
            return 0
        key = _key(tenant, str(user))

        def work() -> int:
            with self._redis.pipeline(transaction=True) as both:
                return both.zcard(key).delete(key).execute()[0]

        return self._told(work)

    def healthy(self) -> bool:
        try:
            self._told(self._check)
            self._told(lambda: self._redis.set("dimerec:healthy", 1))
        except Exception:
            return False
        return True

    def close(self) -> None:
        self._closed = True
        self._pool.disconnect()

    def _check(self) -> None:
        """Whether the server keeps what it acknowledges."""
        version = str(self._redis.info("server")["redis_version"])
        if int(version.split(".")[0]) < 7:
            raise StoreUnavailable(f"{self._name}: Redis {version}; 7 or later is needed")
        try:
            found = self._redis.config_get("append*", "maxmemory*")
        except self._errors.ResponseError as e:
            if not self._warned:
                self._warned = True
                _logger.warning(
                    "%s: does not say whether it keeps what it is given (%s); it must "
                    "run with --appendonly yes --appendfsync always",
                    self._name,
                    e,
                )
            return
        wrong = [
            f"{name} is {found.get(name)}"
            for name, wanted in _NEEDED.items()
            if found.get(name) != wanted
        ]
        if wrong:
            raise StoreUnavailable(
                f"{self._name}: would lose histories it acknowledged ({', '.join(wrong)}); start "
                "it with --appendonly yes --appendfsync always --maxmemory-policy noeviction"
            )

    def _told(self, work: Callable[[], T]) -> T:
        """The result of `work`; what goes wrong, as StoreUnavailable with a way out."""
        if self._closed:
            raise StoreUnavailable(f"{self._name}: this store was closed")
        if time.monotonic() < self._down_until:
            raise StoreUnavailable(f"{self._name}: was down a moment ago; see to the server")
        if not self._turns.acquire(timeout=TURN):
            raise Overloaded(f"{self._name}: {CONNECTIONS} requests are on their way; try later")
        try:
            return work()
        except self._errors.AuthenticationError as e:
            raise StoreUnavailable(f"{self._name}: name and password in the URL: {e}") from e
        except (self._errors.ConnectionError, self._errors.TimeoutError, OSError) as e:
            self._down_until = time.monotonic() + REST
            raise StoreUnavailable(f"{self._name}: no answer; see to the server ({e})") from e
        except self._errors.RedisError as e:
            raise StoreUnavailable(
                f"{self._name}: refused; see to its memory and disk ({e})"
            ) from e
        finally:
            self._turns.release()


def _key(*parts: str) -> bytes:
    return b"dimerec:" + msgspec.json.encode(parts)
