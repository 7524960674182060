"""What is somebody else's, asked for by all who may not; and fields and repeats that would give more than is due."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from chimera.api.owned import Owned
from chimera.core.types import Frozen
from chimera.security.manager import LOCAL
from chimera.security.roles import Permission, Role
from tests.actors.in_process import until
from tests.api.asks import ASKS, ROUTES
from tests.api.whole import PASSWORD, Api, bearing

THEIRS = ("GET /api/swarm/missions/{id}", "GET /api/swarm/missions/{id}/events", "POST /api/swarm/missions/{id}/cancel")


async def _mission(api: Api, user: str, **fields: Any) -> str:
    answer = await api.ask("POST", "/api/swarm/task", user, json={"goal": "what is it?", **fields})
    return str(answer.json()["mission_id"])


@pytest.mark.parametrize("role", [Role.API_CLIENT, Role.NODE])
@pytest.mark.parametrize("ask", [*THEIRS, "GET /api/swarm/missions/{id}/events?stream=true"])
async def test_a_mission_of_another_is_not_there(api: Api, role: Role, ask: str) -> None:
    """It is answered to the letter as one that there never was."""
    await api.node.security.create_user("other", PASSWORD, Role.API_CLIENT, by=LOCAL)
    mission_id = await _mission(api, "other", role="hanging")
    method, path = ask.split()
    answer = await api.ask(method, path.format(id=mission_id), role)
    never = await api.ask(method, path.format(id="mission-" + "0" * 44), role)
    assert answer.status_code == never.status_code == (403 if role is Role.NODE else 404)
    assert answer.text.replace(mission_id, "") == never.text.replace("mission-" + "0" * 44, "")
    assert (await api.ask("GET", f"/api/swarm/missions/{mission_id}", "other")).json()["state"] == "running"


@pytest.mark.parametrize("role", [Role.OBSERVER, Role.OPERATOR, Role.ADMIN])
async def test_who_may_see_everybodys_missions_sees_them_and_an_observer_cancels_none(api: Api, role: Role) -> None:
    mission_id = await _mission(api, Role.API_CLIENT, role="hanging")
    assert (await api.ask("GET", f"/api/swarm/missions/{mission_id}", role)).status_code == 200
    cancelled = await api.ask("POST", f"/api/swarm/missions/{mission_id}/cancel", role)
    assert cancelled.status_code == (403 if role is Role.OBSERVER else 200)


async def test_a_list_holds_ones_own_and_no_sign_of_the_others(api: Api) -> None:
    await api.node.security.create_user("other", PASSWORD, Role.API_CLIENT, by=LOCAL)
    mine = [await _mission(api, Role.API_CLIENT)]
    for _ in range(5):
        await _mission(api, "other")
    mine.append(await _mission(api, Role.API_CLIENT))
    first = (await api.ask("GET", "/api/swarm/missions?limit=1", Role.API_CLIENT)).json()
    assert [each["mission_id"] for each in first["items"]] == mine[1:]
    last = (await api.ask("GET", f"/api/swarm/missions?limit=1&after={first['next']}", Role.API_CLIENT)).json()
    assert [each["mission_id"] for each in last["items"]] == mine[:1]
    assert last["next"] is None
    assert len((await api.ask("GET", "/api/swarm/missions", Role.OBSERVER)).json()["items"]) == 7


async def test_a_tenant_ends_at_its_border(api: Api) -> None:
    """Who may see everybody's missions sees those of their own tenant; the record of the node is not theirs."""
    for tenant in ("red", "blue"):
        for role in (Role.API_CLIENT, Role.OBSERVER, Role.ADMIN):
            await api.node.security.create_user(f"{tenant}-{role}", PASSWORD, role, by=LOCAL, tenant=tenant)
    mission_id = await _mission(api, "red-api_client")
    assert (await api.ask("GET", f"/api/swarm/missions/{mission_id}", "red-observer")).status_code == 200
    for user in ("blue-observer", "blue-admin"):
        assert (await api.ask("GET", f"/api/swarm/missions/{mission_id}", user)).status_code == 404
        assert (await api.ask("GET", "/api/swarm/missions", user)).json()["items"] == []
    assert (await api.ask("GET", f"/api/swarm/missions/{mission_id}", Role.ADMIN)).status_code == 200
    assert (await api.ask("GET", "/api/audit", "blue-admin")).status_code == 403
    key = await api.ask("POST", "/api/keys/create", "red-admin", json={"user": "red-observer", "role": "observer"})
    assert (await api.ask("DELETE", f"/api/keys/{key.json()['id']}", "blue-admin")).status_code == 404
    assert (await api.ask("GET", "/api/keys", "blue-admin")).json()["items"] == []


