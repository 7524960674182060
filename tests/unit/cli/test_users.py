"""`chimera users` and `chimera keys`: over the files of a node, whether it runs or not."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chimera.api.record import Record
from chimera.cli.main import app
from chimera.core.errors import Unauthenticated
from chimera.security.manager import SecurityManager
from chimera.security.roles import Permission, Role

PASSWORD = "nobody would guess this one 7"


def chimera(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def told(done: Result) -> list[dict[str, Any]]:
    """The documents that a command printed which went well."""
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_user_is_added_changed_shut_out_and_let_in(home: Path) -> None:
    [made] = told(chimera("users", "add", "ada", "--role", "observer", "--json"))
    security = SecurityManager(home / "security")
    pair = asyncio.run(security.authenticate("ada", made["one_time_password"], new_password=PASSWORD))
    assert security.verify(pair.access_token).role is Role.OBSERVER
    assert chimera("users", "role", "ada", "operator").exit_code == 0
    with pytest.raises(Unauthenticated):
        security.verify(pair.access_token)
    pair = asyncio.run(security.authenticate("ada", PASSWORD))
    assert security.verify(pair.access_token).role is Role.OPERATOR
    assert chimera("users", "disable", "ada").exit_code == 0
    with pytest.raises(Unauthenticated):
        asyncio.run(security.authenticate("ada", PASSWORD))
    assert chimera("users", "disable", "ada", "--enable").exit_code == 0
    [again] = told(chimera("users", "reset", "ada", "--json"))
    with pytest.raises(Unauthenticated):
        asyncio.run(security.authenticate("ada", PASSWORD))
    assert asyncio.run(security.authenticate("ada", again["one_time_password"], new_password=PASSWORD + "8"))
    [user] = told(chimera("users", "list", "--json"))
    assert (user["name"], user["role"], user["disabled"]) == ("ada", "operator", False)
    assert "password" not in "".join(user)
    security.close()


def test_a_key_is_made_shown_once_and_revoked(home: Path) -> None:
    told(chimera("users", "add", "ada", "--json"))
    [made] = told(
        chimera("keys", "create", "ada", "--scope", "swarm:task", "--rate-limit", "7", "--days", "1", "--json")
    )
    security = SecurityManager(home / "security")
    principal = security.verify(made["secret"])
    assert (principal.permissions, principal.rate_limit) == ({Permission.SWARM_TASK}, 7)
    [listed] = told(chimera("keys", "list", "--user", "ada", "--json"))
    assert listed["id"] == made["id"] and made["secret"] not in json.dumps(listed)
    assert made["secret"][:30] not in chimera("keys", "list").output
    assert chimera("keys", "revoke", made["id"]).exit_code == 0
    with pytest.raises(Unauthenticated):
        security.verify(made["secret"])
    security.close()


@pytest.mark.parametrize(
    "words",
    [
        ("users", "add", "Not A Name"),
        ("users", "add", "ada", "--role", "god"),
        ("users", "role", "nobody", "admin"),
        ("users", "disable", "nobody"),
        ("users", "reset", "nobody"),
        ("keys", "create", "nobody"),
        ("keys", "revoke", "none"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(words: tuple[str, ...]) -> None:
    done = chimera(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_each_change_is_written_down_and_no_secret_is(home: Path) -> None:
    [made] = told(chimera("users", "add", "ada", "--json"))
    [key] = told(chimera("keys", "create", "ada", "--json"))
    kept = b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    for secret in (made["one_time_password"], key["secret"], key["secret"][-20:]):
        assert secret.encode() not in kept
    record = Record.kept_in(home, "audit-local")
    assert [entry.outcome for entry in record.query(actor="local")] == ["created", "password reset", "ok"]
    record.close()
    for file in (home / "security").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_an_audit_log_is_handed_on_and_nothing_is_lost(tmp_path: Path) -> None:
    """While two gateways overlap, the newer one waits for the log."""
    before, after = Record.kept_in(tmp_path), Record.kept_in(tmp_path)
    before.append("ada", "first", "", "ok", {})
    after.append("ada", "third", "", "ok", {"n": 1})
    before.append("ada", "second", "", "ok", {})
    assert after.query() == ()
    taking = asyncio.create_task(after.taken())
    await asyncio.sleep(0.05)
    assert not taking.done()
    before.close()
    await asyncio.wait_for(taking, 10.0)
    after.append("ada", "fourth", "", "ok", {})
    found = after.query()
    assert [entry.action for entry in found] == ["first", "second", "third", "fourth"]
    assert found[2].detail["n"] == 1 and found[2].detail["waited_s"] >= 0.0
    after.close()
