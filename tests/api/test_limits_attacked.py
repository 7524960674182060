"""Too much of everything: requests, logins, keys, sockets; and that what was refused is written down, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from chimera.api.guard import address_of, permission_of
from chimera.security.roles import Role
from tests.api.asks import ASKS, ROUTES
from tests.api.whole import BASE, PASSWORD, Api, bearing, opened


def _from(api: Api, address: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(api.node.app, raise_app_exceptions=False, client=(address, 1))
    return httpx2.AsyncClient(transport=transport, base_url=BASE)


async def test_a_client_that_asks_too_much_is_told_when_to_come_again_and_others_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, limiter=(5, 0.1)) as api:
        token, other = await api.node.token(Role.OBSERVER), await api.node.token(Role.ADMIN)
        told = [await api.client.get("/api/keys", headers=bearing(token)) for _ in range(8)]
        assert [each.status_code for each in told] == [200] * 5 + [429] * 3
        assert 1 <= int(told[-1].headers["retry-after"]) <= 10
        assert told[-1].json()["type"] == "urn:chimera:problem:rate-limited"
        assert (await api.client.get("/api/keys", headers=bearing(other))).status_code == 200
        again = await api.node.token(Role.OBSERVER)
        assert (await api.client.get("/api/keys", headers=bearing(again))).status_code == 429, (
            "a new token is no new client"
        )
        assert len(api.node.audit.refused("GET /api/keys")) == 4
        api.node.clock.ahead_s = 60.0
        assert (await api.client.get("/api/keys", headers=bearing(again))).status_code == 200


async def test_a_key_has_the_rate_that_it_was_made_with(tmp_path: Path) -> None:
    async with opened(tmp_path, limiter=(1_000, 1_000)) as api:
        slow, fast = await api.node.key(Role.OBSERVER, rate_limit=3), await api.node.key(Role.OBSERVER, rate_limit=30)
        statuses = {
            key: [(await api.client.get("/api/keys", headers=bearing(key))).status_code for _ in range(20)]
            for key in (slow, fast)
        }
        assert statuses[slow][:4] == [200, 200, 200, 429]
        assert statuses[fast] == [200] * 20


@pytest.mark.parametrize(
    ("maker", "wanted", "given"),
    [
        ("operator", 101, None),
        ("operator", 100, 100),
        ("operator", None, 50),
        ("key of 7", 8, None),
        ("key of 7", 7, 7),
        ("key of 7", None, 7),
        ("admin", 100_000, 100_000),
    ],
)
async def test_a_new_key_is_no_way_around_a_limit(api: Api, maker: str, wanted: int | None, given: int | None) -> None:
    node = api.node
    token = await node.key(Role.ADMIN, rate_limit=7) if maker == "key of 7" else await node.token(maker)
    body = {} if wanted is None else {"rate_limit": wanted}
    answer = await api.client.post("/api/keys/create", json=body, headers=bearing(token))
    assert answer.status_code == (403 if given is None else 201)
    if given is not None:
        assert node.security.verify(answer.json()["secret"]).rate_limit == given


async def test_who_tries_tokens_is_stopped_by_address(tmp_path: Path) -> None:
    async with opened(tmp_path, limiter=(5, 0.01)) as api:
        told = [(await api.client.get("/api/keys", headers=bearing(f"chm_{n}"))).status_code for n in range(8)]
        assert told == [401] * 5 + [429] * 3
        assert (await api.ask("GET", "/api/keys", Role.ADMIN)).status_code == 200, "who is known is not stopped by it"
        assert (await api.client.get("/healthz")).status_code == 429


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip", "true-client-ip"])
async def test_an_address_is_not_another_because_a_header_says_so(tmp_path: Path, header: str) -> None:
    async with opened(tmp_path, limiter=(3, 0.01)) as api:
        told = [(await api.client.get("/healthz", headers={header: f"10.0.0.{n}"})).status_code for n in range(6)]
        assert told == [200] * 3 + [429] * 3


async def test_logins_of_one_address_are_few_and_those_of_another_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, logins_at_once=4, logins_per_s=0.01) as api:
        told = []
        for n in range(8):
            body = {"user": f"user{n}", "password": "wrong"}  # many names, one password: no user's lock sees it
            told.append((await api.client.post("/api/auth/login", json=body)).status_code)
        assert told == [401] * 4 + [429] * 4
        assert api.node.passwords.runs - len(Role) == 4
        async with _from(api, "10.0.0.9") as other:
            right = await other.post("/api/auth/login", json={"user": "observer", "password": PASSWORD})
            assert right.status_code == 200


async def test_a_user_whose_password_is_tried_from_many_addresses_is_locked(tmp_path: Path) -> None:
    async with opened(tmp_path) as api:
        told = set()
        for n in range(12):
            async with _from(api, f"10.0.{n}.1") as client:
                answer = await client.post("/api/auth/login", json={"user": "observer", "password": f"wrong {n}"})
                told.add((answer.status_code, answer.text))
        assert len(told) == 1, "a locked user is answered as any other"
        right = await api.client.post("/api/auth/login", json={"user": "observer", "password": PASSWORD})
        assert right.status_code == 401
        api.node.clock.ahead_s = 2_000.0
        right = await api.client.post("/api/auth/login", json={"user": "observer", "password": PASSWORD})
        assert right.status_code == 200


async def test_the_table_of_clients_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as api:
        for n in range(300):
            async with _from(api, f"2001:db8:0:{n:x}::1") as client:
                await client.get("/healthz")
        assert len(api.node.limiter) <= 10_000


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    def counted(host: str) -> str:
        return address_of(type("Asked", (), {"client": type("Client", (), {"host": host})})())

    assert counted("2001:db8::1") == counted("2001:db8::ffff:1") != counted("2001:db8:0:1::1")
    assert counted("::ffff:10.0.0.1") == counted("10.0.0.1")
    assert counted("fe80::1%eth0") == counted("fe80::2")


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if permission_of(route) is not None])
async def test_every_refusal_is_written_down(api: Api, name: str) -> None:
    method, path = name.split()[0], ASKS[name].path or ROUTES[name].path
    await api.client.request(method, path, headers=bearing("nobody"))
    await api.ask(method, path, Role.NODE)
    unknown, known = api.node.audit.refused(f"{method} {ROUTES[name].path}")
    assert (unknown.actor, unknown.detail["status"], unknown.detail["client"]) == ("-", 401, "127.0.0.1")
    assert (known.actor, known.detail["status"], known.resource) == ("node", 403, path)


async def test_what_changes_something_is_written_down_with_who_did_it(api: Api) -> None:
    made = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g"})
    key = await api.node.key(Role.API_CLIENT)
    await api.ask("POST", f"/api/swarm/missions/{made.json()['mission_id']}/cancel", headers=bearing(key))
    written = [(each.actor, each.action, each.outcome) for each in api.node.audit.entries]
    assert ("operator", "POST /api/swarm/task", "done") in written
    assert ("api_client", "POST /api/swarm/missions/{mission_id}/cancel", "failed") in written


async def test_no_secret_is_written_down(api: Api) -> None:
    secrets = [PASSWORD, "a new horse, and its wagon", "wrong-password-1"]
    for password in (PASSWORD, "wrong-password-1"):
        await api.client.post("/api/auth/login", json={"user": "observer", "password": password})
    await api.client.post("/api/auth/login", json={"user": "wrong-password-1", "password": PASSWORD})
    body = {"user": "observer", "password": PASSWORD, "new_password": "a new horse, and its wagon"}
    pair = (await api.client.post("/api/auth/login", json=body)).json()
    made = (await api.ask("POST", "/api/keys/create", Role.OPERATOR, json={"role": "operator"})).json()
    secrets += [pair["access_token"], pair["refresh_token"], made["secret"], made["secret"].rpartition("_")[2]]
    for secret in list(secrets):
        await api.client.get("/api/keys", headers=bearing(secret.encode("ascii", "replace").decode()))
        await api.client.post("/api/auth/refresh", json={"refresh_token": secret})
        await api.client.get("/api/keys", params={"token": secret})
    written = json.dumps([vars(each) for each in api.node.audit.entries])
    assert len(api.node.audit.entries) > 15
    assert not [secret for secret in secrets if secret in written]
