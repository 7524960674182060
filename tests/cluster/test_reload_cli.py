"""`chimera reload` as a user runs it: in a process of its own, against a swarm whose agents are at work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chimera import AgentSpec, Settings
from chimera.core.types import Isolation
from tests.conftest import ROOT, Crew

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

MODULE = "tests.reloadable"

SOURCE = """
VERSION = {version}


class Counter:
    def __init__(self):
        self.calls = 0

    async def __call__(self, task, context):
        self.calls += 1
        return {{"version": VERSION, "calls": self.calls}}


def which(task, context):
    return VERSION
"""

ONE_WAY = """

def migrate(state, old_version):
    return {"calls": state["calls"] + 100}
"""


def source(version: int, more: str = "") -> str:
    return SOURCE.format(version=version) + more


class Shell:
    """A folder in which somebody works on the code, and the commands that are given there."""

    def __init__(self, folder: Path, crew: Crew, ray: Settings) -> None:
        self.folder = folder
        self.file = folder / "tests" / "reloadable.py"
        self._crew = crew
        self._where = ("--address", ray.address, "--name", crew.swarm.name)

    def write(self, text: str) -> None:
        """In one go, as editors do."""
        beside = self.file.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.file)

    def command(self, *arguments: str) -> dict[str, Any]:
        where = self._where[:2] if "--name" in arguments else self._where
        return {
            "args": [sys.executable, "-m", "chimera", *arguments, *where],
            "cwd": self.folder,
            "env": {**os.environ, "PYTHONPATH": str(ROOT)},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }

    async def chimera(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return await asyncio.to_thread(partial(subprocess.run, **command, text=True, timeout=100, check=False))

    async def told(self, *arguments: str) -> Any:
        """The document that a command prints that goes well."""
        done = await self.chimera(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @asynccontextmanager
    async def watching(self, ending: signal.Signals) -> AsyncIterator[asyncio.StreamReader]:
        """A watch that is ready; what it prints. It is ended by that signal, in good order."""
        command = self.command("reload", "--watch", "tests", "--json")
        process = await asyncio.create_subprocess_exec(*command.pop("args"), **command)
        assert process.stdout is not None and process.stderr is not None
        try:
            async with asyncio.timeout(100):
                assert b"watching" in await process.stderr.readline()
                yield process.stdout
                process.send_signal(ending)
                printed, said = await process.communicate()
            assert process.returncode == 0, said
            assert printed == b"" and said.startswith(b"ended: "), said
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def answers(self) -> list[Any]:
        """Of the packed agents, and of the one that has a process of its own."""
        found = [await self._crew.submit(replicas=1), await self._crew.submit(replicas=1, role="alone")]
        return [result.value for result in found]


@pytest.fixture
async def shell(own_crew: Crew, local_ray: Settings, tmp_path: Path) -> Shell:
    """Beside a swarm of three cells: an agent in one, another in a process of its own."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    policy = f"{MODULE}:Counter"
    await own_crew.swarm.spawn_agents(
        [
            AgentSpec(role=own_crew.role, policy=policy),
            AgentSpec(role="alone", policy=policy, isolation=Isolation.DEDICATED),
        ]
    )
    return Shell(tmp_path, own_crew, local_ray)


def versions(*numbers: int, calls: int) -> list[dict[str, int]]:
    return [{"version": number, "calls": calls} for number in numbers]


