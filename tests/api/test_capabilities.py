"""Capabilities from end to end: issued over HTTP, narrowed offline, asked by the guard of tools, revoked for all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chimera import Client
from chimera.core.clock import ManualClock
from chimera.core.errors import Forbidden, InputError, NotThere, Overloaded
from chimera.security import capability_home
from chimera.security.capabilities import CapabilityToken, attenuate, contents
from chimera.security.capability_home import CapabilityHome
from chimera.security.caveats import ExpiresAt, OnlyOperations, OnResource
from chimera.security.gateway.guard import Call, Effect, Tool, ToolGuard
from chimera.security.held import HeldCapability
from chimera.security.manager import LOCAL
from chimera.security.roles import Role
from tests.api.serving import Served
from tests.api.whole import Api

BOTH = ["pays:transfer", "tainted:pays:transfer", "sends:mail", "tainted:sends:mail"]

ASKED: dict[str, Any] = {"operations": BOTH, "resource": "accounts/*", "ttl_s": 600, "holder": "agent-7"}

TOOL_PROCESS = """
import sys
from pathlib import Path
from chimera.security.capabilities import CapabilityToken
from chimera.security.capability_home import CapabilityHome
from chimera.security.gateway.guard import Call, Effect, Tool, ToolGuard
from chimera.security.held import HeldCapability

guard = ToolGuard([Tool("transfer", frozenset({Effect.PAYS})), Tool("mail", frozenset({Effect.SENDS}))])
with CapabilityHome(Path(sys.argv[1])) as authority:
    for line in sys.stdin:
        token, tool, resource = line.split()
        held = HeldCapability(authority, CapabilityToken(token))
        call = Call(tool, resource)
        print(guard.allow(call, tainted_by=frozenset({"a page"}), capability=held).allowed, flush=True)
"""

GUARD = ToolGuard([Tool("transfer", frozenset({Effect.PAYS}))])

TAINT = frozenset({"a page"})


class ToolProcess:
    """Another process of the machine, which has tools and their guard."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def allows(self, token: CapabilityToken, tool: str, resource: str) -> bool:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{token.text} {tool} {resource}\n")
        self._process.stdin.flush()
        return {"True": True, "False": False}[self._process.stdout.readline().strip()]


