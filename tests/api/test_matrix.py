"""Every route and every message, asked by every role with every kind of token: the permission table decides.

The routes come from the application itself, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from chimera.api.app import ROUTERS, create_app
from chimera.api.guard import permission_of, routes_of
from chimera.api.socket import NEEDS, NOT_AUTHENTICATED, Asked
from chimera.core.errors import Forbidden
from chimera.security.jwt_rules import ACCESS, encode
from chimera.security.roles import PERMISSIONS, Permission, Role, allowed
from tests.api.asks import ASKS, MESSAGES, RELOAD_KEYS, ROUTES
from tests.api.serving import Served, served

BAD = (
    "no token",
    "garbage",
    "expired",
    "revoked",
    "wrong audience",
    "refresh token",
    "tampered",
    "expired key",
    "revoked key",
)
GOOD = ("user token", "API key", "key for this alone", "token for this alone")
NARROWED = ("key for all but this", "token for all but this", "token for nothing")


class Tokens:
    """Tokens of each role and each kind, made once. `need` is what the narrowed ones are narrowed by."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.node = served.node
        self._made = cache(self._make)

    def of(self, role: Role, kind: str, need: Permission | None = None) -> str | None:
        return self._made(role, kind, need if "this" in kind else None)

    def _make(self, role: Role, kind: str, need: Permission | None = None) -> str | None:
        held = PERMISSIONS[role]
        only = frozenset({need} & held) if need else frozenset()
        match kind:
            case "no token":
                return None
            case "garbage":
                return "e30.e30.e30"
            case "user token":
                return self._served.token(role)
            case "tampered":
                token = self._served.token(role)
                return token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
            case "refresh token":
                return self._served.do(self.node.pair(role)).refresh_token
            case "expired":
                self.node.clock.ahead_s = -5_000.0
                token = self._served.token(role)
                self.node.clock.ahead_s = 0.0
                return token
            case "revoked":
                token = self._served.token(role)
                self._served.do(self.node.security.revoke(token))
                return token
            case "wrong audience":
                return self._signed(role, aud="another-api")
            case "API key":
                return self._key(role)
            case "key for this alone":
                return self._key(role, scopes=only)
            case "key for all but this":
                return self._key(role, scopes=held - only)
            case "token for this alone":
                return self._narrowed(role, only)
            case "token for all but this":
                return self._narrowed(role, held - only)
            case "token for nothing":
                return self._narrowed(role, frozenset())
            case "expired key":
                self.node.clock.ahead_s = -5_000.0
                key = self._key(role, lifetime_s=60.0)
                self.node.clock.ahead_s = 0.0
                return key
            case "revoked key":
                key = self._key(role)
                self._served.do(self.node.security.revoke(key))
                return key
        raise AssertionError(kind)

    def _key(self, role: Role, **fields: Any) -> str:
        return self._served.do(self.node.key(role, **fields))

    def _narrowed(self, role: Role, scopes: frozenset[Permission]) -> str:
        return self._signed(role, scope=" ".join(sorted(scopes)))

    def _signed(self, role: Role, **claims: object) -> str:
        """A token that is right in all else, signed with the node's own key."""
        now = int(time.time())
        said = {"iss": "chimera", "aud": "chimera-api", "sub": role.value, "iat": now, "nbf": now, "exp": now + 600}
        said |= {"jti": "j" * 22, "sid": "s" * 22, "role": role.value, "kind": "user"}
        return encode(self.node.security.tokens.ring, ACCESS, {**said, **claims})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("node"), reload_keys=RELOAD_KEYS, logins_at_once=1_000) as made:
        yield made


@pytest.fixture(scope="module")
def tokens(server: Served) -> Tokens:
    return Tokens(server)


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30.0) as made:
        yield made


def test_each_route_can_be_asked_and_each_ask_has_its_route() -> None:
    assert set(ASKS) == set(ROUTES)


def test_each_message_can_be_asked_and_asks_for_a_permission() -> None:
    types = {get_args(each.model_fields["type"].annotation)[0] for each in get_args(get_args(Asked)[0])}
    assert types == set(NEEDS) == set(MESSAGES)


