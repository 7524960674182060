"""A refusal stands in the audit log once: who, which permission, on what, from where."""

from __future__ import annotations

import asyncio

import pytest

from chimera.core.errors import Forbidden
from chimera.security.principal import Principal
from chimera.security.refusals import MAX_HELD, Refusal, held, hold
from chimera.security.roles import Permission, Role
from tests.api.whole import Api, Entry

REFUSAL = Refusal("ada", "keys:read", "keys")


def _new(api: Api, before: int) -> list[Entry]:
    """What was written since, without what logging in wrote."""
    return [entry for entry in api.node.audit.entries[before:] if entry.outcome in ("refused", "forbidden")]


async def test_a_403_is_written_down_once_with_all_that_is_known_of_it(api: Api) -> None:
    before = len(api.node.audit.entries)
    assert (await api.ask("GET", "/api/audit", Role.OBSERVER)).status_code == 403
    [entry] = _new(api, before)
    assert (entry.actor, entry.action, entry.resource) == ("observer", "GET /api/audit", "/api/audit")
    assert entry.outcome == "refused"
    told = {name: entry.detail[name] for name in ("status", "client", "permission", "on", "role")}
    assert told == {
        "status": 403,
        "client": "127.0.0.1",
        "permission": "audit:read",
        "on": "/api/audit",
        "role": "observer",
    }
    assert entry.detail["key"]


async def test_one_that_a_handler_ran_into_is_written_down_once_too(api: Api) -> None:
    before = len(api.node.audit.entries)
    body = {"operations": ["users:manage"], "resource": "users/ada"}
    assert (await api.ask("POST", "/api/capabilities", Role.OPERATOR, json=body)).status_code == 403
    assert (await api.ask("POST", "/api/keys/create", Role.OPERATOR, json={"role": "admin"})).status_code == 403
    capability, key = _new(api, before)
    assert (capability.detail["permission"], capability.detail["on"]) == ("users:manage", "users/ada")
    assert (key.detail["permission"], key.detail["on"]) == ("keys:create", "users/operator/keys")


async def test_what_was_refused_on_the_way_to_another_answer_is_not_lost(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    security, listed = api.node.security, api.node.security.list_keys

    def lenient(by: Principal, **wanted: object) -> object:
        with pytest.raises(Forbidden):
            security.check(by, Permission.USERS_MANAGE, "users/eve")
        return listed(by, **wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(security, "list_keys", lenient)
    before = len(api.node.audit.entries)
    assert (await api.ask("GET", "/api/keys", Role.OPERATOR)).status_code == 200
    [entry] = _new(api, before)
    assert (entry.actor, entry.action, entry.resource, entry.outcome) == (
        "operator",
        "users:manage",
        "users/eve",
        "forbidden",
    )
    assert entry.detail["client"] == "127.0.0.1"


async def test_outside_of_a_request_whoever_refuses_writes_it(api: Api) -> None:
    operator = api.node.security.verify(await api.node.token(Role.OPERATOR))
    before = len(api.node.audit.entries)
    with pytest.raises(Forbidden):
        api.node.security.check(operator, Permission.AUDIT_READ, "audit")
    [entry] = _new(api, before)
    assert (entry.actor, entry.action, entry.resource, entry.outcome) == (
        "operator",
        "audit:read",
        "audit",
        "forbidden",
    )


async def test_what_is_held_is_of_one_request_bounded_and_taken_once() -> None:
    assert not hold(REFUSAL)

    async def request() -> list[bool]:
        with held() as refusals:
            kept = [hold(REFUSAL) for _ in range(MAX_HELD + 1)]
            assert len(refusals.take()) == MAX_HELD
        with held() as refusals:
            assert await asyncio.to_thread(hold, REFUSAL) and len(refusals.take()) == 1
            return [*kept, hold(REFUSAL)]

    assert list(await asyncio.gather(request(), request())) == [[*[True] * MAX_HELD, False, False]] * 2
    assert not hold(REFUSAL)
