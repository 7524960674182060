"""Tokens of users: short access tokens, refresh tokens that turn, both ended by id and never by their text.

What a token must look like is in jwt_rules.py, with which keys it is signed in keyring.py, what a session is in
sessions.py. Verifying takes a hash, a look at the key file and two look-ups of revocations once the token is known;
what is known of it is kept by its hash, and judged anew each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from chimera.core.clock import Clock
from chimera.core.errors import InputError, TokenReused, Unauthenticated
from chimera.core.types import Frozen
from chimera.security.jwt_rules import (
    ACCESS,
    LEEWAY_S,
    MAX_BYTES,
    REFRESH,
    Claims,
    Rules,
    Type,
    check_times,
    decode,
    encode,
)
from chimera.security.keyring import KeyRing, SigningKey
from chimera.security.principal import Kind, Principal
from chimera.security.roles import Permission, Role
from chimera.security.sessions import Sessions

__all__ = ["Identity", "JWTManager", "KeyRing", "Revocations", "SigningKey", "TokenPair"]

MAX_ACCESS_S = 3_600.0
MAX_REFRESH_S = 90 * 86_400.0
MAX_CACHED = 100_000


class Revocations(Protocol):
    """What was revoked, by id."""

    def is_revoked(self, id: str) -> bool: ...

    def revoke(self, id: str, until: float) -> None:
        """Refuse `id`, at least until `until` (wall seconds). Durable when it returns; called in a thread."""
        ...


class TokenPair(Frozen):
    """What somebody who logged in is given. Seconds count from now. The texts are secret, and not in its repr."""

    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False)
    token_type: str = "Bearer"
    expires_in: int
    refresh_expires_in: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token is to be for."""

    subject: str
    role: Role
    kind: Kind = "user"
    scopes: frozenset[Permission] | None = None
    tenant: str = ""


