"""What a token of Chimera looks like, to the letter; whatever looks otherwise is refused. Pure, but for the signature.

PyJWT checks the signature, with the algorithm of the key and never the token's. All else is checked here, because its
defaults take more than they should: a missing or endless `exp`, duplicate names, any `typ`, megabytes.
Source: RFC 8725 (best current practices), RFC 9068 (access tokens), RFC 7515 section 4.1.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from chimera.core.errors import InputError, Unauthenticated
from chimera.security.keyring import KeyRing
from chimera.security.principal import Kind
from chimera.security.roles import Permission, Role, parse_scopes

MAX_BYTES = 8_192
LEEWAY_S = 10.0
"""By how much the clocks of two machines may differ."""

Type = Literal["at+jwt", "rt+jwt"]
ACCESS: Type = "at+jwt"
REFRESH: Type = "rt+jwt"

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
_HEADER = {"alg", "typ", "kid"}
_REQUIRED = {"iss", "aud", "sub", "exp", "iat", "jti", "sid"}
_ACCESS_ONLY = {"role", "kind"}
_OPTIONAL = {"nbf", "scope", "tenant"}
_KINDS: tuple[Kind, ...] = ("user", "api_key", "node", "agent")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says, checked. Times are whole wall seconds. A refresh token has no role: it is looked up anew."""

    subject: str
    jti: str
    sid: str
    kid: str
    issued_at: int
    not_before: int
    expires_at: int
    role: Role | None = None
    kind: Kind = "user"
    scopes: frozenset[Permission] | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Who issues tokens, for whom, and how long (seconds) one of a type may last."""

    issuer: str
    audience: str
    access_s: float
    refresh_s: float

    def audience_of(self, typ: Type) -> str:
        """Refresh tokens are for the issuer alone: no resource takes one, even if it forgot to look at `typ`."""
        return self.audience if typ == ACCESS else f"{self.issuer}/refresh"

    def longest_s(self, typ: Type) -> float:
        return self.access_s if typ == ACCESS else self.refresh_s


def encode(ring: KeyRing, typ: Type, claims: dict[str, object]) -> str:
    """A signed token."""
    import jwt

    key = ring.current()
    payload = json.dumps(claims, separators=(",", ":")).encode()
    token = jwt.PyJWS().encode(payload, key.private, key.algorithm, headers={"typ": typ, "kid": key.kid})
    if len(token) > MAX_BYTES:
        raise InputError(f"a token of {len(token)} bytes is too long: narrow its scopes")
    return token


def decode(ring: KeyRing, rules: Rules, token: object, typ: Type) -> Claims:
    """What a token says, if its form, type, key and signature are right. The times are left to `check_times`.

    Raises Unauthenticated, which says what is wrong and quotes nothing of the token.
    """
    if not isinstance(token, str):
        _refuse("it is not text")
    if len(token) > MAX_BYTES:
        _refuse(f"it is longer than {MAX_BYTES} bytes")
    if _FORM.fullmatch(token) is None:
        _refuse("it does not have three parts in base64url")
    signed, _, signature = token.rpartition(".")
    head, _, payload = signed.partition(".")
    header = _json(_bytes(head), "header")
    if set(header) != _HEADER:
        _refuse("its header does not hold alg, typ and kid, and nothing else")
    if header["typ"] != typ:
        _refuse(f"its type is not {typ}")
    key = ring.find(header["kid"])
    if key is None:
        _refuse("its key is not known, or no longer")
    if header["alg"] != key.algorithm:
        _refuse("its algorithm is not its key's")
    if not _algorithms()[key.algorithm].verify(signed.encode(), key.public, _bytes(signature)):
        _refuse("its signature is wrong")
    return _claims(_json(_bytes(payload), "claims"), rules, typ, key.kid)


def check_times(claims: Claims, now: float) -> None:
    """Raises Unauthenticated unless the token is good at `now` (wall seconds), give or take LEEWAY_S."""
    if now >= claims.expires_at + LEEWAY_S:
        _refuse("it has expired")
    if now < claims.not_before - LEEWAY_S:
        _refuse("it is not good yet")
    if now < claims.issued_at - LEEWAY_S:
        _refuse("it was issued in the future")


def _claims(said: dict[str, Any], rules: Rules, typ: Type, kid: str) -> Claims:
    required = _REQUIRED | _ACCESS_ONLY if typ == ACCESS else _REQUIRED
    if missing := sorted(required - set(said)):
        _refuse(f"it has no {missing[0]}")
    if set(said) - required - _OPTIONAL:
        _refuse("it has claims that are not known")
    if said["iss"] != rules.issuer:
        _refuse("its issuer is another")
    if said["aud"] != rules.audience_of(typ):  # a list, too, though the right one be in it
        _refuse("it is for another audience")
    issued_at, expires_at = _time(said, "iat"), _time(said, "exp")
    if not issued_at < expires_at <= issued_at + rules.longest_s(typ):
        _refuse("it lasts longer than a token may")
    for name in ("jti", "sid"):
        if not isinstance(said[name], str) or _ID.fullmatch(said[name]) is None:
            _refuse(f"its {name} is not an id")
    return Claims(
        subject=_text(said, "sub", 1),
        jti=said["jti"],
        sid=said["sid"],
        kid=kid,
        issued_at=issued_at,
        not_before=_time(said, "nbf") if "nbf" in said else issued_at,
        expires_at=expires_at,
        role=_role(said["role"]) if typ == ACCESS else None,
        kind=_kind(said["kind"]) if typ == ACCESS else "user",
        scopes=_scopes(said["scope"]) if "scope" in said else None,
        tenant=_text(said, "tenant", 0) if "tenant" in said else "",
    )


def _time(said: dict[str, Any], name: str) -> int:
    value = said[name]
    if type(value) is not int or not 0 <= value < 2**40:  # a bool is an int
        _refuse(f"its {name} is not a time in whole seconds")
    return value


def _text(said: dict[str, Any], name: str, at_least: int) -> str:
    value = said[name]
    if not isinstance(value, str) or not at_least <= len(value) <= 128:
        _refuse(f"its {name} is not a short text")
    return value


def _role(value: object) -> Role:
    if not isinstance(value, str) or value not in set(Role):
        _refuse("its role is not known")
    return Role(value)


def _kind(value: object) -> Kind:
    if value not in _KINDS:
        _refuse("its kind is not known")
    return value


def _scopes(value: object) -> frozenset[Permission]:
    if not isinstance(value, str):
        _refuse("its scope is not text")
    try:
        return parse_scopes(value.split(" ")) if value else frozenset()
    except InputError:
        _refuse("its scope is not known")


@functools.cache
def _algorithms() -> dict[str, Any]:
    """PyJWT's. Making them for each token, as its `decode` does, costs as much as the signature."""
    from jwt.algorithms import get_default_algorithms

    return dict(get_default_algorithms())


def _bytes(part: str) -> bytes:
    """Base64url in its one right form: bits that count for nothing are zero."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        _refuse("it does not have three parts in base64url")
    return data


def _json(data: bytes, what: str) -> dict[str, Any]:
    """An object of JSON. No name twice: of two parsers, one may believe the first and the other the last."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _refuse(f"its {what} cannot be read")
    if not isinstance(value, dict):
        _refuse(f"its {what} is not an object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(why: str) -> NoReturn:
    raise Unauthenticated(f"the token is refused: {why}; log in again")
