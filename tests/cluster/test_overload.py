"""More than a swarm may take: refusals that say when to come back, nothing lost, urgent work first."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.overload import STEADY, judged, offer, task_of, work
from chimera import AgentSpec, Overloaded, Settings, SwarmCoordinator

MAX_MISSIONS = 20

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def small(local_ray: Settings, home: Path) -> AsyncIterator[SwarmCoordinator]:
    """A swarm of four agents that takes 20 missions at once."""
    settings = Settings(address=local_ray.address, cells=1, max_missions=MAX_MISSIONS)
    async with SwarmCoordinator(settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(policy=work)] * 4)
        yield swarm


@pytest.mark.cluster
async def test_five_times_too_much_is_refused_and_what_is_admitted_is_done(small: SwarmCoordinator) -> None:
    full = await asyncio.gather(*(small.start_task(task_of(n, priority=4, think_s=0.6)) for n in range(MAX_MISSIONS)))
    with pytest.raises(Overloaded, match="priority 0 is 12") as refused:
        await small.start_task(task_of(0, priority=0, think_s=0.0))
    assert refused.value.retry_after_s > 0
    urgent = await small.submit_task(task_of(9, priority=9, think_s=0.0))
    assert urgent.value == 9
    assert (await small.status()).missions.running > MAX_MISSIONS / 2, "it went before most of them"
    crowd = await offer(small, rate_per_s=200, seconds=0.5, priority=4, think_s=0.05)
    assert crowd.refused and crowd.least_retry_s > 0
    assert (crowd.lost, crowd.other) == (0, {})
    assert crowd.answered == crowd.offered - crowd.refused
    done = await asyncio.gather(*(small.result(mission_id) for mission_id in full))
    assert [result.value for result in done] == list(range(MAX_MISSIONS))
    status = await small.status()
    assert (status.missions.refused, status.missions.running) == (crowd.refused + 1, 0)


def phase(*, p95_ms: float = 100.0, rss: float = 1.0, refused: int = 0, lost: int = 0) -> dict[str, object]:
    urgent = {"p95_ms": p95_ms, "refused": 0}
    flat = {"Cell[0]": {"ratio": rss}}
    return {"urgent": urgent, "processes": flat, "refused": refused, "least_retry_s": 0.1, "lost": lost, "other": {}}


@pytest.mark.parametrize(
    ("over", "failed"),
    [
        (phase(refused=1), []),
        (phase(), ["nothing was refused"]),
        (phase(refused=1, p95_ms=101.0 * STEADY), ["priority 9 waited"]),
        (phase(refused=1, rss=1.2), ["the memory of Cell[0] was not flat"]),
        (phase(refused=1, lost=1), ["tasks were lost"]),
    ],
)
def test_the_bench_fails_when_something_does_not_hold(over: dict[str, object], failed: list[str]) -> None:
    assert judged(100.0, phase(), over)["failed"] == failed


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_minute_of_five_times_the_load() -> None:
    command = [sys.executable, "-m", "bench.overload", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["failed"]) == (0, [])