def test_an_id_says_whose_it_is_and_nobody_can_say_otherwise() -> None:
    owned, other = Owned(b"k" * 32), Owned(b"o" * 32)
    mission_id = owned.new("ada", "red")
    assert owned.is_of(mission_id, "ada")
    assert owned.is_in(mission_id, "red")
    for wrong in ("bob", "red", "ad", "", "ada:"):
        assert not owned.is_of(mission_id, wrong)
    assert not owned.is_in(mission_id, "ada")
    assert not other.is_of(mission_id, "ada")
    for changed in (mission_id[:-1], mission_id + "0", mission_id.upper(), mission_id.replace("mission-", "mission_")):
        assert not owned.is_in(changed, "red")
    head, tags = mission_id[: len("mission-") + 12], mission_id[len("mission-") + 12 :]
    assert not owned.is_of(head + tags[16:] + tags[:16], "ada")


@pytest.mark.parametrize("role", list(Role))
async def test_a_key_of_another_is_neither_seen_nor_ended(api: Api, role: Role) -> None:
    await api.node.security.create_user("other", PASSWORD, Role.OPERATOR, by=LOCAL)
    key = await api.node.key("other")
    [id] = [each.id for each in api.node.security.keys.list(user="other")]
    listed = await api.ask("GET", "/api/keys", role)
    asked = await api.ask("GET", "/api/keys?user=other", role)
    ended = await api.ask("DELETE", f"/api/keys/{id}", role)
    still = await api.client.get("/api/keys", headers=bearing(key))
    if role is Role.ADMIN:
        assert id in listed.text
        assert ended.status_code == 204
        assert still.status_code == 401
    else:
        assert id not in listed.text + asked.text
        assert asked.status_code == 403
        assert ended.status_code == (404 if role is Role.OPERATOR else 403)
        assert still.status_code == 200


@pytest.mark.parametrize(
    ("role", "body"),
    [
        (Role.OPERATOR, {"role": "admin"}),
        (Role.OPERATOR, {"role": "operator", "user": "admin"}),
        (Role.OPERATOR, {"role": "node"}),
        (Role.OBSERVER, {"role": "observer"}),
        (Role.API_CLIENT, {"role": "api_client"}),
        (Role.OPERATOR, {"role": "operator", "scopes": ["audit:read"], "user": "observer"}),
    ],
)
async def test_nobody_makes_a_key_that_has_more_than_they(api: Api, role: Role, body: dict[str, Any]) -> None:
    assert (await api.ask("POST", "/api/keys/create", role, json=body)).status_code == 403


async def test_a_narrow_key_makes_no_wider_one(api: Api) -> None:
    narrow = await api.node.key(Role.OPERATOR, scopes=[Permission.KEYS_CREATE])
    for body in ({"role": "operator"}, {"role": "operator", "scopes": ["swarm:task"]}, {"role": "api_client"}):
        assert (await api.ask("POST", "/api/keys/create", headers=bearing(narrow), json=body)).status_code == 403
    same = {"role": "operator", "scopes": ["keys:create"]}
    assert (await api.ask("POST", "/api/keys/create", headers=bearing(narrow), json=same)).status_code == 201


FIELDS: list[dict[str, Any]] = [
    {"subject": "admin"},
    {"is_admin": True},
    {"tenant": "red"},
    {"mission_id": "mission-mine"},
    {"owner": "admin"},
    {"permissions": ["audit:read"]},
    {"id": "aaaaaaaaaaaaaaaa"},
    {"made_by": None},
    {"token_id": "a"},
    {"__proto__": {"role": "admin"}},
]


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.body_field is not None])
async def test_a_field_that_is_not_asked_for_is_refused(api: Api, name: str) -> None:
    body = ASKS[name].body(api.node, "x") or {}
    for extra in FIELDS:
        answer = await api.ask("POST", ROUTES[name].path, Role.ADMIN, json={**body, **extra})
        assert answer.status_code == 422, extra
        assert "extra" in answer.text.lower()


async def test_a_repeat_with_the_same_key_is_done_once(api: Api) -> None:
    again = {"idempotency-key": "one"}
    told = [
        await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g"}, headers=again) for _ in range(3)
    ]
    assert len({each.json()["mission_id"] for each in told}) == 1
    assert [each.headers.get("idempotent-replayed") for each in told] == [None, "true", "true"]
    other = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "another"}, headers=again)
    assert other.status_code == 422


