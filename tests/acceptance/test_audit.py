"""`chimera audit` as a user runs it, over a log that a process wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.security.audit import AuditLog
from chimera.security.audit_entry import public_key_path, segments, signing_key
from tests.acceptance.test_run import chimera


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clock = ManualClock(1_800_000_000.0)
    log = AuditLog(tmp_path / "audit", signing_key(tmp_path / "key.pem"), clock=clock)
    for number in range(4):
        log.append("alice", "swarm:task", f"missions/{number}", "ok", {"n": number})
        log.append("bob", "keys:create", "keys/1", "forbidden", {"password": "hunter2", "shown": "\x1b[31m"})
        clock.advance(60.0)
    log.close()
    return tmp_path / "audit"


def test_a_whole_log_is_verified_and_a_changed_one_is_found(folder: Path, tmp_path: Path) -> None:
    key = str(shutil.copy(public_key_path(folder), tmp_path / "audit.pub"))
    done = chimera("audit", "verify", str(folder), "--key", key, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["entries"], report["first_problem"]) == (True, 8, None)

    elsewhere = (tmp_path / "audit-anchors").rename(tmp_path / "elsewhere")
    lost = chimera("audit", "verify", str(folder))
    assert lost.returncode == 1 and "anchor" in lost.stdout
    found = chimera("audit", "verify", str(folder), "--anchors", str(elsewhere))
    assert found.returncode == 0 and "whole" in found.stdout and "--key" in found.stderr
    assert chimera("audit", "verify", str(folder), "--anchors", str(elsewhere), "--at-least", "9").returncode == 1

    path = segments(folder)[0][1]
    path.write_bytes(path.read_bytes().replace(b"bob", b"eve", 1))
    changed = chimera("audit", "verify", str(folder), "--anchors", str(elsewhere), "--json")
    assert changed.returncode == 1
    problem = json.loads(changed.stdout)["first_problem"]
    assert (problem["kind"], problem["file"], problem["line"]) == ("changed", path.name, 3)
    told = chimera("audit", "verify", str(folder), "--anchors", str(elsewhere))
    assert "NOT WHOLE" in told.stdout and f"{path.name}, line 3" in told.stdout


def test_entries_are_shown_and_asked_for(folder: Path) -> None:
    last = chimera("audit", "tail", str(folder), "-n", "2")
    assert last.returncode == 0, last.stderr
    lines = last.stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("7 2027-01-15T08:03:00.000+00:00")
    assert "hunter2" not in last.stdout and "\x1b[31m" not in last.stdout

    asked = chimera("audit", "query", str(folder), "--actor", "alice", "--since", "2027-01-15T08:01Z", "--json")
    assert asked.returncode == 0, asked.stderr
    assert [json.loads(line)["resource"] for line in asked.stdout.splitlines()] == [
        "missions/1",
        "missions/2",
        "missions/3",
    ]
    page = chimera("audit", "query", str(folder), "--outcome", "forbidden", "--after", "2", "--limit", "1", "--json")
    assert [json.loads(line)["seq"] for line in page.stdout.splitlines()] == [4]
    none = chimera("audit", "query", str(folder), "--until", "2020-01-01")
    assert none.returncode == 0 and not none.stdout and "no entry" in none.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "nowhere"),
        ("tail", "nowhere"),
        ("query", "{folder}", "--since", "yesterday"),
        ("verify", "{folder}", "--key", "nowhere"),
    ],
)
def test_bad_input_is_told(folder: Path, arguments: tuple[str, ...]) -> None:
    done = chimera("audit", *(argument.format(folder=folder) for argument in arguments), "--json")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["message"]