@contextmanager
def tool_process(folder: Path) -> Iterator[ToolProcess]:
    command = [sys.executable, "-c", TOOL_PROCESS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield ToolProcess(process)
        finally:
            process.kill()


def test_a_users_capability_narrowed_by_an_agent_permits_one_tool_on_one_resource_until_it_is_revoked(
    server: Served,
) -> None:
    folder = server.node.answers.parent
    with Client(server.url, server.token(Role.OPERATOR)) as client, tool_process(folder) as tools:
        token, revocation_id = client.issue_capability(BOTH, "accounts/*", ttl_s=600, holder="agent-7")
        other, _ = client.issue_capability(BOTH, "accounts/*", ttl_s=600)
        assert token.text not in repr(token) and contents(token).right.subject == "agent-7"
        one = (OnResource("accounts/acme"), OnlyOperations(("pays:transfer", "tainted:pays:transfer")))
        narrowed = attenuate(token, *one)
        assert tools.allows(token, "transfer", "accounts/acme")
        assert tools.allows(token, "mail", "accounts/other")
        assert tools.allows(narrowed, "transfer", "accounts/acme")
        for tool, resource in (
            ("mail", "accounts/acme"),
            ("transfer", "accounts/other"),
            ("transfer", "accounts/acme/sub"),
            ("transfer", "accounts/../accounts/acme"),
            ("unknown", "accounts/acme"),
        ):
            assert not tools.allows(narrowed, tool, resource), (tool, resource)
        wider = attenuate(narrowed, OnResource("accounts/*"))
        assert not tools.allows(wider, "transfer", "accounts/other")
        assert not tools.allows(CapabilityToken(narrowed.text[:-4] + "AAAA"), "transfer", "accounts/acme")
        client.revoke_capability(revocation_id)
        for _ in range(6_000):  # it is heard of within a second; a busy machine is given more
            if not tools.allows(narrowed, "transfer", "accounts/acme"):
                break
        assert not tools.allows(narrowed, "transfer", "accounts/acme")
        assert not tools.allows(token, "transfer", "accounts/acme")
        assert tools.allows(other, "transfer", "accounts/acme")


async def test_one_issues_out_of_what_one_may_do_and_it_is_told_once(api: Api) -> None:
    made = await api.ask("POST", "/api/capabilities", Role.OPERATOR, json=ASKED)
    assert made.status_code == 201 and set(made.json()) == {"token", "id", "expires_at"}
    said = contents(CapabilityToken(made.json()["token"]))
    assert said.revocation_ids == (made.json()["id"],) and said.expires_at == made.json()["expires_at"]
    for operation, role, status in (
        ("users:manage", Role.OPERATOR, 403),
        ("users:manage", Role.ADMIN, 201),
        ("swarm:task", Role.OPERATOR, 201),
        ("swarm:read", Role.OBSERVER, 403),
        ("swarm:task", Role.API_CLIENT, 403),
    ):
        body = {"operations": [operation], "resource": "missions/1"}
        assert (await api.ask("POST", "/api/capabilities", role, json=body)).status_code == status, (operation, role)
    for wrong, status in (
        ({"ttl_s": 0}, 422),
        ({"ttl_s": 1e6}, 422),
        ({"operations": []}, 422),
        ({"operations": ["x"] * 17}, 422),
        ({"operations": ['x"; allow if true;']}, 400),
        ({"resource": "../etc"}, 400),
        ({"holder": 'a"'}, 400),
        ({"caveats": {"uses": 0}}, 422),
        ({"caveats": {"resource": "a/../b"}}, 400),
        ({"caveats": {"allow": "all"}}, 422),
    ):
        told = await api.ask("POST", "/api/capabilities", Role.OPERATOR, json={**ASKED, **wrong})
        assert told.status_code == status, (wrong, told.text)
    written = repr([vars(each) for each in api.node.audit.entries])
    assert made.json()["token"] not in written and "tainted:pays:transfer" in written


async def test_caveats_that_are_asked_for_hold(api: Api) -> None:
    caveats = {
        "expires_at": api.node.clock.now() + 60,
        "resource": "accounts/acme",
        "operations": ["pays:transfer"],
        "max_usd": 5,
        "uses": 2,
        "tenant": "red",
    }
    made = await api.ask("POST", "/api/capabilities", Role.OPERATOR, json={**ASKED, "caveats": caveats})
    token, authority = CapabilityToken(made.json()["token"]), api.node.capabilities

    def held(usd: float | None = 1.0, tenant: str = "red") -> HeldCapability:
        return HeldCapability(authority, token, amount_usd=usd, tenant=tenant)

    assert not held(None).verify("pays:transfer", "accounts/acme"), "what a payment costs was not said"
    assert not held(5.01).verify("pays:transfer", "accounts/acme")
    assert not held(tenant="blue").verify("pays:transfer", "accounts/acme")
    assert not held().verify("sends:mail", "accounts/acme")
    assert not held().verify("pays:transfer", "accounts/other")
    assert [held(5.0).verify("pays:transfer", "accounts/acme") for _ in range(3)] == [True, True, False]
    api.node.clock.ahead_s = 90.0
    fresh = attenuate(api.node.capabilities.issue("a", ["x"], "r", ttl_s=60), ExpiresAt(api.node.clock.now() - 1))
    assert not HeldCapability(authority, fresh).verify("x", "r")


async def test_one_revokes_ones_own_and_an_admin_anybodys(api: Api) -> None:
    await api.node.security.create_user("ada", "a long enough passphrase", Role.OPERATOR, by=LOCAL)
    made = [(await api.ask("POST", "/api/capabilities", Role.OPERATOR, json=ASKED)).json() for _ in range(3)]
    ids = [each["id"] for each in made]
    assert (await api.ask("DELETE", f"/api/capabilities/{ids[0]}", "ada")).status_code == 404
    unknown = "0123456789abcdef" * 2
    assert (await api.ask("DELETE", f"/api/capabilities/{unknown}", "ada")).status_code == 404
    assert (await api.ask("DELETE", f"/api/capabilities/{ids[0]}", Role.OPERATOR)).status_code == 204
    assert (await api.ask("DELETE", f"/api/capabilities/{ids[1]}", Role.ADMIN)).status_code == 204
    child = attenuate(CapabilityToken(made[2]["token"]), OnResource("accounts/acme"))
    assert (await api.ask("DELETE", f"/api/capabilities/{contents(child).revocation_ids[-1]}", Role.ADMIN)).is_success
    for token, good in (
        *((CapabilityToken(made[n]["token"]), n == 2) for n in range(3)),
        (child, False),
    ):
        assert HeldCapability(api.node.capabilities, token).verify("sends:mail", "accounts/acme") is good
    told = [(each.actor, each.resource) for each in api.node.audit.entries if each.action == "capability:revoke"]
    assert told[:2] == [("operator", f"capabilities/{ids[0]}"), ("admin", f"capabilities/{ids[1]}")]


async def test_whoever_is_of_a_tenant_issues_and_revokes_within_it(api: Api) -> None:
    for name, role, tenant in (
        ("rita", Role.OPERATOR, "red"),
        ("ruth", Role.ADMIN, "red"),
        ("bea", Role.ADMIN, "blue"),
    ):
        await api.node.security.create_user(name, "a long enough passphrase", role, by=LOCAL, tenant=tenant)
    made = (await api.ask("POST", "/api/capabilities", "rita", json=ASKED)).json()
    token, authority = CapabilityToken(made["token"]), api.node.capabilities
    assert HeldCapability(authority, token, tenant="red").verify("sends:mail", "accounts/acme")
    assert not HeldCapability(authority, token, tenant="blue").verify("sends:mail", "accounts/acme")
    assert not HeldCapability(authority, token).verify("sends:mail", "accounts/acme")
    path = f"/api/capabilities/{made['id']}"
    assert (await api.ask("DELETE", path, "bea")).status_code == 404
    assert (await api.ask("DELETE", f"/api/capabilities/{'0' * 32}", "bea")).status_code == 404
    assert (await api.ask("DELETE", path, "ruth")).status_code == 204


def test_what_is_known_of_issuers_is_bounded_and_forgotten_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capability_home, "MAX_ISSUED_EACH", 2)
    monkeypatch.setattr(capability_home, "MAX_ISSUED", 4)
    clock = ManualClock(1_800_000_000.0)
    with CapabilityHome(tmp_path, clock=clock) as home:
        made = [home.issue_for(by, "a", ["x"], "r", ttl_s=60) for by in ("ada", "ada", "bob")]
        known = home.issued(contents(made[0]).revocation_ids[0])
        assert known is not None and (known.issuer, known.until) == ("ada", clock.now() + 60)
        with pytest.raises(Overloaded):
            home.issue_for("ada", "a", ["x"], "r", ttl_s=60)
        home.issue_for("bob", "a", ["x"], "r", ttl_s=60)
        with pytest.raises(Overloaded):
            home.issue_for("eve", "a", ["x"], "r", ttl_s=60)
        clock.advance(61.0)
        home.issue_for("ada", "a", ["x"], "r", ttl_s=60)
        assert home.issued(contents(made[0]).revocation_ids[0]) is None
    assert {oct(file.stat().st_mode & 0o077) for file in tmp_path.iterdir()} == {"0o0"}


