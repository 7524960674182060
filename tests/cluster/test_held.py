"""A mission that waits for a person, over a real Ray: its whole swarm dies, and the answer still finds it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chimera import Settings, SwarmCoordinator
from chimera.core.types import MissionState
from chimera.system.held_missions import KIND, bridge_held
from chimera.system.review import open_desk
from tests.acceptance.test_run import chimera
from tests.actors.in_process import until
from tests.conftest import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(180)]

DOOMED = """
import asyncio, sys
from chimera import AgentSpec, Settings, SwarmCoordinator, Task

async def main():
    async with SwarmCoordinator(settings=Settings(address=sys.argv[1], cells=1)) as swarm:
        await swarm.spawn_agent(AgentSpec(policy="tests.policies:unsure"))
        mission_id = await swarm.start_task(Task(goal="who?", review="policy"))
        while not await swarm.held():
            await asyncio.sleep(0.1)
        print(mission_id, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def left_behind(local_ray: Settings, home: Path, tmp_path: Path) -> str:
    """A mission that waited for a person when its swarm was killed."""
    script = tmp_path / "doomed.py"
    script.write_text(DOOMED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CHIMERA_ORPHAN_S": "3"}
    command = [sys.executable, str(script), local_ray.address]
    client = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert client.stdout is not None
        return client.stdout.readline().strip()
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()


async def test_a_held_mission_outlives_its_swarm_and_goes_on_after_the_answer(
    left_behind: str, local_ray: Settings
) -> None:
    mission_id = left_behind
    listed = (await asyncio.to_thread(chimera, "missions", "list", "--json")).stdout.splitlines()
    assert [(each["mission_id"], each["state"]) for each in map(json.loads, listed)] == [(mission_id, "held")]

    settings = Settings(address=local_ray.address, cells=1)
    async with SwarmCoordinator(settings=settings) as swarm:
        async with asyncio.timeout(60.0):
            while True:  # Ray takes a moment to see that the swarm is dead
                try:
                    await swarm.resume(mission_id)
                    break
                except Exception:
                    await asyncio.sleep(0.5)
        bridge = asyncio.create_task(bridge_held(swarm, settings))
        try:
            async with open_desk(settings) as desk, asyncio.timeout(60.0):
                await until(desk.queue.waiting)
                [item] = await desk.queue.waiting()
                assert (item.proposal.kind, item.proposal.mission) == (KIND, mission_id)
                [reviewer] = desk.queue.policy.reviewers
                await desk.queue.approve(item.id, reviewer)
                ended = await swarm.result(mission_id)
        finally:
            bridge.cancel()
            await asyncio.gather(bridge, return_exceptions=True)
        assert (ended.state, ended.value) == (MissionState.ANSWERED, "maybe")
        assert await swarm.held() == []
