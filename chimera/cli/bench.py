"""`chimera bench swarm`: the whole path, measured: client, coordinator, manager, cell, agent, consensus, journal."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from chimera.cli import render
from chimera.cli.settings import explain, opening, read_settings
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, Overloaded
from chimera.core.events import EventKind
from chimera.core.stats import percentile
from chimera.core.types import MAX_REPLICAS, AgentSpec, Frozen, MissionState, Seconds, Share, Task, TaskResult
from chimera.storage.journal import open_journal
from chimera.swarm.policy import Context
from chimera.swarm.status import SwarmStatus

AUDITED = 2_000
"""Missions whose journal is read again afterwards, to see that each reply was accepted once."""

WARM = 8
"""Agents that run a few tasks first, so that the memory of the idle ones is not that of what Python imports."""

WARM_ROLE = "warm"

KILL_EVERY_S = 3.0

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Plan(Frozen):
    """What to run. What is None is as the settings say."""

    agents: int = Field(default=1_000, ge=1, le=1_000_000)
    tasks: int = Field(default=10_000, ge=1, le=10_000_000)
    think_s: float = Field(default=0.0, ge=0.0, le=86_400.0, allow_inf_nan=False)
    voters: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    rate_per_s: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    journal: str | None = None
    chaos: bool = False
    seed: int = 0
    hang: Share = 0.0
    dissent: Share = 0.0
    certainty: float = Field(default=1.0, ge=0.5, le=1.0, allow_inf_nan=False)
    frugal: bool = False
    attempt_timeout_s: Seconds | None = None
    deadline_s: Seconds = 300.0
    window: int = Field(default=2_000, ge=1, le=100_000)
    address: str = "local"
    cells: int | None = Field(default=None, ge=0, le=1_024)

    def settings(self, home: Path) -> Settings:
        """The environment's settings with this plan's over them, and `home` for a journal where none is named."""
        return read_settings(
            address=self.address,
            home=home,
            journal_url=self.journal,
            cells=self.cells,
            max_agents=self.agents + WARM,
            max_missions=10_000,
        )


@dataclass(slots=True)
class _Run:
    latencies_s: list[float] = field(default_factory=list)
    decisions_s: list[float] = field(default_factory=list)
    wrong: int = 0
    refused: int = 0
    missions: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def work(task: Task, context: Context) -> JsonValue:
    """The agent of the benchmark: thinks, then says n + 1; some hang or dissent, which ones is decided by their key."""
    inputs: Any = task.inputs
    draw = zlib.crc32(context.idempotency_key.encode()) / 2**32
    if draw < inputs.get("hang", 0.0) and context.attempt == 1:
        await asyncio.sleep(3_600)
    if think_s := inputs.get("think_s"):
        await asyncio.sleep(think_s)
    if draw > 1.0 - inputs.get("dissent", 0.0):
        return int(inputs["n"]) - 1
    return int(inputs["n"]) + 1


async def measure(plan: Plan, progress: Callable[[str], None] = lambda said: None) -> dict[str, Any]:
    """Run `plan` in a swarm of its own, and say what came of it. Raises InputError for a plan that cannot be run."""
    if plan.chaos and plan.address != "local":
        raise InputError("--chaos kills processes of this machine: it is for a swarm of its own, without --address")
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as home:
        settings = plan.settings(Path(home))
        async with AsyncExitStack() as stack:
            with opening(settings.journal):
                swarm = await stack.enter_async_context(SwarmCoordinator(settings=settings))
            return await _measure(swarm, plan, settings, progress)


async def _measure(
    swarm: SwarmCoordinator, plan: Plan, settings: Settings, progress: Callable[[str], None]
) -> dict[str, Any]:
    await swarm.spawn_agents([AgentSpec(role=WARM_ROLE, policy="chimera.cli.bench:work")] * WARM)
    await asyncio.gather(*(swarm.submit_task(_task(plan, n, role=WARM_ROLE)) for n in range(64)))
    before = _processes(await swarm.status())
    progress(f"spawning {plan.agents} agents")
    began = time.perf_counter()
    await swarm.spawn_agents([AgentSpec(policy="chimera.cli.bench:work")] * plan.agents)
    spawn_s = time.perf_counter() - began
    await asyncio.sleep(1.0)
    status = await swarm.status()
    idle = _processes(status)
    progress(f"running {plan.tasks} tasks")
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # as in the swarm's own processes
    run = _Run()
    cpu_before = _cpu_s(status) + time.process_time()
    began = time.perf_counter()
    chaos = asyncio.create_task(_chaos(swarm, plan, progress)) if plan.chaos else None
    await _drive(swarm, plan, run)
    elapsed_s = time.perf_counter() - began
    if chaos:
        chaos.cancel()
    status = await swarm.status()
    cpu_s = _cpu_s(status) + time.process_time() - cpu_before
    at_end = _processes(status)
    progress("reading the journal again")
    twice, unended = await _audit(run.missions, settings)
    return {
        "agents": plan.agents,
        "tasks": plan.tasks,
        "voters": plan.voters,
        "spawn_s": round(spawn_s, 3),
        "bytes_per_idle_agent": round((sum(idle.values()) - sum(before.values())) / plan.agents),
        "total_rss_mb": round(max(sum(idle.values()), sum(at_end.values())) / 1e6, 1),
        "tasks_per_s": round(plan.tasks / elapsed_s, 1),
        "journaled": status.journal.scheme != "memory",
        "latency_ms": _percentiles(run.latencies_s),
        "decision_ms": _percentiles(run.decisions_s),
        "calls_saved_ratio": round(status.calls.saved / (plan.voters * plan.tasks), 4),
        "lost": plan.tasks - len(run.latencies_s) + unended,
        "duplicated": twice,
        "wrong": run.wrong,
        "refused": run.refused,
        "cpu_s_per_1000_tasks": round(cpu_s / plan.tasks * 1_000, 3) if not plan.chaos else None,
        "failures": run.failed[:5],
    }


async def _drive(swarm: SwarmCoordinator, plan: Plan, run: _Run) -> None:
    """Closed loop with a window of tasks in progress, or with a rate an open one."""
    window = asyncio.Semaphore(plan.window)
    running: set[asyncio.Task[None]] = set()

    async def one(n: int) -> None:
        began = time.perf_counter()
        try:
            result = await _submit(swarm, _task(plan, n), run)
        except ChimeraError as error:
            run.failed.append(str(error))
            return
        finally:
            window.release()
        _note(run, result, n, time.perf_counter() - began)

    began = time.perf_counter()
    for n in range(plan.tasks):
        if plan.rate_per_s and (ahead_s := began + n / plan.rate_per_s - time.perf_counter()) > 0:
            await asyncio.sleep(ahead_s)
        await window.acquire()
        task = asyncio.create_task(one(n))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def _submit(swarm: SwarmCoordinator, task: Task, run: _Run) -> TaskResult:
    while True:
        try:
            return await swarm.submit_task(task)
        except Overloaded as error:
            run.refused += 1
            await asyncio.sleep(error.retry_after_s)


def _note(run: _Run, result: TaskResult, n: int, latency_s: float) -> None:
    if len(run.missions) < AUDITED:
        run.missions.append(result.mission_id)
    if result.state is not MissionState.ANSWERED:
        run.failed.append(f"{result.state}: {result.explanation}")
    if result.value is None:
        return
    run.wrong += result.value != n + 1
    run.latencies_s.append(latency_s)
    run.decisions_s.append(result.elapsed_s)


def _task(plan: Plan, n: int, role: str = "worker") -> Task:
    inputs: dict[str, JsonValue] = {"n": n}
    if role != WARM_ROLE:
        moods = {"think_s": plan.think_s, "hang": plan.hang, "dissent": plan.dissent}
        inputs |= {name: mood for name, mood in moods.items() if mood}
    return Task(
        goal="n + 1",
        inputs=inputs,
        role=role,
        replicas=1 if role == WARM_ROLE else plan.voters,
        deadline_s=plan.deadline_s,
        attempt_timeout_s=plan.attempt_timeout_s,
        certainty=plan.certainty,
        frugal=plan.frugal,
    )


async def _chaos(swarm: SwarmCoordinator, plan: Plan, progress: Callable[[str], None]) -> None:
    """Every few seconds kill -9 a cell, a manager or the coordinator."""
    rng = random.Random(plan.seed)
    while True:
        await asyncio.sleep(rng.uniform(0.5, KILL_EVERY_S))
        status = await swarm.status()
        victims = [("coordinator", status.pid)]
        victims += [(manager.name, manager.pid) for manager in status.managers if manager.pid]
        victims += [(name, pid) for manager in status.managers for name, pid in manager.cells.items() if pid]
        name, pid = rng.choice(victims)
        progress(f"kill -9 {name}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


async def _audit(missions: list[str], settings: Settings) -> tuple[int, int]:
    """Of these missions: replies accepted more than once for a replica, and missions without exactly one end."""
    if settings.journal.startswith("memory"):
        return 0, 0
    journal = open_journal(settings.journal)
    twice = unended = 0
    try:
        for mission_id in missions:
            events = await journal.read(mission_id)
            accepted = [
                str(event.data["attempt"]).rpartition("/")[0]
                for event in events
                if event.kind is EventKind.REPLY_ACCEPTED
            ]
            twice += len(accepted) - len(set(accepted))
            unended += sum(event.kind is EventKind.MISSION_ENDED for event in events) != 1
    finally:
        await journal.close()
    return twice, unended


def _processes(status: SwarmStatus) -> dict[int, int]:
    """Resident bytes of the swarm's processes, by pid; none for a swarm on other machines."""
    return {pid: rss for pid in _pids(status) if (rss := _rss_bytes(pid))}


