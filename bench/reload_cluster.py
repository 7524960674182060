"""What hot reload takes over a swarm's cells, in milliseconds, each cell a process of its own.

    python -m bench.reload_cluster [--cells 8] [--agents 500] [--saves 30] [--json]

`committed` is from before a file is replaced to when every cell runs it (seen by the watcher, tried, decided,
taken up), with agents at work; `prepare` and `commit` are the coordinator's share of it. `roll_back` is the way back.
`control` is a cell's answer to a control message while its agents are 30 s in calls that sleep in a thread, and
`control_busy` while one of them computes without end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.reload import save, show, spread
from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from chimera.actors import cluster
from chimera.core.types import Isolation
from chimera.reload.watcher import CodeWatcher

MODULE = "bench_reloaded_agents"

CODE = """
import time

VERSION = {version}


class Counter:
    def __init__(self):
        self.calls = 0

    async def __call__(self, task, context):
        self.calls += 1
        return VERSION


def sleep(task, context):
    time.sleep(task.inputs["s"])


def compute(task, context):
    until = time.monotonic() + task.inputs["s"]
    while time.monotonic() < until:
        pass


def migrate(state, old_version):
    return dict(state)
"""

PAUSE_S = 0.1

CALL_S = 30.0


async def saves(swarm: SwarmCoordinator, file: Path, count: int) -> dict[str, list[float]]:
    """Files saved one after the other while agents work."""
    watcher = CodeWatcher(file.parent)
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def follow() -> None:
        async for _ in watcher.changes():
            done = await swarm.reload(MODULE, file)
            told.put_nowait((time.perf_counter(), done))

    async def work() -> None:
        while True:
            await swarm.submit_task(Task(goal="g", role="counter", replicas=1))

    tasks = [asyncio.create_task(follow()), *(asyncio.create_task(work()) for _ in range(4))]
    await watcher.ready.wait()
    rows: dict[str, list[float]] = {"committed": [], "prepare": [], "commit": [], "roll_back": []}
    for number in range(count):
        started = save(file, CODE.format(version=number + 2))
        at, done = await asyncio.wait_for(told.get(), 60)
        assert done.settled, done
        rows["committed"].append(at - started)
        rows["prepare"].append(done.prepare_ms / 1e3)
        rows["commit"].append(done.commit_ms / 1e3)
        await asyncio.sleep(PAUSE_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(min(count, 10)):
        started = time.perf_counter()
        assert (await swarm.roll_back(MODULE, lossy=True)).settled
        rows["roll_back"].append(time.perf_counter() - started)
    return rows


async def control(swarm: SwarmCoordinator, role: str, policy: str) -> list[float]:
    """Answers of a dedicated agent's process in the middle of a long call."""
    spec = AgentSpec(role=role, policy=f"{MODULE}:{policy}", isolation=Isolation.DEDICATED)
    [agent] = await swarm.spawn_agents([spec])
    handle = cluster.find(f"{swarm.name}/Agent[{agent}]")
    task = Task(goal="g", role=role, replicas=1, inputs={"s": CALL_S}, deadline_s=60.0, attempt_timeout_s=60.0)
    mission = await swarm.start_task(task)
    await asyncio.sleep(1.0)
    taken = []
    for _ in range(100):
        started = time.perf_counter()
        await handle.reload_status.remote()
        taken.append(time.perf_counter() - started)
        await asyncio.sleep(0.02)
    await swarm.cancel(mission)
    return taken


async def measure(options: argparse.Namespace, file: Path) -> dict[str, dict[str, float]]:
    settings = Settings(address="local", cells=options.cells, home=file.parent / "home")
    async with SwarmCoordinator(max_agents=options.agents + 10, settings=settings) as swarm:
        spec = AgentSpec(role="counter", policy=f"{MODULE}:Counter")
        await swarm.spawn_agents([spec] * options.agents)
        rows = await saves(swarm, file, options.saves)
        rows["control"] = await control(swarm, "sleeper", "sleep")
        rows["control_busy"] = await control(swarm, "computer", "compute")
    return {name: spread(taken) for name, taken in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--saves", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
        file = Path(folder) / f"{MODULE}.py"
        file.write_text(CODE.format(version=1))
        rows = asyncio.run(measure(options, file))
    show(rows, as_json=options.json)


if __name__ == "__main__":
    main()