def test_the_client_says_what_was_wrong(server: Served) -> None:
    with Client(server.url, server.token(Role.OPERATOR)) as client:
        with pytest.raises(InputError, match="small letters"):
            client.issue_capability(["NO"], "accounts/acme")
        with pytest.raises(Forbidden, match="users:manage"):
            client.issue_capability(["users:manage"], "users/*")
        with pytest.raises(NotThere):
            client.revoke_capability("0" * 32)
        token, _ = client.issue_capability(["x:y"], "r/*", caveats={"resource": "r/1"})
        assert contents(token).blocks[0][-1] == OnResource("r/1")


async def test_a_call_that_no_capability_permits_is_refused_with_the_detector_off(api: Api) -> None:
    made = await api.ask("POST", "/api/capabilities", Role.OPERATOR, json={**ASKED, "operations": ["pays:transfer"]})
    held = HeldCapability(api.node.capabilities, CapabilityToken(made.json()["token"]))
    call = Call("transfer", "accounts/acme")
    assert GUARD.allow(call, tainted_by=frozenset(), capability=held).allowed
    assert not GUARD.allow(call, tainted_by=TAINT, capability=held).allowed
    for nonsense in ("", "chcap1.", "e30.e30.e30", made.json()["token"] + "x"):
        broken = HeldCapability(api.node.capabilities, CapabilityToken(nonsense))
        assert not GUARD.allow(call, tainted_by=frozenset(), capability=broken).allowed
