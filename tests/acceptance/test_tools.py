"""`chimera tools` as a person uses it, with real servers in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chimera.cli.main import app
from tests.mcp_servers import entry

ROOT = Path(__file__).parents[2]

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    write(place, good=entry(), dead={"command": "/nowhere/at-all"})
    return place


def write(home: Path, **servers: dict[str, Any]) -> None:
    (home / "mcp.json").write_text(json.dumps({"mcpServers": servers}))


@pytest.fixture
def chimera(home: Path) -> Run:
    """Runs a command on that home."""
    return lambda *words: CliRunner().invoke(app, words, env={"CHIMERA_HOME": str(home), "COLUMNS": "200"})


def told(done: Result) -> Any:
    return json.loads(done.stdout)


def test_tools_are_seen_approved_found_called_and_on_record(home: Path, chimera: Run) -> None:
    seen = chimera("tools", "servers", "--json", "--wait", "8")
    assert seen.exit_code == 1, "one of two is dead"
    assert told(seen)["servers"]["good"]["state"] == "ready"
    assert list(told(seen)["problems"]) == ["dead"]

    refused = chimera("tools", "call", "good/echo", "text=hi", "--yes")
    assert refused.exit_code == 1
    assert "not approved" in refused.stderr
    assert "chimera tools approve good" in refused.stderr
    nothing = chimera("tools", "search", "give a text back", "--json")
    assert (nothing.exit_code, told(nothing)["tools"]) == (1, []), "what nobody approved is found by nobody"

    unasked = chimera("tools", "approve", "good", "echo")
    assert unasked.exit_code == 2
    assert "nobody agreed" in unasked.stderr
    assert "Gives the text back." in unasked.stdout, "a person sees what they approve"
    approved = chimera("tools", "approve", "good", "echo", "sleep", "--yes", "--as", "ada", "--json")
    assert (approved.exit_code, told(approved)) == (0, {"approved": ["echo", "sleep"], "held": {}})

    found = chimera("tools", "search", "give the text back", "--json")
    assert [each["tool"] for each in told(found)["tools"]] == ["echo"]
    called = chimera("tools", "call", "good/echo", "text=hello \x1b[31m there", "--yes", "--as", "ada")
    assert called.exit_code == 0, called.stderr
    assert "hello \\x1b[31m there" in called.stdout
    wrong = chimera("tools", "call", "good/echo", '{"text": 5}', "--yes")
    assert wrong.exit_code == 1
    assert "refused (arguments)" in wrong.stderr

    log = chimera("audit", "tail", str(home / "tools/audit"), "--json").stdout
    entries = [json.loads(line) for line in log.splitlines()] if log.count("\n") > 1 else json.loads(log)
    outcomes = [(each["actor"], each["outcome"]) for each in entries if each["resource"] == "mcp/good/echo"]
    assert ("ada", "ok") in outcomes
    assert [outcome for _, outcome in outcomes].count("refused") == 2
    assert "hello" not in log, "the record holds no arguments"

    assert chimera("tools", "revoke", "good", "echo").exit_code == 0
    assert chimera("tools", "call", "good/echo", "text=hi", "--yes").exit_code == 1


def test_a_server_s_name_may_have_slashes(home: Path, chimera: Run) -> None:
    write(home, **{"org/name": entry()})
    assert chimera("tools", "approve", "org/name", "echo", "--yes").exit_code == 0
    assert chimera("tools", "call", "org/name/echo", "text=hi", "--yes").exit_code == 0


def test_a_person_is_asked_at_a_terminal(home: Path) -> None:
    write(home, good=entry())
    command = [sys.executable, "-m", "chimera", "tools"]
    controller, terminal = pty.openpty()

    def answered(answer: bytes, *words: str) -> subprocess.CompletedProcess[str]:
        os.write(controller, answer)
        environment = {**os.environ, "CHIMERA_HOME": str(home)}
        return subprocess.run(
            [*command, *words], env=environment, stdin=terminal, capture_output=True, text=True, timeout=60, check=False
        )

    try:
        done = answered(b"y\n", "approve", "good", "echo")
        assert done.returncode == 0, done.stderr
        assert "Approve this as" in done.stderr
        no = answered(b"no\n", "call", "good/echo", json.dumps({"text": "a" * 900, "to": "the end of it"}))
        assert no.returncode == 2
        assert "the end of it" in no.stderr, "whoever agrees has seen all of it"
        unread = answered(b"y\n", "call", "good/echo", f"text={'a' * 5_000}")
        assert unread.returncode == 2
        assert "too many to be asked about" in unread.stderr
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("call", "echo"), "SERVER/TOOL"),
        (("call", "good/echo", "text"), "name=value"),
        (("call", "good/echo", "[1]", "--yes"), "name=value"),
        (("call", "nobody/echo", "--yes"), "no server is called"),
        (("list", "nobody"), "no server is called"),
        (("search", " "), "1 to 4,000 characters"),
        (("servers", "--servers", "nowhere.json"), "nowhere.json"),
        (("evaluate", "nowhere.jsonl"), "nowhere.jsonl"),
        (("ask", "What time is it?"), "offline model knows no tools"),
    ],
)
def test_bad_input_says_what_to_do(home: Path, arguments: tuple[str, ...], why: str) -> None:
    write(home, good=entry())
    done = CliRunner().invoke(app, ["tools", *arguments], env={"CHIMERA_HOME": str(home)})
    assert done.exit_code == 2, done.stderr
    assert why in done.stderr
