"""New code in a running swarm: real processes, agents at work, and deaths at the worst moment."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from chimera.actors import cluster
from chimera.core.errors import ReloadError
from chimera.core.types import Isolation, MissionState
from tests.actors.in_process import until
from tests.conftest import Crew

pytestmark = pytest.mark.cluster

MODULE = "tests.reloadable"
SOURCE = Path(__file__).parent.parent.joinpath("reloadable.py").read_text(encoding="utf-8")

MIGRATE = """

def migrate(state, old_version):
    assert state["of"] == old_version, (state, old_version)
    return {**state, "of": VERSION}


def migrate_back(state, older_version):
    assert state["of"] == VERSION, (state, VERSION)
    return {**state, "of": older_version}
"""
"""Each state says for which version it was made, and is refused by any other."""


def version(number: int, more: str = "") -> str:
    """The source of that version; its agents remember which version their state is of."""
    source = SOURCE.replace("VERSION = 1", f"VERSION = {number}")
    assert source != SOURCE or number == 1
    return source + more


async def spawn(swarm: SwarmCoordinator, role: str, count: int, isolation: Isolation = Isolation.PACKED) -> list[str]:
    spec = AgentSpec(role=role, policy=f"{MODULE}:Counter", isolation=isolation)
    return await swarm.spawn_agents([spec] * count)


async def ask(swarm: SwarmCoordinator, role: str, **inputs: Any) -> dict[str, Any]:
    """One call of some agent: which, of which version, its calls so far."""
    result = await swarm.submit_task(Task(goal="g", role=role, replicas=1, inputs=inputs, deadline_s=60.0))
    assert result.state is MissionState.ANSWERED, result.explanation
    [vote] = [vote for vote in result.replies if vote.reply]
    assert vote.reply is not None
    return {**dict(vote.reply.value), "agent": vote.agent}  # type: ignore[arg-type]


async def pids(swarm: SwarmCoordinator) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for manager in (await swarm.status()).managers:
        found |= manager.cells
    return found


async def many_calls(
    swarm: SwarmCoordinator, *, packed: int, dedicated: int, calls: int, swaps: int, more: str
) -> None:
    """Calls and swaps side by side: no call fails, and no agent's count misses one or has one too many."""
    await spawn(swarm, "packed", packed)
    await spawn(swarm, "dedicated", dedicated, Isolation.DEDICATED)
    seen: list[dict[str, Any]] = []
    left = calls

    async def caller(role: str) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            seen.append(await ask(swarm, role))

    async def swapper() -> None:
        kept = [1]
        for swap in range(1, swaps + 1):  # a number is never used twice, so a version's is known before
            if swap % 5 == 0:
                done = await swarm.roll_back(MODULE)
                kept.pop()
                assert done.version == kept[-1]
            else:
                done = await swarm.reload(MODULE, version(swap + 1, more))
                kept.append(swap + 1)
            assert done.settled and done.version == kept[-1]

    callers = [caller("packed") for _ in range(24)] + [caller("dedicated") for _ in range(2 * dedicated)]
    await asyncio.gather(swapper(), *callers)
    last: Counter[str] = Counter()
    for one in seen:
        last[one["agent"]] = max(last[one["agent"]], one["calls"])
    assert len(seen) == calls == sum(last.values())
    assert len({one["version"] for one in seen}) > min(swaps, 5)


@pytest.mark.parametrize("more", [MIGRATE, ""], ids=["migrated", "shared"])
async def test_no_call_fails_and_no_state_is_lost_while_code_is_swapped(own_crew: Crew, more: str) -> None:
    await many_calls(own_crew.swarm, packed=40, dedicated=2, calls=1_000, swaps=8, more=more)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("more", [MIGRATE, ""], ids=["migrated", "shared"])
async def test_ten_thousand_calls_and_fifty_swaps(local_ray: Settings, home: Path, more: str) -> None:
    async with SwarmCoordinator(max_agents=600, settings=Settings(address=local_ray.address, cells=4)) as swarm:
        await many_calls(swarm, packed=500, dedicated=8, calls=10_000, swaps=50, more=more)


