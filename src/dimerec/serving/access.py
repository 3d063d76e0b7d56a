"""Who is asking and what they may do: bearer tokens with roles, tenants, and the loopback rule."""

import hashlib
import hmac
from collections.abc import Mapping

import msgspec

from dimerec.errors import ServingError
from dimerec.serving.settings import Role, Settings, Token

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
MAX_TOKEN = 1024  # characters


class Unauthenticated(ServingError):
    """No token, or none that is known."""


class Forbidden(ServingError):
    """A known principal, but not allowed to do this."""


class Principal(msgspec.Struct, frozen=True):
    """Who is asking: a token's name, tenant, roles, and requests a second (0: no limit)."""

    name: str
    tenant: str
    roles: frozenset[str]
    rate: float


class Access:
    """Decides from a request's headers and peer alone, before its body is read."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = [(bytes.fromhex(t.sha256), _principal(t, settings)) for t in settings.tokens]
        everything = frozenset({"read", "ingest", "admin"})
        self._open = Principal("anybody", "default", everything, settings.limits.rate)
        self._anywhere = settings.admin == "anywhere"

    def principal(
        self, headers: Mapping[str, str], peer: str | None, role: Role | None
    ) -> Principal:
        """Who is asking, allowed to act in `role` (None: no token is needed).

        Every known digest is compared, in constant time, so the time taken tells nothing.

        Args:
            headers: of the request, lower-case names.
            peer: address at the other end of the connection.

        Raises:
            Unauthenticated: tokens are needed, and this request carries none that is known.
            Forbidden: the token lacks the role, or an admin route is called from elsewhere.
        """
        if role is None:
            return self._open
        principal = self._open if not self._tokens else self._known(headers.get("authorization"))
        if role not in principal.roles:
            raise Forbidden(f"this token does not have the role {role!r}")
        if role == "admin" and not self._anywhere and not _loopback(headers, peer):
            raise Forbidden(
                "admin routes are taken from this machine alone, and not through a proxy; "
                'to change that, set admin = "anywhere"'
            )
        return principal

    def _known(self, header: str | None) -> Principal:
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token.strip()) <= MAX_TOKEN:
            raise Unauthenticated("a token is needed: Authorization: Bearer TOKEN")
        digest = hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()
        found: Principal | None = None
        for known, principal in self._tokens:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthenticated("this token is not known")
        return found


def _principal(token: Token, settings: Settings) -> Principal:
    rate = token.rate or settings.limits.rate
    return Principal(token.name, token.tenant, frozenset(token.roles), rate)


def _loopback(headers: Mapping[str, str], peer: str | None) -> bool:
    """Whether the request began on this machine: a proxy's would come from here, too."""
    here = peer is not None and (peer.startswith("127.") or peer in ("::1", "::ffff:127.0.0.1"))
    return here and not any(name in headers for name in FORWARDED)