async def test_code_is_loaded_and_rolled_back_while_agents_keep_their_state(shell: Shell) -> None:
    assert await shell.answers() == versions(1, 1, calls=1)
    shell.write(source(2))
    done = await shell.chimera("reload", MODULE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{MODULE}  version 2 in 3 cells, ") and done.stdout.endswith(" ms)\n")
    assert await shell.answers() == versions(2, 2, calls=2)

    other = shell.folder / "elsewhere.py"
    other.write_text(source(3), encoding="utf-8")
    third = await shell.told("reload", MODULE, "--source", "elsewhere.py")
    assert (third["version"], third["actors"], third["changed"]) == (3, 3, True)
    assert third["prepare_ms"] > 0 and third["commit_ms"] > 0
    assert await shell.answers() == versions(3, 3, calls=3)
    again = await shell.told("reload", MODULE, "--source", str(other))
    assert (again["version"], again["changed"]) == (3, False)

    status = await shell.told("reload", "--status")
    assert (status["reloaded"], status["rolled_back"], status["failed"]) == (2, 0, 0)
    now = status["modules"][MODULE]
    assert (now["version"], now["actors"], now["behind"], now["kept"]) == (3, 3, 0, 2)
    assert now["digest"] == third["digest"]

    assert (await shell.told("reload", MODULE, "--roll-back"))["version"] == 2
    assert await shell.answers() == versions(2, 2, calls=4)
    assert (await shell.told("reload", MODULE, "--roll-back"))["version"] == 1
    assert await shell.answers() == versions(1, 1, calls=5)


async def test_what_is_refused_and_what_is_not_there_changes_nothing(shell: Shell) -> None:
    for broken, said in (
        (source(2, "raise ValueError('not this')\n"), "not this"),
        (source(2, "def wrong(:\n"), "line 16: invalid syntax"),
        (source(2).replace("Counter", "Other"), "has no Counter"),
    ):
        shell.write(broken)
        done = await shell.chimera("reload", MODULE, "--json")
        assert done.returncode == 1, done.stderr
        error = json.loads(done.stdout)["error"]
        assert error["kind"] == "ReloadError" and said in error["message"]
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    for arguments, code, said in (
        (("tests.unheard", "--roll-back"), 1, "has not been reloaded"),
        (("tests.unheard", "--status"), 2, "has not been reloaded"),
        (("--status", "--name", "swarm-none"), 2, "no swarm 'swarm-none'"),
    ):
        refused = await shell.chimera("reload", *arguments)
        assert (refused.returncode, refused.stdout) == (code, ""), refused.stderr
        assert said in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert await shell.answers() == versions(1, 1, calls=1)


async def test_states_that_cannot_go_back_go_back_with_lossy_only(shell: Shell) -> None:
    await shell.answers()
    shell.write(source(2, ONE_WAY))
    await shell.told("reload", MODULE)
    assert await shell.answers() == versions(2, 2, calls=102)
    refused = await shell.chimera("reload", MODULE, "--roll-back")
    assert refused.returncode == 1 and "migrate_back" in refused.stderr
    assert await shell.answers() == versions(2, 2, calls=103)
    assert (await shell.told("reload", MODULE, "--roll-back", "--lossy"))["version"] == 1
    assert await shell.answers() == versions(1, 1, calls=2)


async def test_what_is_saved_is_loaded_until_the_end_is_asked_for(shell: Shell) -> None:
    async with shell.watching(signal.SIGTERM) as printed:
        shell.write(source(2))
        first = json.loads(await printed.readline())
        assert (first["module"], first["version"], first["actors"]) == (MODULE, 2, 3)
        assert first["save_to_committed_ms"] >= first["prepare_ms"] + first["commit_ms"] > 0
        assert await shell.answers() == versions(2, 2, calls=1)

        shell.write(source(3, "def half("))
        broken = json.loads(await printed.readline())
        assert broken["error"]["kind"] == "ReloadError" and "line " in broken["error"]["message"]
        shell.write(source(4))
        assert json.loads(await printed.readline())["version"] == 3
        assert await shell.answers() == versions(4, 4, calls=2)
    async with shell.watching(signal.SIGINT) as printed:
        beside = shell.file.with_name("brought.py")
        beside.write_text("NEW = 1\n", encoding="utf-8")
        assert json.loads(await printed.readline())["module"] == "tests.brought"
        beside.unlink()
        assert "gone" in json.loads(await printed.readline())["skipped"]