class JWTManager:
    """Issues, verifies, refreshes and revokes tokens of one issuer for one audience.

    An access token lasts `access_s`, a session without being refreshed `refresh_s`, and in all `session_s`. `ring`
    must keep retired keys for as long as the longest of them. At most `max_cached` verified tokens are remembered.
    """

    def __init__(
        self,
        ring: KeyRing,
        sessions: Sessions,
        revocations: Revocations,
        *,
        clock: Clock,
        issuer: str = "chimera",
        audience: str = "chimera-api",
        access_s: float = 900.0,
        refresh_s: float = 7 * 86_400.0,
        session_s: float = 30 * 86_400.0,
        max_cached: int = 10_000,
    ) -> None:
        if not 1.0 <= access_s <= MAX_ACCESS_S or not access_s <= refresh_s <= session_s <= MAX_REFRESH_S:
            raise InputError(
                f"{access_s=}, {refresh_s=}, {session_s=}: give 1 <= access_s <= {MAX_ACCESS_S:.0f} and"
                f" access_s <= refresh_s <= session_s <= {MAX_REFRESH_S:.0f}"
            )
        if not 0 <= max_cached <= MAX_CACHED or not issuer or not audience:
            raise InputError(f"{max_cached=}: give 0 to {MAX_CACHED}, and an issuer and an audience")
        self.ring = ring
        self._sessions = sessions
        self._revocations = revocations
        self._clock = clock
        self._session_s = session_s
        self._rules = Rules(issuer, audience, access_s, refresh_s)
        self._known: OrderedDict[bytes, tuple[Claims, Principal]] = OrderedDict()
        self._max_cached = max_cached
        self._lock = threading.Lock()

    def verify(self, token: object) -> Principal:
        """Who an access token stands for. Raises Unauthenticated, saying why; quick and sync."""
        digest = None
        if isinstance(token, str) and len(token) <= MAX_BYTES:
            digest = hashlib.sha256(token.encode(errors="replace")).digest()
        with self._lock:
            known = None if digest is None else self._known.get(digest)
        if known is None or self.ring.find(known[0].kid) is None:
            claims = decode(self.ring, self._rules, token, ACCESS)
            known = (claims, _principal(claims))
        try:
            self._judge(known[0])
        except Unauthenticated:
            self._forget(digest)
            raise
        self._remember(digest, known)
        return known[1]

    async def issue(self, identity: Identity) -> TokenPair:
        """Begin a session."""
        sid, jti = _new_id(), _new_id()
        ends_at = self._clock.now() + self._session_s
        crowded = await self._sessions.start(sid, identity.subject, jti, ends_at)
        for ended in crowded:
            await self.refuse(ended.sid, ended.ends_at)
        return self._pair(identity, sid, jti, ends_at)

    async def refresh(self, token: object, who: Callable[[str], Identity | None]) -> TokenPair:
        """The next pair of a session, for a refresh token that was not used before. `who` says who a subject is now.

        Raises Unauthenticated; if it was used before, then after the whole session was revoked, access tokens too.
        """
        claims = decode(self.ring, self._rules, token, REFRESH)
        self._judge(claims)
        identity = who(claims.subject)
        if identity is None:
            raise Unauthenticated("the token is refused: its user may not log in any more")
        jti = _new_id()
        turn, family = await self._sessions.turn(claims.jti, jti)
        if turn == "fresh" and family is not None:
            return self._pair(identity, family.sid, jti, family.ends_at)
        if family is not None:
            await self.refuse(family.sid, family.ends_at)
        if turn == "reused":
            raise TokenReused(
                "the token is refused: it was used before, so its session is over; log in again", claims.subject
            )
        raise Unauthenticated("the token is refused: its session is over; log in again")

    async def revoke(self, token: object) -> Claims:
        """End the session that an access or a refresh token belongs to. Raises Unauthenticated if it is not ours."""
        try:
            claims = decode(self.ring, self._rules, token, ACCESS)
        except Unauthenticated:
            claims = decode(self.ring, self._rules, token, REFRESH)
        await self._sessions.end(claims.sid)
        await self.refuse(claims.jti, claims.expires_at)
        await self.refuse(claims.sid, self._clock.now() + self._session_s)
        return claims

    async def end_sessions(self, subject: str) -> int:
        """End all sessions of somebody: access tokens too. How many there were."""
        ended = await self._sessions.end_all(subject)
        for session in ended:
            await self.refuse(session.sid, session.ends_at)
        return len(ended)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return self.ring.jwks()

    async def refuse(self, id: str, until: float) -> None:
        """Refuse whatever has this id (a token's, a session's, a key's) until then (wall seconds)."""
        await asyncio.to_thread(self._revocations.revoke, id, until + LEEWAY_S)

    def _judge(self, claims: Claims) -> None:
        check_times(claims, self._clock.now())
        if self._revocations.is_revoked(claims.jti) or self._revocations.is_revoked(claims.sid):
            raise Unauthenticated("the token is refused: it was revoked; log in again")

    def _pair(self, identity: Identity, sid: str, refresh_jti: str, ends_at: float) -> TokenPair:
        now = int(self._clock.now())
        access_s = int(min(self._rules.access_s, max(1.0, ends_at - now)))
        refresh_s = int(min(self._rules.refresh_s, max(1.0, ends_at - now)))
        access = self._base(ACCESS, identity.subject, sid, _new_id(), now, access_s)
        access |= {"role": identity.role.value, "kind": identity.kind}
        if identity.scopes is not None:
            access["scope"] = " ".join(sorted(identity.scopes))
        if identity.tenant:
            access["tenant"] = identity.tenant
        refresh = self._base(REFRESH, identity.subject, sid, refresh_jti, now, refresh_s)
        return TokenPair(
            access_token=encode(self.ring, ACCESS, access),
            refresh_token=encode(self.ring, REFRESH, refresh),
            expires_in=access_s,
            refresh_expires_in=refresh_s,
        )

    def _base(self, typ: Type, subject: str, sid: str, jti: str, now: int, lasts_s: int) -> dict[str, object]:
        audience = self._rules.audience_of(typ)
        times = {"iat": now, "nbf": now, "exp": now + lasts_s}
        return {"iss": self._rules.issuer, "aud": audience, "sub": subject, "jti": jti, "sid": sid, **times}

    def _remember(self, digest: bytes | None, known: tuple[Claims, Principal]) -> None:
        if digest is None or not self._max_cached:
            return
        with self._lock:
            self._known[digest] = known
            self._known.move_to_end(digest)
            if len(self._known) > self._max_cached:
                self._known.popitem(last=False)

    def _forget(self, digest: bytes | None) -> None:
        with self._lock:
            if digest is not None:
                self._known.pop(digest, None)


def _principal(claims: Claims) -> Principal:
    assert claims.role is not None
    return Principal(
        subject=claims.subject,
        role=claims.role,
        kind=claims.kind,
        scopes=claims.scopes,
        token_id=claims.jti,
        expires_at=float(claims.expires_at),
        tenant=claims.tenant,
    )


def _new_id() -> str:
    return secrets.token_urlsafe(16)