async def test_one_migrate_that_raises_leaves_everybody_on_the_old_version(own_crew: Crew) -> None:
    swarm = own_crew.swarm
    await spawn(swarm, "many", 10)
    [odd] = await spawn(swarm, "odd", 1, Isolation.DEDICATED)
    await ask(swarm, "odd", mark="odd")
    refuses = '\n\ndef migrate(state, old_version):\n    assert "mark" not in state, "an odd one"\n    return state\n'
    with pytest.raises(ReloadError, match=r"stays at version 1 everywhere.*an odd one"):
        await swarm.reload(MODULE, version(2, refuses))
    assert (await ask(swarm, "odd"))["version"] == 1
    assert {(await ask(swarm, "many"))["version"] for _ in range(20)} == {1}
    status = (await swarm.reload_status()).modules[MODULE]
    assert (status.version, status.behind, "an odd one" in status.last_failure) == (1, 0, True)
    assert (await swarm.reload(MODULE, version(3))).actors == 3
    assert (await ask(swarm, "odd")) == {"version": 3, "calls": 3, "agent": odd}


async def test_a_cell_that_is_killed_between_prepare_and_commit_comes_back_on_what_was_committed(
    own_crew: Crew,
) -> None:
    swarm = own_crew.swarm
    await spawn(swarm, "packed", 6)
    before = await pids(swarm)
    slow, doomed = before["Cell[0]"], before["Cell[1]"]
    assert slow and doomed
    waits = f"\n\ndef __smoke__():\n    import os, time\n    time.sleep(2.0 if os.getpid() == {slow} else 0.0)\n"
    reload = asyncio.create_task(swarm.reload(MODULE, version(2, waits)))
    await asyncio.sleep(1.0)  # the doomed one is ready by now, and the slow one is not
    assert not reload.done()
    os.kill(doomed, signal.SIGKILL)
    assert (await reload).version == 2

    async def back() -> bool:
        try:
            status = await cluster.find(f"{swarm.name}/Cell[1]").reload_status.remote()
        except cluster.ACTOR_GONE:
            return False
        return bool(status["runs"] == {MODULE: 1})

    await until(back, 60.0)
    assert {(await ask(swarm, "packed"))["version"] for _ in range(12)} == {2}


async def test_a_coordinator_that_is_killed_still_knows_what_was_committed(own_crew: Crew) -> None:
    swarm = own_crew.swarm
    await spawn(swarm, "packed", 4)
    await swarm.reload(MODULE, version(2))
    os.kill((await swarm.status()).pid, signal.SIGKILL)
    assert (await ask(swarm, "packed"))["version"] == 2
    await spawn(swarm, "late", 1, Isolation.DEDICATED)
    assert (await ask(swarm, "late"))["version"] == 2
    assert (await swarm.roll_back(MODULE)).version == 1
    assert {(await ask(swarm, role))["version"] for role in ("late", "packed")} == {1}


async def test_a_reload_waits_for_no_call_however_long(own_crew: Crew) -> None:
    swarm = own_crew.swarm
    calls = {}
    for isolation in Isolation:
        await spawn(swarm, f"awaits-{isolation}", 1, isolation)
        spec = AgentSpec(role=f"sleeps-{isolation}", policy=f"{MODULE}:slowly", isolation=isolation)
        await swarm.spawn_agents([spec])
    await spawn(swarm, "blocks", 1, Isolation.DEDICATED)
    for role in [f"{verb}-{isolation}" for verb in ("awaits", "sleeps") for isolation in Isolation]:
        calls[role] = asyncio.create_task(ask(swarm, role, s=6.0))
    blocked = asyncio.create_task(ask(swarm, "blocks", block_s=6.0))
    await asyncio.sleep(1.0)
    assert (await swarm.reload(MODULE, version(2))).settled
    assert not any(call.done() for call in calls.values()) and not blocked.done()
    for role, call in calls.items():
        assert (await call)["version"] == 1, "a call ends with the code that it began with"
        assert (await ask(swarm, role))["version"] == 2
    await blocked