def test_what_anybody_may_ask_is_this_and_no_more() -> None:
    public = {name for name, route in ROUTES.items() if permission_of(route) is None}
    assert public == {
        "POST /api/auth/login",
        "POST /api/auth/token/verify",
        "POST /api/auth/refresh",
        "POST /api/auth/logout",
        "GET /.well-known/jwks.json",
        "GET /healthz",
        "GET /readyz",
        "GET /",
        "GET /console/{name}",
    }


def test_a_route_that_does_not_say_who_may_ask_keeps_the_application_from_starting() -> None:
    router = ROUTERS[-1]
    before = list(router.routes)
    router.add_api_route("/api/forgotten", lambda: None)
    try:
        with pytest.raises(Forbidden, match="/api/forgotten"):
            create_app(lambda: None)  # type: ignore[arg-type,return-value]
    finally:
        router.routes[:] = before
    assert len(routes_of(ROUTERS)) == len(ROUTES)


def _answer(client: httpx2.Client, tokens: Tokens, name: str, role: Role, token: str | None) -> httpx2.Response:
    ask, method = ASKS[name], name.split()[0]
    fresh = tokens.node
    own = ""
    if name == "POST /api/auth/refresh":
        own = tokens._served.do(fresh.pair(role)).refresh_token
    elif name == "POST /api/auth/logout":
        own = tokens._served.token(role)
    elif name == "POST /api/auth/token/verify":
        own = str(tokens.of(role, "user token"))
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return client.request(method, ask.path or ROUTES[name].path, json=ask.body(fresh, own), headers=headers)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", list(ROUTES))
def test_a_route_answers_as_the_table_says(client: httpx2.Client, tokens: Tokens, name: str, role: Role) -> None:
    need = permission_of(ROUTES[name])
    said = {
        kind: _answer(client, tokens, name, role, tokens.of(role, kind, need)).status_code
        for kind in (*BAD, *GOOD, *NARROWED)
    }
    if need is None:
        assert {kind: status for kind, status in said.items() if status not in (200, 204)} == {}
        return
    assert {kind: said[kind] for kind in BAD if said[kind] != 401} == {}
    if allowed(role, need):
        assert {kind: said[kind] for kind in GOOD if said[kind] in (401, 403, 422) or said[kind] == 500} == {}
    else:
        assert {kind: said[kind] for kind in GOOD if said[kind] != 403} == {}
    assert {kind: said[kind] for kind in NARROWED if said[kind] != 403} == {}


def _told(server: Served, token: str | None) -> dict[str, int] | int:
    """The status of the answer to each message, or the code that the socket was closed with."""
    statuses: dict[str, int] = {}
    with connect(server.ws, max_size=None) as socket:
        try:
            socket.send(json.dumps({"type": "authenticate", "token": token}))
            assert json.loads(socket.recv(20.0))["type"] == "authenticated"
            for kind, fields in MESSAGES.items():
                socket.send(json.dumps({"type": kind, "id": kind, **fields}))
            while len(statuses) < len(MESSAGES):
                told = json.loads(socket.recv(20.0))
                statuses[told["id"]] = told["status"] if told["type"] == "error" else 200
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006
    return statuses


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", BAD)
def test_a_socket_is_closed_for_a_token_that_is_no_good(server: Served, tokens: Tokens, role: Role, kind: str) -> None:
    assert _told(server, tokens.of(role, kind)) == NOT_AUTHENTICATED


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", ["user token", "API key", "token for nothing"])
def test_a_message_is_answered_as_the_table_says(server: Served, tokens: Tokens, role: Role, kind: str) -> None:
    told = _told(server, tokens.of(role, kind))
    assert isinstance(told, dict)
    for message, need in NEEDS.items():
        if kind != "token for nothing" and allowed(role, need):
            assert told[message] not in (401, 403, 422, 500), (message, told)
        else:
            assert told[message] == 403, (message, told)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("message", list(NEEDS))
def test_a_message_is_for_who_has_its_permission_alone(
    server: Served, tokens: Tokens, role: Role, message: str
) -> None:
    told = _told(server, tokens.of(role, "token for all but this", NEEDS[message]))
    assert isinstance(told, dict)
    assert told[message] == 403
    assert all(told[other] != 403 for other, need in NEEDS.items() if allowed(role, need) and other != message)
