"""What test_scaling.py has happen with a swarm: its load brings nodes, and they go with it. Prints a line a step."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from chimera.actors import cluster, scaling
from chimera.core.types import MissionState
from chimera.swarm.status import SwarmStatus

PATIENCE_S = 120.0

WORK_S = 0.2


BACKLOG = 1_500


async def burns(task: Task, context: object) -> int:
    """Takes a CPU for a while, in pieces, for as long as there is load."""
    until = time.monotonic() + WORK_S
    while time.monotonic() < until and not os.path.exists(str(task.inputs["over"])):  # noqa: ASYNC240
        sum(range(2_000))
        await asyncio.sleep(0)
    return int(str(task.inputs["n"]))


def alive() -> int:
    return sum(node.alive for node in scaling.nodes())


def inhabited(status: SwarmStatus) -> int:
    """Nodes that have a cell which is up."""
    return sum(node.cells > 0 for node in status.nodes)


def say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


async def holds(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def until(what: str, nodes: int, swarm: SwarmCoordinator) -> None:
    begun = time.monotonic()
    while await asyncio.to_thread(alive) != nodes:
        if time.monotonic() - begun > PATIENCE_S:
            raise SystemExit(f"in vain: {what}; {scaling.nodes()}, {await swarm.status()}")
        await asyncio.sleep(0.2)
    say(f"{what}: {time.monotonic() - begun:.1f} s")


async def main() -> None:
    over = Path(tempfile.mkdtemp()) / "over"
    settings = Settings(cells=1, max_cells=6, max_missions=2_000, scale_down_s=2.0, journal_url="memory://")
    async with SwarmCoordinator(settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(policy=burns)] * 60)
        done: list[int] = []
        loaded = True

        async def client(first: int) -> None:
            n = first
            while loaded:
                result = await swarm.submit_task(Task(goal="n", inputs={"n": n, "over": str(over)}, deadline_s=300.0))
                assert result.state is MissionState.ANSWERED and result.value == n, result
                done.append(n)
                n += BACKLOG

        clients = [asyncio.create_task(client(first)) for first in range(BACKLOG)]
        await until("under load: 3 nodes", 3, swarm)
        async with asyncio.timeout(PATIENCE_S):
            while inhabited(status := await swarm.status()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        before = len(done)
        await holds(lambda: len(done) >= before + 60)
        say(f"{status.cells_up} cells on {inhabited(status)} nodes")
        loaded = False
        over.touch()
        await asyncio.gather(*clients)
        say(f"{len(done)} tasks, none lost")
        assert len(done) == len(set(done))
        await until("load gone: 1 node", 1, swarm)
        status = await swarm.status()
        assert status.agents == 60 and status.cells == 1, status
        await holds(lambda: cluster.find(scaling.HEADROOM) is None)
        say("the request is released")


if __name__ == "__main__":
    asyncio.run(main())
