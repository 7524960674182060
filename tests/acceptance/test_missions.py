"""`chimera missions`, and what is left of a mission when its whole cluster was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from tests.acceptance.test_run import chimera
from tests.conftest import ROOT, Crew

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

DOOMED = """
import asyncio, sys
from chimera import AgentSpec, Settings, SwarmCoordinator
from chimera.swarm.mission import Mission

MISSION = Mission.model_validate({
    "goal": "two steps",
    "replicas": 1, "consensus": "majority", "limits": {"deadline_s": 600, "attempt_timeout_s": 500},
    "tasks": [
        {"id": "first", "goal": "quick", "inputs": {"answer": 41}},
        {"id": "last", "goal": "waits for a file", "after": ["first"], "inputs": {"path": sys.argv[2], "answer": 42}},
    ],
})

async def main():
    async with SwarmCoordinator(settings=Settings(address=sys.argv[1], cells=1)) as swarm:
        await swarm.spawn_agents([AgentSpec(policy="tests.policies:waits_for_a_file")] * 3)
        print(await swarm.start(MISSION), flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def unfinished(local_ray: Settings, home: Path, tmp_path: Path) -> tuple[str, Path]:
    """A mission whose client was killed when its first task was decided, and the file that its second one waits for."""
    script, wanted = tmp_path / "doomed.py", tmp_path / "wanted"
    script.write_text(DOOMED, encoding="utf-8")
    client = subprocess.Popen(
        [sys.executable, str(script), local_ray.address, str(wanted)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CHIMERA_ORPHAN_S": "3"},
    )
    try:
        assert client.stdout is not None
        mission_id = client.stdout.readline().strip()
        until = time.monotonic() + 60
        while "task_decided" not in chimera("missions", "show", mission_id).stdout:
            assert time.monotonic() < until, "the first task was not decided"
            time.sleep(0.2)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    return mission_id, wanted


def test_a_mission_whose_swarm_was_killed_is_resumed_where_it_stood(
    unfinished: tuple[str, Path], local_ray: Settings
) -> None:
    mission_id, wanted = unfinished
    listed = [json.loads(line) for line in chimera("missions", "list", "--running", "--json").stdout.splitlines()]
    assert [found["mission_id"] for found in listed] == [mission_id]
    wanted.touch()
    until = time.monotonic() + 60
    while True:  # Ray takes a moment to see that the swarm is dead
        done = chimera("missions", "resume", mission_id, "--json", "--address", local_ray.address)
        if "is running in" not in done.stderr + done.stdout or time.monotonic() > until:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "answered"
    events = [json.loads(line) for line in chimera("missions", "show", mission_id, "--json").stdout.splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds.count("mission_resumed") == kinds.count("mission_ended") == 1
    accepted = [event["task_id"] for event in events if event["kind"] == "reply_accepted"]
    assert accepted == ["first", "last"], "what was decided before is not decided again"
    assert len({event["swarm"] for event in events}) == 2
    again = chimera("missions", "resume", mission_id, "--address", local_ray.address)
    assert again.returncode == 2 and "has ended" in again.stderr


def test_a_running_mission_is_cancelled_from_outside(local_ray: Settings) -> None:
    async def scenario() -> None:
        async with SwarmCoordinator(settings=Settings(address=local_ray.address, cells=1)) as swarm:
            await swarm.spawn_agent(AgentSpec(policy="tests.policies:hangs"))
            mission_id = await swarm.start_task(Task(goal="for ever", deadline_s=600.0))
            where = ("--address", local_ray.address, "--name", swarm.name, "--json")
            done = await asyncio.to_thread(chimera, "missions", "cancel", mission_id, *where)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["state"] == "cancelled"
            assert (await swarm.result(mission_id)).state == "cancelled"

    asyncio.run(scenario())


def test_top_shows_a_swarm_from_outside(crew: Crew, local_ray: Settings) -> None:
    shown = chimera("top", "--once", "--name", crew.swarm.name, "--address", local_ray.address)
    assert shown.returncode == 0, shown.stderr
    assert crew.swarm.name in shown.stdout and "Manager[0]" in shown.stdout
    told = chimera("top", "--json", "--name", crew.swarm.name, "--address", local_ray.address)
    assert json.loads(told.stdout)["swarm"] == crew.swarm.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "mission-none"), "no mission 'mission-none'"),
        (("resume", "mission-none"), "no mission 'mission-none'"),
        (("list", "--journal", "ftp://x"), "is not a journal"),
        (("list", "--journal", "sqlite:///no/such/journal.db"), "there is no journal"),
        (("show", "mission-none", "--journal", "sqlite:///docs"), "docs: "),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple[str, ...], said: str, home: Path) -> None:
    done = chimera("missions", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [("run", "q?", "--docs", "docs"), ("bench", "swarm", "--agents", "1")])
def test_a_swarm_whose_journal_cannot_be_opened_is_bad_input(
    command: tuple[str, ...], local_ray: Settings, tmp_path: Path
) -> None:
    done = chimera(*command, "--address", local_ray.address, CHIMERA_JOURNAL_URL=f"sqlite:///{tmp_path}")
    assert done.returncode == 2, done.stderr
    assert f"error: {tmp_path}: unable to open database file" in done.stderr and "Traceback" not in done.stderr
