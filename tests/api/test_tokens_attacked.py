"""Tokens that were made up, changed, moved or used up (RFC 8725), sent over the wire: none is anybody."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chimera.api.guard import permission_of
from chimera.security.jwt_rules import ACCESS, encode
from chimera.security.manager import LOCAL
from chimera.security.roles import Role
from tests.api.asks import ROUTES
from tests.api.serving import Served
from tests.api.whole import PASSWORD, Api, bearing

Forge = Callable[[Served], str]


def _part(said: dict[str, Any] | bytes) -> str:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    said = {"iss": "chimera", "aud": "chimera-api", "sub": "admin", "iat": now, "nbf": now, "exp": now + 600}
    said |= {"jti": "j" * 22, "sid": "s" * 22, "role": "admin", "kind": "user"}
    return {name: value for name, value in {**said, **changes}.items() if value is not ...}


def _kid(served: Served) -> str:
    return str(served.node.security.jwks()["keys"][0]["kid"])


def _signed_by_nobody(head: dict[str, Any], signature: bytes = b"") -> Forge:
    return lambda served: f"{_part({'kid': _kid(served), **head})}.{_part(_claims())}.{_part(signature)}"


def _signed_by_the_node(**changes: Any) -> Forge:
    return lambda served: encode(served.node.security.tokens.ring, ACCESS, _claims(**changes))


def _signed_by_another(**head: Any) -> Forge:
    def forge(served: Served) -> str:
        said = f"{_part({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': _kid(served), **head})}.{_part(_claims())}"
        return f"{said}.{_part(Ed25519PrivateKey.generate().sign(said.encode()))}"

    return forge


def _public_key_as_secret(served: Served) -> str:
    """HS256 with the node's public key, which everybody has, as the secret."""
    key = served.node.security.jwks()["keys"][0]["x"]
    said = f"{_part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': _kid(served)})}.{_part(_claims())}"
    return f"{said}.{_part(hmac.digest(base64.urlsafe_b64decode(key + '=='), said.encode(), hashlib.sha256))}"


def _embedded_key(served: Served) -> str:
    made = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": _part(made.public_key().public_bytes_raw())}
    said = f"{_part({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': _kid(served), 'jwk': jwk})}.{_part(_claims())}"
    return f"{said}.{_part(made.sign(said.encode()))}"


def _name_twice(served: Served) -> str:
    ring = served.node.security.tokens.ring
    head, _, _ = encode(ring, ACCESS, _claims()).split(".")
    twice = json.dumps(_claims(role="observer")).encode()[:-1] + b', "role": "admin"}'
    said = f"{head}.{_part(twice)}"
    return f"{said}.{_part(ring.current().private.sign(said.encode()))}"


def _role_put_in(served: Served) -> str:
    head, body, signature = served.token(Role.OBSERVER).split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{_part({**said, 'role': 'admin'})}.{signature}"


def _crossed(served: Served) -> str:
    mine, other = (served.do(served.node.key(role)) for role in (Role.OBSERVER, Role.ADMIN))
    return other[: other.rindex("_")] + mine[mine.rindex("_") :]


