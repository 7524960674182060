"""Logging out: the session ends with all of its tokens, everywhere, and nobody else's does."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from chimera import Client
from chimera.api.socket import ENDED
from chimera.core.errors import InputError, Unauthenticated
from chimera.security.roles import Role
from tests.api.serving import Served
from tests.api.whole import PASSWORD, Api, bearing


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_a_session_ends_with_both_of_its_tokens_and_another_goes_on(api: Api, which: str) -> None:
    pair, other = await api.node.pair(Role.OPERATOR), await api.node.pair(Role.OPERATOR)
    told = await api.client.post("/api/auth/logout", json={"token": getattr(pair, which)})
    assert (told.status_code, told.content) == (204, b"")
    assert (await api.client.get("/api/keys", headers=bearing(pair.access_token))).status_code == 401
    again = await api.client.post("/api/auth/refresh", json={"refresh_token": pair.refresh_token})
    assert again.status_code == 401
    assert (await api.client.get("/api/keys", headers=bearing(other.access_token))).status_code == 200
    assert (await api.client.post("/api/auth/logout", json={"token": pair.access_token})).status_code == 204
    assert [each.actor for each in api.node.audit.entries if each.action == "revoke"] == ["operator"] * 2


async def test_a_token_of_before_a_refresh_ends_what_came_of_it(api: Api) -> None:
    first = await api.node.pair(Role.OPERATOR)
    newer = (await api.client.post("/api/auth/refresh", json={"refresh_token": first.refresh_token})).json()
    assert (await api.client.post("/api/auth/logout", json={"token": first.refresh_token})).status_code == 204
    assert (await api.client.get("/api/keys", headers=bearing(newer["access_token"]))).status_code == 401


async def test_an_api_key_does_not_log_out_and_stays_good(api: Api) -> None:
    key = await api.node.key(Role.OPERATOR)
    told = await api.client.post("/api/auth/logout", json={"token": key})
    assert told.status_code == 400
    assert "DELETE /api/keys" in told.json()["detail"] and key not in told.text
    assert (await api.client.get("/api/keys", headers=bearing(key))).status_code == 200


async def test_what_is_no_token_ends_nothing(api: Api) -> None:
    pair = await api.node.pair(Role.OPERATOR)
    for forged in ("nonsense", pair.access_token[:-4] + "AAAA"):
        assert (await api.client.post("/api/auth/logout", json={"token": forged})).status_code == 401
    assert (await api.client.get("/api/keys", headers=bearing(pair.access_token))).status_code == 200


def test_a_client_logs_out_here_and_there(server: Served) -> None:
    with Client(server.url) as client:
        client.login("operator", PASSWORD)
        held = client._node.transport.token
        with connect(server.ws) as socket:
            socket.send(json.dumps({"type": "authenticate", "token": held}))
            assert json.loads(socket.recv(60.0))["type"] == "authenticated"
            client.logout()
            with pytest.raises(Unauthenticated, match="no token"):
                client.missions()
            client.logout()
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(60.0)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == ENDED
        with Client(server.url, held) as again, pytest.raises(Unauthenticated):
            again.missions()
        with Client(server.url, server.do(server.node.key(Role.OPERATOR))) as keyed:
            with pytest.raises(InputError, match="revoke"):
                keyed.logout()
            assert keyed.keys()
