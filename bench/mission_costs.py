"""What it costs a swarm that a treasury pays for its missions: small tasks without a budget, with and without.

    python -m bench.mission_costs [--tasks 4000] [--rounds 3] [--at-once 300] [--json]

Two swarms on one local Ray, alike but that a treasury stands behind one, take turns; a round is `tasks` tasks, of which
`at-once` are under way. The figure is the ratio of their tasks a second: this machine's own speed and whatever else it
does are in both. `rows` are the ledger's, for the tasks of one round. It passes (exit code 0) when the ratio of the
medians is at least 0.8 and there are at most 100 rows for 1,000 tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from chimera.actors import cluster
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.types import AgentSpec, Task
from chimera.swarm.policy import Context
from chimera.system.treasury import Treasury, running
from chimera.treasury.vault.home import init

LEAST = 0.8
MOST_ROWS = 0.1

TREASURY = """
accounts: [{id: cash, kind: fund}, {id: bank, kind: outside}, {id: models, kind: metered}]
policy: {ask_at: 1.0, refuse_at: 1.0}
breaker: {spend: {USD: 100000}}
"""


async def call_model(task: Task, context: Context) -> int:
    """The agent: a call of a model that costs a hundredth of a cent, and no time."""
    context.spend(usd=0.0001, calls=1)
    return 42


async def speed(swarm: SwarmCoordinator, tasks: int, at_once: int) -> float:
    """Tasks a second."""
    slots = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with slots:
            result = await swarm.submit_task(Task(goal="g", replicas=1, deadline_s=120.0))
            assert result.value == 42, result

    began_s = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return tasks / (time.perf_counter() - began_s)


async def measure(tasks: int, rounds: int, at_once: int) -> dict[str, Any]:
    """The figures of all rounds."""
    home = Path(tempfile.mkdtemp(prefix="chb"))
    try:
        async with AsyncExitStack() as stack:
            connection = cluster.connect(Settings(address="local"))
            stack.callback(cluster.disconnect, connection)
            place = await init(home)
            place.config.write_text(TREASURY)
            settings = Settings(address=connection.address, cells=1, home=home)
            await stack.enter_async_context(running(settings))
            treasury = await stack.enter_async_context(Treasury(settings))
            await treasury.pay(debit="bank", credit="cash", amount=900, category="fill", requester="bench")
            swarms = {}
            for name, fund in (("without", ""), ("with", "cash")):
                told = settings.model_copy(update={"treasury_fund": fund})
                swarms[name] = await stack.enter_async_context(SwarmCoordinator(max_agents=100, settings=told))
                await swarms[name].spawn_agents([AgentSpec(policy="bench.mission_costs:call_model")] * 50)
                await speed(swarms[name], 500, at_once)
            found: dict[str, list[float]] = {"without": [], "with": []}
            rows: list[int] = []
            for _ in range(rounds):
                before = (await treasury.ledger().head()).seq
                for name, swarm in swarms.items():
                    found[name].append(round(await speed(swarm, tasks, at_once), 1))
                rows.append((await treasury.ledger().head()).seq - before)
    finally:
        shutil.rmtree(home)
    ratio = median(found["with"]) / median(found["without"])
    return {
        "tasks": tasks,
        "at_once": at_once,
        "tasks_per_s": found,
        "ratio": round(ratio, 3),
        "rows": rows,
        "passed": ratio >= LEAST and max(rows) <= MOST_ROWS * tasks,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    found = asyncio.run(measure(told.tasks, told.rounds, told.at_once))
    if told.json:
        sys.stdout.write(f"{json.dumps(found)}\n")
    else:
        for name, value in found.items():
            sys.stdout.write(f"{name:12} {value}\n")
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
