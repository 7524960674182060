"""Tokens under attack: RFC 8725's list and what PyJWT's defaults would let through, refused each for its own reason."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, TokenReused, Unauthenticated
from chimera.security.jwt_manager import Identity, JWTManager, KeyRing, TokenPair
from chimera.security.jwt_rules import LEEWAY_S
from chimera.security.roles import Permission, Role
from chimera.security.sessions import MAX_FAMILIES, Sessions
from chimera.security.store import SecurityStore
from tests.unit.security.identity import START_S

NOW = int(START_S)
ADA = Identity("ada", Role.OPERATOR)
DAY_S = 86_400.0


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Desk:
    """A manager, and the means to forge what it would read."""

    tokens: JWTManager
    clock: ManualClock
    store: SecurityStore
    folder: Path

    @property
    def key(self) -> Any:
        return self.tokens.ring.current()

    def header(self, **changes: Any) -> dict[str, Any]:
        return _without_none({"alg": "EdDSA", "typ": "at+jwt", "kid": self.key.kid, **changes})

    def claims(self, **changes: Any) -> dict[str, Any]:
        good = {
            "iss": "chimera",
            "aud": "chimera-api",
            "sub": "ada",
            "exp": NOW + 600,
            "iat": NOW,
            "jti": "j" * 22,
            "sid": "s" * 22,
            "role": "admin",
            "kind": "user",
        }
        return _without_none({**good, **changes})

    def raw(self, header: str | bytes, payload: str | bytes, sign: Callable[[bytes], bytes] | None = None) -> str:
        """A token of any bytes, signed by the right key unless told otherwise."""
        parts = [b64(part.encode() if isinstance(part, str) else part) for part in (header, payload)]
        signing = ".".join(parts).encode()
        return ".".join([*parts, b64((sign or self.key.private.sign)(signing))])

    def token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return self.raw(json.dumps(self.header(**(header or {}))), json.dumps(self.claims(**changes)))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = ManualClock(START_S)
    store = SecurityStore(tmp_path / "security.db", clock=clock)
    ring = KeyRing(tmp_path, clock=clock, keep_s=7 * DAY_S + LEEWAY_S)
    yield Desk(JWTManager(ring, Sessions(store, clock=clock), store, clock=clock), clock, store, tmp_path)
    store.close()


def pem(desk: Desk) -> bytes:
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    found: bytes = desk.key.public.public_bytes(serialization.Encoding.PEM, public)
    return found


def signed_with_hmac(desk: Desk, secret: bytes) -> str:
    return desk.raw(
        json.dumps(desk.header(alg="HS256")),
        json.dumps(desk.claims()),
        lambda text: hmac.new(secret, text, hashlib.sha256).digest(),
    )


def signed_by(desk: Desk, private: Any, algorithm: str, **header: Any) -> str:
    return jwt.encode(desk.claims(), private, algorithm, headers=desk.header(alg=algorithm, **header))


def with_embedded_jwk(desk: Desk) -> str:
    mine = ed25519.Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(mine.public_key().public_bytes_raw())}
    return desk.raw(json.dumps(desk.header(jwk=jwk)), json.dumps(desk.claims()), mine.sign)


def malleable(desk: Desk) -> str:
    """The last character of 64 bytes in base64 has four bits that count for nothing."""
    token = desk.token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


ATTACKS: list[tuple[str, Callable[[Desk], Any], str]] = [
    ("no text", lambda d: None, "not text"),
    ("bytes", lambda d: d.token().encode(), "not text"),
    ("nothing", lambda d: "", "three parts"),
    ("two parts", lambda d: d.token().rpartition(".")[0], "three parts"),
    ("no signature", lambda d: d.token().rpartition(".")[0] + ".", "three parts"),
    ("four parts", lambda d: d.token() + ".AA", "three parts"),
    ("a line's end after it", lambda d: d.token() + "\n", "three parts"),
    ("white space before it", lambda d: " " + d.token(), "three parts"),
    ("padding", lambda d: d.token() + "==", "three parts"),
    ("not ASCII", lambda d: d.token() + "é", "three parts"),
    ("bits that count for nothing", malleable, "three parts"),
    ("8 MB", lambda d: "a" * 8_000_000, "longer than"),
    ("over 8 KB and well signed", lambda d: d.token(sub="a" * 9_000), "longer than"),
    ("alg none", lambda d: d.token({"alg": "none"}), "algorithm"),
    ("alg none, no signature to speak of", lambda d: d.token({"alg": "none"}).rpartition(".")[0] + ".AA", "algorithm"),
    ("alg nOnE", lambda d: d.token({"alg": "nOnE"}), "algorithm"),
    ("alg missing", lambda d: d.token({"alg": None}), "header"),
    ("alg a list", lambda d: d.token({"alg": ["EdDSA"]}), "algorithm"),
    ("HS256 with the public key's PEM", lambda d: signed_with_hmac(d, pem(d)), "algorithm"),
    ("HS256 with the public key's bytes", lambda d: signed_with_hmac(d, d.key.public.public_bytes_raw()), "algorithm"),
    ("HS256 with a key of 6 bytes", lambda d: signed_with_hmac(d, b"secret"), "algorithm"),
    ("HS256 with no key", lambda d: signed_with_hmac(d, b""), "algorithm"),
    ("RS256", lambda d: signed_by(d, rsa.generate_private_key(65537, 2048), "RS256"), "algorithm"),
    ("ES256", lambda d: signed_by(d, ec.generate_private_key(ec.SECP256R1()), "ES256"), "algorithm"),
    ("another key", lambda d: signed_by(d, ed25519.Ed25519PrivateKey.generate(), "EdDSA"), "signature"),
    ("a signature of zeros", lambda d: d.raw(json.dumps(d.header()), json.dumps(d.claims()), lambda _: b"\0" * 64),
     "signature"),
    ("another's payload", lambda d: ".".join([d.token().split(".")[0], b64(json.dumps(d.claims(sub="root")).encode()),
                                             d.token().split(".")[2]]), "signature"),
    ("kid missing", lambda d: d.token({"kid": None}), "header"),
    ("kid unknown", lambda d: d.token({"kid": "f" * 16}), "key is not known"),
    ("kid of a path", lambda d: d.token({"kid": "../../../../dev/null"}), "key is not known"),
    ("kid of a file that is there", lambda d: d.token({"kid": str(d.folder / "security.db")}), "key is not known"),
    ("kid of SQL", lambda d: d.token({"kid": "x' UNION SELECT 'key' --"}), "key is not known"),
    ("kid of a shell", lambda d: d.token({"kid": "|/usr/bin/id"}), "key is not known"),
    ("kid with a zero byte", lambda d: d.token({"kid": d.key.kid + "\0"}), "key is not known"),
    ("kid a number", lambda d: d.token({"kid": 0}), "key is not known"),
    ("kid a list", lambda d: d.token({"kid": [d.key.kid]}), "key is not known"),
    ("jwk in the header", with_embedded_jwk, "header"),
    ("jku", lambda d: d.token({"jku": "http://127.0.0.1/jwks.json"}), "header"),
    ("x5u", lambda d: d.token({"x5u": "http://127.0.0.1/cert.pem"}), "header"),
    ("x5c", lambda d: d.token({"x5c": ["AAAA"]}), "header"),
    ("crit", lambda d: d.token({"crit": ["exp"], "exp": 1}), "header"),
    ("crit, empty", lambda d: d.token({"crit": []}), "header"),
    ("b64 false", lambda d: d.token({"b64": False, "crit": ["b64"]}), "header"),
    ("zip", lambda d: d.token({"zip": "DEF"}), "header"),
    ("cty, a token within", lambda d: d.token({"cty": "JWT"}), "header"),
    ("typ JWT", lambda d: d.token({"typ": "JWT"}), "type"),
    ("typ missing", lambda d: d.token({"typ": None}), "header"),
    ("typ in capitals", lambda d: d.token({"typ": "AT+JWT"}), "type"),
    ("a refresh token", lambda d: d.token({"typ": "rt+jwt"}, aud="chimera/refresh"), "type"),
    ("a header with a name twice", lambda d: d.raw(json.dumps(d.header())[:-1] + ',"alg":"none"}',
                                                   json.dumps(d.claims())), "header cannot be read"),
    ("a header that is a list", lambda d: d.raw("[]", json.dumps(d.claims())), "not an object"),
    ("a header of brackets", lambda d: d.raw("[" * 3_000, json.dumps(d.claims())), "header cannot be read"),
    ("a header that is not UTF-8", lambda d: d.raw(b"\xff\xfe{}", json.dumps(d.claims())), "header cannot be read"),
    ("claims with a name twice", lambda d: d.raw(json.dumps(d.header()),
                                                 json.dumps(d.claims())[:-1] + ',"sub":"root"}'),
     "claims cannot be read"),
    ("claims of brackets", lambda d: d.raw(json.dumps(d.header()), "[" * 3_000), "claims cannot be read"),
    ("claims that are text", lambda d: d.raw(json.dumps(d.header()), '"admin"'), "not an object"),
    ("claims that are no JSON", lambda d: d.raw(json.dumps(d.header()), "{"), "claims cannot be read"),
    *((f"{name} missing", lambda d, name=name: d.token(**{name: None}), f"no {name}")
      for name in ("exp", "iat", "sub", "aud", "iss", "jti", "sid", "role", "kind")),
    ("exp as text", lambda d: d.token(exp=str(NOW + 600)), "exp is not a time"),
    ("exp with a fraction", lambda d: d.token(exp=NOW + 600.5), "exp is not a time"),
    ("exp endless", lambda d: d.raw(json.dumps(d.header()), json.dumps(d.claims()).replace(str(NOW + 600), "Infinity")),
     "claims cannot be read"),
    ("exp not a number", lambda d: d.raw(json.dumps(d.header()), json.dumps(d.claims()).replace(str(NOW + 600), "NaN")),
     "claims cannot be read"),
    ("exp true", lambda d: d.token(exp=True), "exp is not a time"),
    ("exp below zero", lambda d: d.token(exp=-1), "exp is not a time"),
    ("exp of 10,000 digits", lambda d: d.raw(json.dumps(d.header()), json.dumps(d.claims()).replace(
        str(NOW + 600), "9" * 5_000)), "claims cannot be read"),
    ("exp in 100 years", lambda d: d.token(exp=NOW + 100 * 366 * 86_400), "lasts longer"),
    ("exp past the cap by a second", lambda d: d.token(exp=NOW + 901), "lasts longer"),
    ("exp before iat", lambda d: d.token(exp=NOW - 1), "lasts longer"),
    ("expired", lambda d: d.token(iat=NOW - 600, exp=NOW - 11), "expired"),
    ("iat as text", lambda d: d.token(iat=str(NOW)), "iat is not a time"),
    ("iat in the future", lambda d: d.token(iat=NOW + 60, nbf=NOW), "issued in the future"),
    ("nbf in the future", lambda d: d.token(nbf=NOW + 60), "not good yet"),
    ("nbf as text", lambda d: d.token(nbf="0"), "nbf is not a time"),
    ("another audience", lambda d: d.token(aud="other-api"), "another audience"),
    ("a list of audiences", lambda d: d.token(aud=["chimera-api"]), "another audience"),
    ("a list with ours among it", lambda d: d.token(aud=["other-api", "chimera-api"]), "another audience"),
    ("the audience of refresh tokens", lambda d: d.token(aud="chimera/refresh"), "another audience"),
    ("another issuer", lambda d: d.token(iss="https://evil.example"), "issuer"),
    ("a list of issuers", lambda d: d.token(iss=["chimera"]), "issuer"),
    ("an issuer that ours begins", lambda d: d.token(iss="chimera.evil.example"), "issuer"),
    ("sub a number", lambda d: d.token(sub=1), "sub"),
    ("sub empty", lambda d: d.token(sub=""), "sub"),
    ("jti too short to be random", lambda d: d.token(jti="1"), "jti"),
    ("jti a list", lambda d: d.token(jti=["j" * 22]), "jti"),
    ("a role that there is not", lambda d: d.token(role="root"), "role"),
    ("a list of roles", lambda d: d.token(role=["admin"]), "role"),
    ("a kind that there is not", lambda d: d.token(kind="system"), "kind"),
    ("a scope that there is not", lambda d: d.token(scope="swarm:read swarm:*"), "scope"),
    ("scopes as a list", lambda d: d.token(scope=["swarm:read"]), "scope"),
    ("a claim that is not known", lambda d: d.token(is_admin=True), "not known"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "why"), [pytest.param(make, why, id=name) for name, make, why in ATTACKS])
def test_an_attack_is_refused_for_its_own_reason(desk: Desk, make: Callable[[Desk], Any], why: str) -> None:
    assert desk.tokens.verify(desk.token()).subject == "ada"  # what is forged here is good but for the one change
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT's of short keys
        token = make(desk)
    with pytest.raises(Unauthenticated, match=why) as caught:
        desk.tokens.verify(token)
    if isinstance(token, str) and len(token) > 20:
        assert token[:20] not in str(caught.value)


async def test_a_good_token_says_who_it_is(desk: Desk) -> None:
    narrowed = frozenset({Permission.SWARM_READ, Permission.KEYS_READ})
    pair = await desk.tokens.issue(Identity("ada", Role.OPERATOR, "agent", narrowed, "acme"))
    principal = desk.tokens.verify(pair.access_token)
    assert (principal.subject, principal.role, principal.kind) == ("ada", Role.OPERATOR, "agent")
    assert (principal.scopes, principal.tenant) == (narrowed, "acme")
    assert principal.expires_at == NOW + 900 == NOW + pair.expires_in
    assert jwt.get_unverified_header(pair.access_token) == {
        "alg": "EdDSA", "typ": "at+jwt", "kid": desk.key.kid,
    }  # fmt: skip


async def test_others_can_verify_with_the_published_keys_alone(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    published = jwt.PyJWKSet.from_dict(desk.tokens.jwks())
    key = published[jwt.get_unverified_header(pair.access_token)["kid"]]
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "strict_aud": True}
    said = jwt.decode(pair.access_token, key, ["EdDSA"], options, audience="chimera-api", issuer="chimera")
    assert said["sub"] == "ada"
    assert all("d" not in jwk for jwk in desk.tokens.jwks()["keys"])


async def test_no_secret_is_in_a_repr_or_a_pickle(desk: Desk) -> None:
    import pickle

    pair = await desk.tokens.issue(ADA)
    assert pair.access_token not in repr(pair) and pair.refresh_token not in repr(pair)
    assert "private" not in repr(desk.key)
    with pytest.raises(TypeError):
        pickle.dumps(desk.key)


async def test_a_token_ends_with_a_little_grace_for_clocks(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    desk.clock.advance(900 + LEEWAY_S - 0.1)
    desk.tokens.verify(pair.access_token)
    desk.clock.advance(0.2)
    with pytest.raises(Unauthenticated, match="expired"):
        desk.tokens.verify(pair.access_token)  # though it was remembered


async def test_each_refresh_gives_the_next_pair_and_the_role_of_now(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    for role in (Role.OBSERVER, Role.ADMIN):
        pair = await desk.tokens.refresh(pair.refresh_token, partial(Identity, role=role))
        assert desk.tokens.verify(pair.access_token).role is role


async def test_a_refresh_token_used_twice_ends_the_whole_family(desk: Desk) -> None:
    first = await desk.tokens.issue(ADA)
    other = await desk.tokens.issue(ADA)
    second = await desk.tokens.refresh(first.refresh_token, lambda _: ADA)
    third = await desk.tokens.refresh(second.refresh_token, lambda _: ADA)
    with pytest.raises(TokenReused):
        await desk.tokens.refresh(first.refresh_token, lambda _: ADA)
    for pair in (first, second, third):
        with pytest.raises(Unauthenticated, match="revoked"):
            desk.tokens.verify(pair.access_token)
        with pytest.raises(Unauthenticated, match="revoked"):
            await desk.tokens.refresh(pair.refresh_token, lambda _: ADA)
    assert desk.tokens.verify(other.access_token).subject == "ada"


async def test_of_many_refreshes_at_once_at_most_one_succeeds(desk: Desk) -> None:
    import asyncio

    pair = await desk.tokens.issue(ADA)
    came = await asyncio.gather(
        *(desk.tokens.refresh(pair.refresh_token, lambda _: ADA) for _ in range(8)), return_exceptions=True
    )
    good = [one for one in came if isinstance(one, TokenPair)]
    assert len(good) == 1
    assert sum(isinstance(one, TokenReused) for one in came) >= 1
    with pytest.raises(Unauthenticated):
        desk.tokens.verify(good[0].access_token)


async def test_a_session_is_not_refreshed_past_its_end(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    for _ in range(4):
        desk.clock.advance(6.99 * DAY_S)
        pair = await desk.tokens.refresh(pair.refresh_token, lambda _: ADA)
    assert pair.refresh_expires_in < 3 * DAY_S
    desk.clock.advance(2.04 * DAY_S)
    with pytest.raises(Unauthenticated):
        await desk.tokens.refresh(pair.refresh_token, lambda _: ADA)


async def test_a_refresh_token_opens_nothing_and_an_access_token_refreshes_nothing(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    with pytest.raises(Unauthenticated, match="type"):
        desk.tokens.verify(pair.refresh_token)
    with pytest.raises(Unauthenticated, match="type"):
        await desk.tokens.refresh(pair.access_token, lambda _: ADA)


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_a_revoked_token_takes_its_session_with_it(desk: Desk, which: str) -> None:
    pair = await desk.tokens.issue(ADA)
    desk.tokens.verify(pair.access_token)
    await desk.tokens.revoke(getattr(pair, which))
    with pytest.raises(Unauthenticated, match="revoked"):
        desk.tokens.verify(pair.access_token)
    with pytest.raises(Unauthenticated):
        await desk.tokens.refresh(pair.refresh_token, lambda _: ADA)


async def test_a_token_is_revoked_by_its_id_alone(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    principal = desk.tokens.verify(pair.access_token)
    await desk.tokens.refuse(principal.token_id, START_S + 900)
    with pytest.raises(Unauthenticated, match="revoked"):
        desk.tokens.verify(pair.access_token)
    await desk.tokens.refresh(pair.refresh_token, lambda _: ADA)  # its session goes on


async def test_a_user_has_so_many_sessions_and_no_more(desk: Desk) -> None:
    pairs = []
    for _ in range(MAX_FAMILIES + 1):
        pairs.append(await desk.tokens.issue(ADA))
        desk.clock.advance(1.0)
    with pytest.raises(Unauthenticated, match="revoked"):
        desk.tokens.verify(pairs[0].access_token)
    desk.tokens.verify(pairs[1].access_token)


async def test_what_is_remembered_is_bounded(tmp_path: Path, desk: Desk) -> None:
    tokens = JWTManager(
        desk.tokens.ring, Sessions(desk.store, clock=desk.clock), desk.store, clock=desk.clock, max_cached=3
    )
    pairs = [await tokens.issue(ADA) for _ in range(5)]
    for pair in pairs * 2:
        tokens.verify(pair.access_token)
    assert len(tokens._known) == 3
    assert not any(pair.access_token in repr(tokens._known) for pair in pairs)


async def test_old_keys_verify_until_their_last_token_has_ended(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    old = desk.key.kid
    new = desk.tokens.ring.rotate()
    assert new != old and {jwk["kid"] for jwk in desk.tokens.jwks()["keys"]} == {old, new}
    assert desk.tokens.verify(pair.access_token).subject == "ada"
    newer = await desk.tokens.issue(ADA)
    assert jwt.get_unverified_header(newer.access_token)["kid"] == new
    desk.clock.advance(7 * DAY_S - 1)
    refreshed = await desk.tokens.refresh(pair.refresh_token, lambda _: ADA)
    assert jwt.get_unverified_header(refreshed.access_token)["kid"] == new
    desk.clock.advance(LEEWAY_S + 2)
    assert [jwk["kid"] for jwk in desk.tokens.jwks()["keys"]] == [new]
    assert desk.tokens.ring.find(old) is None


async def test_a_key_that_others_know_is_dropped_at_once(desk: Desk) -> None:
    pair = await desk.tokens.issue(ADA)
    desk.tokens.verify(pair.access_token)
    desk.tokens.ring.drop(desk.key.kid)
    with pytest.raises(Unauthenticated, match="key is not known"):
        desk.tokens.verify(pair.access_token)
    assert desk.tokens.verify((await desk.tokens.issue(ADA)).access_token).subject == "ada"


async def test_another_process_follows_a_rotation(desk: Desk) -> None:
    theirs = KeyRing(desk.folder, clock=desk.clock, keep_s=7 * DAY_S)
    before = desk.key.kid
    assert theirs.current().kid == before and desk.tokens.ring.find(before) is not None
    new = theirs.rotate()
    assert desk.key.kid == new
    desk.tokens.ring.drop(before)
    assert theirs.find(before) is None


def test_keys_lie_in_a_file_for_their_owner_alone(desk: Desk) -> None:
    from chimera.core.errors import SecurityError

    path = desk.tokens.ring.path
    desk.tokens.ring.current()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(SecurityError, match="other users"):
        KeyRing(desk.folder, clock=desk.clock, keep_s=DAY_S).current()
    path.chmod(0o600)
    path.write_text('{"keys": [{"kid": "../x"}]}')
    with pytest.raises(SecurityError, match="damaged"):
        KeyRing(desk.folder, clock=desk.clock, keep_s=DAY_S).current()


def test_a_ring_of_another_algorithm_holds_each_key_to_its_own(desk: Desk, tmp_path: Path) -> None:
    edwards = desk.key
    curve = KeyRing(desk.folder, clock=desk.clock, keep_s=DAY_S, algorithm="ES256")
    curve.rotate()
    assert {jwk["alg"] for jwk in curve.jwks()["keys"]} == {"EdDSA", "ES256"}
    good = jwt.encode(desk.claims(), curve.current().private, "ES256", headers=desk.header(alg="ES256"))
    assert desk.tokens.verify(good).subject == "ada"
    crossed = jwt.encode(
        desk.claims(), curve.current().private, "ES256", headers=desk.header(alg="ES256", kid=edwards.kid)
    )
    with pytest.raises(Unauthenticated, match="algorithm"):
        desk.tokens.verify(crossed)


def test_secrets_that_both_sides_share_are_no_keys_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such algorithm"):
        KeyRing(tmp_path, clock=ManualClock(), keep_s=DAY_S, algorithm="HS256")  # type: ignore[arg-type]


def test_too_many_rotations_at_once_are_refused(desk: Desk) -> None:
    for _ in range(16):
        desk.tokens.ring.rotate()
    with pytest.raises(InputError, match="still in use"):
        desk.tokens.ring.rotate()
    desk.clock.advance(8 * DAY_S)
    desk.tokens.ring.rotate()


@pytest.mark.parametrize("seconds", [{"access_s": 3_601.0}, {"access_s": 0.0}, {"refresh_s": 60.0}, {"session_s": 1e9}])
def test_lifetimes_have_a_cap(desk: Desk, seconds: dict[str, float]) -> None:
    with pytest.raises(InputError):
        JWTManager(desk.tokens.ring, Sessions(desk.store, clock=desk.clock), desk.store, clock=desk.clock, **seconds)  # type: ignore[arg-type]
