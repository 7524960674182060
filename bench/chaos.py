"""Kill parts of a swarm at random moments, and see that nothing is lost and nothing is done twice.

    python -m bench.chaos [--runs 100] [--seed 0] [--kind cell|manager|coordinator|node] [--journal URL] [--json]

One swarm on a Ray of three nodes lives through all the runs. Each run has its own seed, from which come some 250
missions, the kind of victim, which one it is, and the moment: in the middle of the missions it is killed with kill -9
(a node: its raylet). When all results are in, the journal is read again. A run passes when each mission ended once and
has the right value, no replica's reply was accepted twice, and the swarm is whole again.

`reassigned_s` is how long work that had to be made again waited for an agent, from the moment that the death was seen:
for a cell or node since the journal says `lost`, for a manager or coordinator since the kill itself. `back_s` is from
the kill until everything runs again. The exit code is 1 when a run failed or work waited for more than 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from bench.local_nodes import LocalNodes
from chimera.cli import render
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.events import Event, EventKind
from chimera.core.stats import percentile
from chimera.core.types import AgentSpec, MissionState, Reply, Task, TaskResult
from chimera.storage.journal import MAX_READ, open_journal
from chimera.swarm.mission import Limits, Mission, TaskDraft
from chimera.swarm.policy import Context
from chimera.swarm.status import SwarmStatus

KINDS = ("cell", "manager", "coordinator", "node")

AGENTS = 120
CELLS = 4
MISSIONS = (200, 300)
RUN_S = 4.0
"""Missions are started over this long; the kill falls into it."""

PATIENCE_S = 60.0
"""A result that is not there by then is lost."""

MOST_S = 5.0
"""How long work may wait to be made again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does. `missions` are `(seconds after its start, what to run, its right value)`, in order."""

    seed: int
    kind: str
    kill_at_s: float
    victim: float
    missions: tuple[tuple[float, Mission, int], ...]


@dataclass(slots=True)
class Outcome:
    """What came of one run. Times in seconds; None where nothing had to be made again."""

    seed: int
    kind: str
    missions: int
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    remade: int = 0
    seen_s: float | None = None
    reassigned_s: float | None = None
    back_s: float | None = None
    trouble: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.lost or self.twice or self.wrong or self.trouble) and (self.reassigned_s or 0.0) <= MOST_S


async def think(task: Task, context: Context) -> Reply:
    """The agent: thinks, then says its number plus what came from upstream, and when it began."""
    began_s = time.time()
    inputs: Any = task.inputs
    await asyncio.sleep(inputs["think_s"])
    upstream: list[Any] = [settled.decision.value for settled in context.upstream.values()]
    return Reply(value=inputs["n"] + sum(upstream), details={"began_s": began_s})


def plan(seed: int, kind: str = "", *, missions: tuple[int, int] = MISSIONS, run_s: float = RUN_S) -> Plan:
    """The run of this seed, with a victim of this kind or any."""
    chance = random.Random(f"chaos {seed}")
    kind = kind or chance.choice(KINDS)
    starts = sorted(chance.uniform(0.0, run_s) for _ in range(chance.randint(*missions)))
    made = tuple((at_s, *_mission(chance)) for at_s in starts)
    return Plan(seed, kind, chance.uniform(0.1, 0.9) * run_s, chance.random(), made)


def _mission(chance: random.Random) -> tuple[Mission, int]:
    """One task, or now and then a diamond of four."""
    names: dict[str, tuple[str, ...]] = {"one": ()}
    if chance.random() < 0.1:
        names |= {"left": ("one",), "right": ("one",), "last": ("left", "right")}
    drafts: list[TaskDraft] = []
    values: dict[str, int] = {}
    for name, after in names.items():
        n = chance.randint(1, 1_000)
        values[name] = n + sum(values[other] for other in after)
        inputs: dict[str, JsonValue] = {"n": n, "think_s": round(chance.uniform(0.02, 0.2), 3)}
        drafts.append(
            TaskDraft(id=name, goal="add", inputs=inputs, after=after, replicas=chance.choice((1, 3)), early_stop=False)
        )
    limits = Limits(deadline_s=PATIENCE_S, attempt_timeout_s=PATIENCE_S / 2, priority=chance.randint(0, 9))
    return Mission(goal="add", tasks=tuple(drafts), limits=limits), values[drafts[-1].id]


async def run(swarm: SwarmCoordinator, plan: Plan, kill_node: Callable[[str], set[int]] | None = None) -> Outcome:
    """Carry out the plan on a swarm that is whole, and judge what came of it."""
    outcome = Outcome(plan.seed, plan.kind, len(plan.missions))
    before = await swarm.status()
    kill = _killer(plan, before, kill_node)
    began = time.monotonic()
    started: dict[str, int] = {}
    running = [
        asyncio.create_task(_one(swarm, began, at_s, what, value, started)) for at_s, what, value in plan.missions
    ]
    await asyncio.sleep(max(0.0, began + plan.kill_at_s - time.monotonic()))
    killed_s, pids = time.time(), _pids(before)
    gone = kill()
    whole = asyncio.create_task(_whole(swarm, gone, len(pids)))
    results = await asyncio.gather(*running, return_exceptions=True)
    try:
        outcome.back_s = round(await whole - killed_s, 3)
    except TimeoutError as error:
        outcome.trouble.append(str(error))
    for result in results:
        if isinstance(result, BaseException):
            outcome.lost += 1
            outcome.trouble.append(f"{type(result).__name__}: {result}")
    await judge(outcome, results, started, killed_s, swarm.settings)
    return outcome


async def _one(
    swarm: SwarmCoordinator, began: float, at_s: float, what: Mission, value: int, started: dict[str, int]
) -> TaskResult:
    await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
    mission_id = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            mission_id = await swarm.start(what)
            started[mission_id] = value
            return await swarm.result(mission_id)
    except TimeoutError:
        raise TimeoutError(
            f"no result of {mission_id}" if mission_id else f"not admitted, after {at_s:.2f} s"
        ) from None


def _killer(plan: Plan, status: SwarmStatus, kill_node: Callable[[str], set[int]] | None) -> Callable[[], set[int]]:
    """What kills the victim and returns the pids that are gone with it."""
    if plan.kind == "node":
        assert kill_node is not None, "nodes can be killed where there are some to spare"
        homes = [node.node for node in status.nodes if node.alive and node.cells]
        victim = homes[int(plan.victim * len(homes))]
        return lambda: kill_node(victim)
    by_kind: dict[str, list[int | None]] = {
        "cell": [pid for manager in status.managers for pid in manager.cells.values()],
        "manager": [manager.pid for manager in status.managers],
        "coordinator": [status.pid],
    }
    pids = by_kind[plan.kind]
    pid = pids[int(plan.victim * len(pids))]
    assert pid is not None, "the swarm is not whole"

    def kill() -> set[int]:
        os.kill(pid, signal.SIGKILL)
        return {pid}

    return kill


def _pids(status: SwarmStatus) -> list[int | None]:
    pids = [status.pid, *(manager.pid for manager in status.managers)]
    return pids + [pid for manager in status.managers for pid in manager.cells.values()]


async def _whole(swarm: SwarmCoordinator, gone: set[int], size: int) -> float:
    """The time at which every process of the swarm is there again. Raises TimeoutError when that does not happen."""
    until = time.monotonic() + PATIENCE_S
    status = None
    while time.monotonic() < until:
        status = await swarm.status()
        pids = _pids(status)
        if len(pids) == size and None not in pids and gone.isdisjoint(pids):
            return time.time()
        await asyncio.sleep(0.1)
    raise TimeoutError(f"not whole after {PATIENCE_S:g} s: {status and status.managers}")


async def judge(
    outcome: Outcome,
    results: Sequence[TaskResult | BaseException],
    started: dict[str, int],
    killed_s: float,
    settings: Settings,
) -> None:
    """Write into `outcome` what the results and the journal say of the missions that were `started`, by id, with their
    right values."""
    by_id = {result.mission_id: result for result in results if isinstance(result, TaskResult)}
    waits: list[float] = []
    losses: list[float] = []
    journal = open_journal(settings.journal)
    try:
        for mission_id, value in started.items():
            result = by_id.get(mission_id)
            if result is not None and (result.state is not MissionState.ANSWERED or result.value != value):
                outcome.wrong += 1
                outcome.trouble.append(
                    f"{mission_id}: {result.state}: {result.value}, not {value}; {result.explanation}"
                )
            events = await journal.read(mission_id, limit=MAX_READ)
            ends = sum(event.kind is EventKind.MISSION_ENDED for event in events)
            if ends != 1:
                outcome.trouble.append(f"{mission_id} has {ends} ends in the journal")
                outcome.lost += not ends
            outcome.twice += accepted_twice(events)
            lost = [event.at_s for event in events if event.data.get("failure") == "lost"]
            losses += lost
            waits += waits_of(events, killed_s, overseer=outcome.kind in ("manager", "coordinator"))
    finally:
        await journal.close()
    outcome.remade = len(waits)
    if losses:
        outcome.seen_s = round(min(losses) - killed_s, 3)
    if waits:
        outcome.reassigned_s = round(max(waits), 3)


def accepted_twice(events: Sequence[Event]) -> int:
    accepted = [(event.task_id, event.data["replica"]) for event in events if event.kind is EventKind.REPLY_ACCEPTED]
    return len(accepted) - len(set(accepted))


def waits_of(events: Sequence[Event], killed_s: float, *, overseer: bool) -> list[float]:
    """How long replicas that had to be begun again waited: since they were lost, or for an overseer's death (nothing
    is lost by it, but what it had not passed on waits) since the kill."""
    since: dict[tuple[str, object], float] = {}
    sent: dict[str, float] = {}
    waits = []
    for event in events:
        replica = (event.task_id, event.data.get("replica"))
        if event.kind is EventKind.TASK_STARTED:
            sent[event.task_id] = event.at_s
        elif event.kind is EventKind.ATTEMPT_FAILED and event.data["failure"] == "lost":
            since[replica] = event.at_s
        elif event.kind is EventKind.REPLY_ACCEPTED:
            reply: Any = event.data["reply"]
            began_s = reply["details"]["began_s"]
            if replica in since:
                waits.append(began_s - since[replica])
            elif overseer and sent[event.task_id] < killed_s < began_s:
                waits.append(began_s - killed_s)
    return waits


async def series(seeds: Sequence[int], kind: str, journal: str, progress: Callable[[str], None]) -> list[Outcome]:
    """All runs, on one swarm; one that is not whole after a run is given up for a new one."""
    outcomes: list[Outcome] = []
    left = list(seeds)
    with LocalNodes(workers=2, cells=CELLS) as nodes, tempfile.TemporaryDirectory(prefix="chaos-") as home:
        while left:
            settings = Settings(
                address=nodes.address,
                home=Path(home),
                journal_url=journal,
                cells=CELLS,
                cells_per_manager=CELLS // 2,
                max_missions=2_000,
            )
            async with SwarmCoordinator(settings=settings) as swarm:
                await swarm.spawn_agents([AgentSpec(policy=think)] * AGENTS)
                while left:
                    outcomes.append(await run(swarm, plan(left.pop(0), kind), nodes.kill_node))
                    progress(json.dumps(asdict(outcomes[-1])))
                    await asyncio.to_thread(nodes.replace_nodes)
                    if outcomes[-1].back_s is None:
                        break
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts over all runs, and by kind of victim the times: median and worst."""
    told: dict[str, Any] = {
        "runs": len(outcomes),
        "passed": sum(outcome.passed for outcome in outcomes),
        "missions": sum(outcome.missions for outcome in outcomes),
        "remade": sum(outcome.remade for outcome in outcomes),
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in ("lost", "twice", "wrong")},
    }
    for kind in KINDS:
        if mine := [outcome for outcome in outcomes if outcome.kind == kind]:
            told[kind] = {"runs": len(mine), "remade": sum(outcome.remade for outcome in mine)}
            for name in ("seen_s", "reassigned_s", "back_s"):
                if times := [time_s for outcome in mine if (time_s := getattr(outcome, name)) is not None]:
                    told[kind][name] = {"p50": round(percentile(times, 0.5), 2), "max": round(max(times), 2)}
    told["failed"] = [asdict(outcome) for outcome in outcomes if not outcome.passed]
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill parts of a swarm at random moments.")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each of the others has the next")
    parser.add_argument("--kind", choices=KINDS, default="", help="of every victim; else each seed says")
    parser.add_argument("--journal", default="", help="redis://, postgresql://; default: a SQLite file")
    parser.add_argument("--json", action="store_true", help="nothing but the summary, as JSON")
    asked = parser.parse_args()
    progress = (lambda said: None) if asked.json else (lambda said: print(said, file=sys.stderr, flush=True))
    seeds = range(asked.seed, asked.seed + asked.runs)
    with render.results_only():
        told = summary(asyncio.run(series(seeds, asked.kind, asked.journal, progress)))
        render.line(json.dumps(told, indent=2))
    return 1 if told["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
