"""Settings of the service: strict, from TOML with dotted overrides, as recipes are."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from dimerec.config import Positive, Struct, Weight, convert, override
from dimerec.errors import ConfigError

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
Role = Literal["read", "ingest", "admin"]
Seconds = Annotated[float, Meta(gt=0.0, le=3600.0)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Token(Struct, frozen=True):
    """One bearer token: whose it is and what it may do.

    Attributes:
        name: the principal, in logs and for the rate limit; never a metric's label.
        sha256: SHA-256 (hex) of the token; the token itself stands in no file of the service.
        roles: "read" asks, "ingest" writes and erases histories, "admin" reloads. None implies
            another.
        tenant: histories are kept apart by tenant.
        rate: requests a second of this principal; 0 takes `limits.rate`.
    """

    name: Name
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    roles: Annotated[list[Role], Meta(min_length=1)]
    tenant: Name = "default"
    rate: Weight = 0.0


class Limits(Struct, frozen=True):
    """What is refused, and when.

    Attributes:
        in_flight: requests inside at once; more are refused before their bodies are read.
        queue: queries waiting for the model.
        batch: queries the model is given at once.
        deadline: seconds within which a request is answered or refused.
        body_bytes, body_seconds: the largest body, and the time it may take to come.
        header_bytes, header_seconds: the same of a request's head, and of an idle connection.
        connections: open at once.
        history: newest events of a user that are read.
        rate: requests a second of each principal; 0 means no limit.
        burst: requests that may come at once after a pause, in seconds of the rate.
        store: seconds that the history store may take to answer before it counts as down.
        stalled: seconds on one batch after which the model counts as stuck.
    """

    in_flight: Positive = 256
    queue: Positive = 256
    batch: Positive = 32
    deadline: Seconds = 1.0
    body_bytes: Annotated[int, Meta(ge=1024, le=2**28)] = 2**20
    body_seconds: Seconds = 5.0
    header_bytes: Annotated[int, Meta(ge=1024, le=2**20)] = 2**15
    header_seconds: Seconds = 10.0
    connections: Positive = 1024
    history: Annotated[int, Meta(ge=1, le=100_000)] = 500
    rate: Weight = 0.0
    burst: Seconds = 1.0
    store: Seconds = 0.25
    stalled: Seconds = 30.0


class Settings(Struct, frozen=True):
    """Everything that decides how a bundle is served.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        store: of histories: sqlite:///FILE, redis://HOST:PORT/DB or memory:.
        index: URL of the Qdrant server that searches, http(s)://HOST:PORT, with what
            `dimerec index --remote` put there; empty searches in this process.
        admin: from where admin routes may be called: "loopback", or "anywhere".
        drain: seconds after SIGTERM in which requests are still taken while `/ready` says no.
        threads: CPU threads of the model; one answers small batches soonest.
        limits, tokens: see there. Without tokens the service is open, on loopback only.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    store: str = "sqlite:///histories.db"
    index: Annotated[str, Meta(pattern=r"^(https?://[^/?#@\s]+/?)?\Z")] = ""
    admin: Literal["loopback", "anywhere"] = "loopback"
    drain: Annotated[float, Meta(ge=0.0, le=600.0)] = 1.0
    threads: Positive = 1
    limits: Limits = Limits()
    tokens: list[Token] = []

    def __post_init__(self) -> None:
        if not self.tokens and self.host not in LOOPBACK:
            raise ValueError(
                f"host {self.host} can be reached from outside, so there must be tokens: "
                "add [[tokens]] to the settings, or listen on 127.0.0.1"
            )
        for field in ("name", "sha256"):
            values = [getattr(token, field) for token in self.tokens]
            if len(set(values)) != len(values):
                raise ValueError(f"each token needs a {field} of its own")


def load(path: Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Settings from a TOML file (or the defaults), with `key.sub=value` overrides applied.

    Raises:
        ConfigError: no such file, broken TOML, unknown key, value out of range, or a service
            that would be open to everybody.
    """
    tree: dict[str, Any] = {}
    where = "settings of the service" if path is None else str(path)
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise ConfigError(f"{where}: not readable settings in TOML ({e})") from e
    for item in overrides:
        override(tree, item)
    return convert(tree, Settings, where)