def _pids(status: SwarmStatus) -> list[int]:
    pids = [status.pid, *(manager.pid for manager in status.managers)]
    pids += [pid for manager in status.managers for pid in manager.cells.values()]
    return [pid for pid in pids if pid]


def _rss_bytes(pid: int) -> int:
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return resident * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(status: SwarmStatus) -> float:
    total = 0
    for pid in _pids(status):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    return {f"p{share}": round(1_000 * percentile(seconds, share / 100), 2) for share in (50, 95, 99)}


def _plan(options: Mapping[str, Any]) -> Plan:
    try:
        return Plan(**options)
    except ValidationError as error:
        raise InputError(explain(error)) from error


def execute(options: Mapping[str, Any], *, as_json: bool) -> int:
    """Run the benchmark of the Plan that `options` make, print it, and return the exit code.

    It is 0, or 1 when anything was lost, doubled or wrong; 2 for bad input, 3 for a fault.
    """
    with render.results_only():
        try:
            plan = _plan(options)
            told = asyncio.run(measure(plan, (lambda said: None) if as_json else render.note))
        except InputError as error:
            render.error(error, as_json=as_json)
            return 2
        except Exception as error:
            render.error(error, as_json=as_json)
            return 3
        if as_json:
            render.line(render.to_line(told, indent=2))
        else:
            for name, value in told.items():
                render.line(f"{name:24} {value}")
    return 1 if told["lost"] or told["duplicated"] or told["wrong"] > plan.dissent * plan.tasks else 0
