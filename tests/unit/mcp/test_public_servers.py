"""The public reference servers, as their makers publish them: from npm and PyPI, over stdio, in one hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chimera.mcp.status import State
from tests.unit.mcp.hubs import holdings, hub

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

NPM = [f"@modelcontextprotocol/server-{name}@2026.8.31" for name in ("everything", "filesystem", "memory")]
PYPI = ["mcp-server-time==2026.10.19", "mcp-server-git==2026.10.19"]


def done(*command: str, cwd: Path) -> None:
    found = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{' '.join(command)}: {found.stderr[-2_000:]}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public")
    done("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *NPM, cwd=folder)
    done(sys.executable, "-m", "venv", str(folder / "venv"), cwd=folder)
    done(str(folder / "venv/bin/pip"), "install", "--quiet", *PYPI, cwd=folder)
    return folder


@pytest.fixture
def entries(installed: Path, tmp_path: Path) -> dict[str, Any]:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.txt").write_text("what is in a")
    done("git", "init", "--quiet", cwd=work)
    npm, venv = installed / "node_modules/.bin", installed / "venv/bin"
    return {
        "everything": {"command": f"{npm}/mcp-server-everything"},
        "filesystem": {"command": f"{npm}/mcp-server-filesystem", "args": [str(work)]},
        "memory": {
            "command": f"{npm}/mcp-server-memory",
            "env": {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")},
        },
        "time": {"command": f"{venv}/mcp-server-time"},
        "git": {"command": f"{venv}/mcp-server-git", "args": ["--repository", str(work)]},
    }


async def test_the_public_servers_are_connected_called_and_closed(entries: dict[str, Any], tmp_path: Path) -> None:
    work = str(tmp_path / "work")
    before = holdings()
    patient = {name: {**entry, "chimera": {"connect_s": 60}} for name, entry in entries.items()}
    async with hub(patient) as servers:
        states = await servers.connect_all(120)
        assert {name: status.state for name, status in states.items()} == dict.fromkeys(sorted(entries), State.READY)
        assert all(status.tools and not status.left_out for status in states.values())
        await servers.sweep()
        assert all(status.memory_bytes > 10 * 2**20 for status in servers.status().values())

        async def call(server: str, tool: str, **arguments: Any) -> str:
            result = await servers.call(server, tool, arguments, timeout_s=60)
            assert not result.is_error, result.text
            return result.text

        assert "hello" in await call("everything", "echo", message="hello")
        assert "what is in a" in await call("filesystem", "read_text_file", path=f"{work}/a.txt")
        entity = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
        await call("memory", "create_entities", entities=[entity])
        assert "Ada" in await call("memory", "search_nodes", query="programs")
        assert json.loads(await call("time", "get_current_time", timezone="UTC"))["timezone"] == "UTC"
        assert "a.txt" in await call("git", "git_status", repo_path=work)
        outside = await servers.call("filesystem", "read_text_file", {"path": "/etc/passwd"}, timeout_s=60)
        assert outside.is_error
    after = holdings()
    assert (after[0], after[2]) == (before[0], before[2])