async def test_an_idempotency_key_of_another_caller_tells_nothing_of_them(api: Api) -> None:
    again = {"idempotency-key": "shared"}
    mine = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g"}, headers=again)
    theirs = await api.ask("POST", "/api/swarm/task", Role.API_CLIENT, json={"goal": "g"}, headers=again)
    keys = [await api.node.key(Role.OPERATOR) for _ in range(2)]
    by_key = [
        await api.ask("POST", "/api/swarm/task", json={"goal": "g"}, headers={**again, **bearing(key)}) for key in keys
    ]
    assert len({each.json()["mission_id"] for each in (mine, theirs, *by_key)}) == 4


async def test_a_repeat_is_no_way_round_a_revocation_or_a_role_that_was_lost(api: Api) -> None:
    again = {"idempotency-key": "one"}
    token = await api.node.token(Role.OPERATOR)
    sent: dict[str, Any] = {"json": {"goal": "g"}, "headers": {**again, **bearing(token)}}
    assert (await api.ask("POST", "/api/swarm/task", **sent)).status_code == 202
    await api.node.security.revoke(token)
    assert (await api.ask("POST", "/api/swarm/task", **sent)).status_code == 401
    await api.node.security.set_role("operator", Role.OBSERVER, by=LOCAL)
    newer = {**again, **bearing(await api.node.token("operator"))}
    assert (await api.ask("POST", "/api/swarm/task", json={"goal": "g"}, headers=newer)).status_code == 403


async def test_a_repeat_after_a_refresh_is_the_same_callers(api: Api) -> None:
    told = {
        (
            await api.ask(
                "POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g"}, headers={"idempotency-key": "k"}
            )
        ).text
        for _ in range(2)
    }
    assert len(told) == 1


async def test_a_secret_is_told_once_also_to_who_repeats(api: Api) -> None:
    again = {"idempotency-key": "one"}
    body = {"role": "api_client"}
    first = await api.ask("POST", "/api/keys/create", Role.OPERATOR, json=body, headers=again)
    second = await api.ask("POST", "/api/keys/create", Role.OPERATOR, json=body, headers=again)
    assert first.status_code == 201
    assert second.status_code == 409
    kept = b"".join(file.read_bytes() for file in api.node.answers.parent.glob("answers.db*"))
    assert first.json()["secret"] not in second.text and first.json()["secret"].encode() not in kept
    assert kept
    assert len((await api.ask("GET", "/api/keys", Role.OPERATOR)).json()["items"]) == 1


async def test_two_at_once_with_one_key_are_done_once(api: Api) -> None:
    headers = {**await api.node.headers(Role.OPERATOR), "idempotency-key": "race"}
    body = {"goal": "g", "role": "hanging", "deadline_s": 5.0}
    first = asyncio.create_task(api.client.post("/api/swarm/consensus", json=body, headers=headers))
    await until(lambda: "submit" in api.node.swarm._swarm.calls)  # type: ignore[union-attr]
    second = await api.client.post("/api/swarm/consensus", json=body, headers=headers)
    assert second.status_code == 409
    assert second.headers["retry-after"] == "1"
    [mission] = (await api.ask("GET", "/api/swarm/missions", Role.OPERATOR)).json()["items"]
    await api.ask("POST", f"/api/swarm/missions/{mission['mission_id']}/cancel", Role.OPERATOR)
    assert (await first).status_code == 200


@pytest.mark.parametrize("key", ["", "a" * 256, "\t"])
async def test_an_idempotency_key_that_is_none_is_refused(api: Api, key: str) -> None:
    answer = await api.ask(
        "POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g"}, headers={"idempotency-key": key}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "policy",
    [
        "os:system",
        "subprocess:Popen",
        "chimera.swarm.readers:json.loads",
        "chimera.swarm.readers:respond.__globals__",
        "chimera.swarm.readers.os:system",
        "chimera.api.routes.node:base64.b64decode",
        "chimera.security.manager:SecurityManager",
        "chimera.swarm.readers:",
        "chimera.swarm.readers:plan",  # it reads whatever folder a task names
        "chimera.swarm.readers:bm25",
        "chimera.swarm.roles:echo:system",
        " chimera.swarm.roles:echo",
        "tests.policies:hangs",
        "/etc/passwd",
    ],
)
async def test_a_policy_that_is_not_meant_for_it_is_not_spawned(api: Api, policy: str) -> None:
    api.node.swarm._swarm.calls.clear()  # type: ignore[union-attr]
    answer = await api.ask("POST", "/api/swarm/spawn", Role.ADMIN, json={"policy": policy})
    assert answer.status_code == 403
    assert "spawn_agents" not in api.node.swarm._swarm.calls  # type: ignore[union-attr]


def test_models_that_come_in_take_nothing_else() -> None:
    from chimera.api import bodies

    for model in vars(bodies).values():
        if isinstance(model, type) and issubclass(model, Frozen):
            assert model.model_config["extra"] == "forbid", model
            assert json.dumps(model.model_json_schema())