FORGED: dict[str, Forge] = {
    "alg none": _signed_by_nobody({"alg": "none", "typ": "at+jwt"}),
    "alg NoNe": _signed_by_nobody({"alg": "NoNe", "typ": "at+jwt"}),
    "no signature": _signed_by_nobody({"alg": "EdDSA", "typ": "at+jwt"}, b"\0" * 64),
    "HS256 with the public key": _public_key_as_secret,
    "another's key": _signed_by_another(),
    "a key of its own in the head": _embedded_key,
    "jku": _signed_by_another(jku="http://127.0.0.1:9/keys"),
    "x5u": _signed_by_another(x5u="http://127.0.0.1:9/cert"),
    "crit": _signed_by_another(crit=["exp"]),
    "kid of a file": _signed_by_another(kid="../../../../dev/null"),
    "kid of a database": _signed_by_another(kid="' UNION SELECT 'key"),
    "kid with a NUL": _signed_by_another(kid="a\0b"),
    "kid that is a list": _signed_by_another(kid=["a"]),
    "kid that is no text": _signed_by_another(kid=None),
    "kid of a URL": _signed_by_another(kid="http://127.0.0.1:9/key"),
    "typ JWT": _signed_by_another(typ="JWT"),
    "no exp": _signed_by_the_node(exp=...),
    "exp as text": _signed_by_the_node(exp=str(int(time.time()) + 600)),
    "exp in a hundred years": _signed_by_the_node(exp=int(time.time()) + 100 * 365 * 86_400),
    "exp that is infinite": _signed_by_the_node(exp=1e400),
    "not yet": _signed_by_the_node(nbf=int(time.time()) + 3_000, iat=int(time.time())),
    "from the future": _signed_by_the_node(iat=int(time.time()) + 3_000, exp=int(time.time()) + 3_600),
    "another issuer": _signed_by_the_node(iss="another"),
    "several audiences": _signed_by_the_node(aud=["chimera-api", "another"]),
    "no audience": _signed_by_the_node(aud=...),
    "a role there is not": _signed_by_the_node(role="root"),
    "a claim that is not known": _signed_by_the_node(is_admin=True),
    "a name twice": _name_twice,
    "a role put in": _role_put_in,
    "larger than a token is": lambda served: f"{'a' * 9_000}.e30.e30",
    "a key that is not whole": lambda served: served.do(served.node.key(Role.ADMIN))[:-1],
    "a key backwards": lambda served: served.do(served.node.key(Role.ADMIN))[::-1],
    "a secret after another key's id": _crossed,
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_nobody(server: Served, name: str) -> None:
    token = FORGED[name](server)
    answer = httpx2.get(f"{server.url}/api/audit", headers=bearing(token))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    told = httpx2.post(f"{server.url}/api/auth/token/verify", json={"token": token})
    assert told.status_code in (401, 422)
    assert not any(part and part in answer.text + told.text for part in token.split(".") if len(part) > 8)


def test_the_same_claims_in_a_token_that_is_right_are_somebody(server: Served) -> None:
    token = _signed_by_the_node()(server)
    assert httpx2.get(f"{server.url}/api/audit", headers=bearing(token)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "{token}"},
        {"authorization": "Basic {token}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer,{token}"},
        {"authorization": "Bearer {token} {token}"},
        {"x-authorization": "Bearer {token}"},
        {"cookie": "access_token={token}; token={token}; session={token}"},
        {"proxy-authorization": "Bearer {token}"},
        {"x-forwarded-user": "admin", "x-remote-user": "admin"},
    ],
)
def test_a_token_counts_in_its_header_alone(server: Served, headers: dict[str, str]) -> None:
    token = server.token(Role.ADMIN)
    sent = {name: value.replace("{token}", token) for name, value in headers.items()}
    assert httpx2.get(f"{server.url}/api/audit", headers=sent).status_code == 401


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "api_key", "jwt"])
def test_a_token_in_a_url_is_not_looked_at(server: Served, name: str) -> None:
    token = server.token(Role.ADMIN)
    answer = httpx2.get(f"{server.url}/api/audit", params={name: token})
    assert answer.status_code == 401
    assert token not in answer.text + json.dumps([vars(each) for each in server.node.audit.entries])


def test_of_two_authorizations_neither_counts(server: Served) -> None:
    headers = [("authorization", f"Bearer {server.token(role)}") for role in (Role.ADMIN, Role.OBSERVER)]
    assert httpx2.get(f"{server.url}/api/audit", headers=headers).status_code == 401


async def test_a_revoked_token_is_refused_by_every_route_at_once(api: Api) -> None:
    token = await api.node.token(Role.ADMIN)
    assert (await api.client.get("/api/swarm/missions", headers=bearing(token))).status_code == 200
    await api.node.security.revoke(token)
    for name, route in ROUTES.items():
        if permission_of(route) is not None:
            answer = await api.client.request(name.split()[0], route.path, headers=bearing(token), json={})
            assert answer.status_code == 401, name


async def test_a_refresh_token_is_used_once_and_its_copy_ends_the_session(api: Api) -> None:
    first = (await api.client.post("/api/auth/login", json={"user": "observer", "password": PASSWORD})).json()
    second = (await api.client.post("/api/auth/refresh", json={"refresh_token": first["refresh_token"]})).json()
    assert (await api.client.get("/api/keys", headers=bearing(second["access_token"]))).status_code == 200
    replay = await api.client.post("/api/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert replay.status_code == 401
    for pair in (first, second):
        assert (await api.client.get("/api/keys", headers=bearing(pair["access_token"]))).status_code == 401
    assert (
        await api.client.post("/api/auth/refresh", json={"refresh_token": second["refresh_token"]})
    ).status_code == 401


async def test_a_disabled_user_and_their_keys_are_nobody_at_once(api: Api) -> None:
    token, key = await api.node.token(Role.OBSERVER), await api.node.key(Role.OBSERVER)
    await api.node.security.disable_user("observer", by=LOCAL)
    for text in (token, key):
        assert (await api.client.get("/api/keys", headers=bearing(text))).status_code == 401


async def test_a_key_keeps_nothing_that_its_user_lost(api: Api) -> None:
    key = await api.node.key(Role.OPERATOR)
    assert (await api.ask("POST", "/api/swarm/task", headers=bearing(key), json={"goal": "g"})).status_code == 202
    await api.node.security.set_role("operator", Role.OBSERVER, by=LOCAL)
    assert (await api.ask("POST", "/api/swarm/task", headers=bearing(key), json={"goal": "g"})).status_code == 403
    assert (await api.ask("GET", "/api/swarm/missions", headers=bearing(key))).status_code == 200


async def test_an_unknown_user_costs_as_much_work_and_reads_as_a_wrong_password(api: Api) -> None:
    """Work is counted, not time: one run of argon2 for each."""
    told = []
    for user in ("observer", "nobody", "", "no/name", "' OR 1=1 --", "a" * 128):
        before = api.node.passwords.runs
        answer = await api.client.post("/api/auth/login", json={"user": user or "x", "password": "wrong horse"})
        told.append((answer.status_code, answer.text, api.node.passwords.runs - before))
    assert set(told) == {told[0]}
    assert told[0][0] == 401
    assert told[0][2] == 1
