"""`chimera mcp serve` as MCP clients meet it: over stdio and over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "tests/data/qa/docs"
NAMES = ["run_mission", "mission_status", "ask_duel", "watch_metric"]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CHIMERA_HOME": str(home), "CHIMERA_ADDRESS": "local"}


def chimera(*words: str) -> list[str]:
    return [sys.executable, "-m", "chimera", *words]


@asynccontextmanager
async def connected(home: Path, *more: str) -> AsyncIterator[Client]:
    command, *arguments = chimera("mcp", "serve", *more)
    server = StdioServerParameters(command=command, args=arguments, env=environment(home), cwd=ROOT)
    async with Client(stdio_client(server)) as client:
        yield client


def texts(result: object) -> str:
    return " ".join(block.text for block in result.content)  # type: ignore[attr-defined]


async def test_a_client_sees_the_tools_at_once_and_asks_them(tmp_path: Path) -> None:
    async with connected(tmp_path, "--documents", str(DOCS)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == NAMES
        found = await client.call_tool("watch_metric", {"values": [1.0] * 200 + [50.0] + [1.0] * 20})
        assert [each["index"] for each in json.loads(texts(found))["anomalies"]] == [200]
        wrong = await client.call_tool("watch_metric", {"values": []})
        assert wrong.is_error
        duel = await client.call_tool(
            "ask_duel", {"champion": "python:os:system", "contender": "random", "env_ids": ["tictactoe-v0"]}
        )
        assert duel.is_error
        assert "may not duel here" in texts(duel)


@pytest.mark.soak
async def test_a_mission_runs_for_an_mcp_client(tmp_path: Path) -> None:
    async with connected(tmp_path, "--documents", str(DOCS)) as client:
        asked = {"goal": "Which is the largest market in the region?", "documents": ".", "deadline_s": 60}
        answer = texts(await client.call_tool("run_mission", asked))
        found = json.loads(answer)
        assert found["state"] == "answered"
        status = await client.call_tool("mission_status", {"mission_id": found["mission_id"]})
        assert json.loads(texts(status))["value"] == found["value"]
        outside = await client.call_tool("run_mission", {"goal": "x", "documents": "../.."})
        assert outside.is_error
        assert "no such folder" in texts(outside)


def test_over_http_the_token_is_asked_for_and_a_signal_ends_it(tmp_path: Path) -> None:
    command = chimera("mcp", "serve", "--http")
    process = subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url, path = re.findall(r"serving at (\S+); the token is in (\S+)", line)[0]
        token = Path(path).read_text().strip()
        assert Path(path).stat().st_mode & 0o077 == 0
        asked = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        with httpx2.Client() as http:
            assert http.post(url, json=asked, headers=headers).status_code == 401
            known = headers | {"authorization": f"Bearer {token}"}
            assert '"chimera"' in http.post(url, json=asked, headers=known).text
            rebound = http.post(url, json=asked, headers=known | {"host": "evil.example"})
            assert rebound.status_code in (403, 421)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_signal_ends_it_while_its_client_is_silent(tmp_path: Path) -> None:
    command = chimera("mcp", "serve")
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}\n')
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"jsonrpc":"2.0","id":1')
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--documents", "/nowhere/at/all"), "is no folder"),
        (("--model", "nonsense"), "nonsense"),
        (("--http", "--token-file", "/nowhere/token"), "cannot be read"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    command = chimera("mcp", "serve", *options)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
