"""Offer a swarm five times the load it can carry, and see what becomes of its memory and of urgent work.

    python -m bench.overload [--seconds 60] [--times 5] [--agents 60] [--think MS] [--journal URL] [--json]

Three phases, all against one swarm: a closed loop finds out what it carries; then it is offered that, and then `times`
of it, as an open loop of tasks of priority 4, which go on coming however many are refused. In the last two phases a
thin stream of tasks of priority 9 is timed. The load, and the stream, come from processes of their own.

It passes (exit code 0) when every refusal was an Overloaded with a time to come back after, nothing that was admitted
was lost, the memory of each of the swarm's processes stayed flat within 10 % after the first sixth of a phase, and the
P95 of priority 9 at `times` the load is within 25 % of that at the load it carries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from bench.local_nodes import LocalNodes
from chimera.cli import render
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, Overloaded
from chimera.core.stats import percentile
from chimera.core.types import AgentSpec, MissionState, Task
from chimera.swarm.policy import Context

ROOT = Path(__file__).parents[1]

PATIENCE_S = 60.0
"""What was admitted and has no result by then, after the last was offered, is lost."""

URGENT_PER_S = 20.0

FLAT = 1.10
STEADY = 1.25


@dataclass(slots=True)
class Offered:
    """What became of the tasks that one client offered. Latencies in seconds, from the offer to the result."""

    offered: int = 0
    answered: int = 0
    lost: int = 0
    refused: int = 0
    other: Counter[str] = field(default_factory=Counter)
    least_retry_s: float = float("inf")
    latencies_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    cpu_share: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "offered": self.offered,
            "answered": self.answered,
            "lost": self.lost,
            "refused": self.refused,
            "other": dict(self.other),
            "least_retry_s": self.least_retry_s if self.refused else None,
            "p50_ms": round(1_000 * percentile(self.latencies_s, 0.5), 1) if self.latencies_s else None,
            "p95_ms": round(1_000 * percentile(self.latencies_s, 0.95), 1) if self.latencies_s else None,
            "elapsed_s": round(self.elapsed_s, 2),
            "cpu_share": round(self.cpu_share, 3),
        }


class Usage(NamedTuple):
    """What a process has used at a moment, in seconds."""

    at_s: float
    rss_mb: float
    cpu_s: float


async def work(task: Task, context: Context) -> JsonValue:
    """The agent: thinks, and says the number it was given."""
    think_s: Any = task.inputs["think_s"]
    await asyncio.sleep(think_s)
    return task.inputs["n"]


def task_of(n: int, *, priority: int, think_s: float) -> Task:
    return Task(goal="n", inputs={"n": n, "think_s": think_s}, priority=priority, deadline_s=PATIENCE_S * 5)


async def offer(
    swarm: SwarmCoordinator, *, rate_per_s: float, seconds: float, priority: int, think_s: float
) -> Offered:
    """An open loop: a task is offered when its time comes, and one that is refused is not offered again."""
    told = Offered()
    running: set[asyncio.Task[None]] = set()
    began, cpu_s = time.perf_counter(), time.process_time()
    while (now_s := time.perf_counter() - began) < seconds:
        while told.offered < now_s * rate_per_s:
            one = asyncio.create_task(_one(swarm, told, task_of(told.offered, priority=priority, think_s=think_s)))
            told.offered += 1
            running.add(one)
            one.add_done_callback(running.discard)
        await asyncio.sleep(min(0.01, 1 / rate_per_s))
    told.elapsed_s = time.perf_counter() - began
    told.cpu_share = (time.process_time() - cpu_s) / told.elapsed_s
    if running:
        _, late = await asyncio.wait(running, timeout=PATIENCE_S)
        told.lost += len(late)
    return told


async def _one(swarm: SwarmCoordinator, told: Offered, task: Task) -> None:
    began = time.perf_counter()
    try:
        result = await swarm.submit_task(task)
    except Overloaded as refusal:
        told.refused += 1
        told.least_retry_s = min(told.least_retry_s, refusal.retry_after_s)
    except ChimeraError as error:
        told.other[f"{type(error).__name__}: {error}"] += 1
    else:
        if result.state is MissionState.ANSWERED and result.value == task.inputs["n"]:
            told.answered += 1
            told.latencies_s.append(time.perf_counter() - began)
        else:
            told.other[f"{result.state}: {result.explanation}"] += 1


async def carried(swarm: SwarmCoordinator, *, seconds: float, window: int, think_s: float) -> float:
    """Tasks per second with always `window` in progress, over the second half of the time."""
    ended: list[float] = []
    until = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < until:
            await swarm.submit_task(task_of(0, priority=4, think_s=think_s))
            ended.append(time.perf_counter())

    await asyncio.gather(*(client() for _ in range(window)))
    half = until - seconds / 2
    return sum(half < at <= until for at in ended) / (seconds / 2)


async def client(swarm: str, address: str, **offered: Any) -> Offered:
    """Offer from this process to a swarm of another."""
    async with SwarmCoordinator.attach(swarm, settings=Settings(address=address)) as attached:
        await attached.status()
        render.line("ready")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        return await offer(attached, **offered)


class Client:
    """A process that offers when it is told to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, swarm: str, address: str, **offered: float) -> Client:
        arguments = [argument for name, value in offered.items() for argument in (f"--{name}", str(value))]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.overload", "--client", swarm, "--address", address, *arguments),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        self = cls(process)
        assert await self._line() == b"ready\n", "the client did not start"
        return self

    async def offer(self) -> dict[str, Any]:
        """Begin; what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        told: dict[str, Any] = json.loads(await self._line())
        await self._process.wait()
        return told

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()


async def phase(
    swarm: SwarmCoordinator, address: str, *, rate_per_s: float, clients: int, seconds: float, think_s: float
) -> dict[str, Any]:
    """So much load of priority 4 from `clients` processes, and a stream of priority 9 from another."""
    common = {"seconds": seconds, "think": think_s * 1_000}
    urgent = await Client.start(swarm.name, address, rate=URGENT_PER_S, priority=9, **common)
    crowd = [
        await Client.start(swarm.name, address, rate=rate_per_s / clients, priority=4, **common) for _ in range(clients)
    ]
    watching = asyncio.create_task(_watch(swarm))
    nine, *fours = await asyncio.gather(urgent.offer(), *(one.offer() for one in crowd))
    watching.cancel()
    usage = await asyncio.gather(watching, return_exceptions=True)
    assert isinstance(usage[0], dict)
    total = {name: sum(four[name] for four in fours) for name in ("offered", "answered", "lost", "refused")}
    elapsed_s = max(four["elapsed_s"] for four in fours)
    retries = [four["least_retry_s"] for four in fours if four["refused"]]
    return {
        "offered_per_s": round(total["offered"] / elapsed_s, 1),
        "admitted_per_s": round((total["offered"] - total["refused"]) / elapsed_s, 1),
        "refused": total["refused"],
        "least_retry_s": min(retries) if retries else None,
        "lost": total["lost"] + nine["lost"],
        "other": dict(sum((Counter(told["other"]) for told in (nine, *fours)), Counter())),
        "load_p95_ms": max(four["p95_ms"] or 0.0 for four in fours),
        "urgent": nine,
        "clients_cpu_share": round(sum(told["cpu_share"] for told in (nine, *fours)), 3),
        "processes": {name: _told(samples) for name, samples in usage[0].items()},
        "load_average": os.getloadavg()[0],
    }


async def _watch(swarm: SwarmCoordinator) -> dict[str, list[Usage]]:
    """What each of the swarm's processes uses, every second, until it is cancelled."""
    seen: dict[str, list[Usage]] = {}
    status = await swarm.status()
    pids = {"coordinator": status.pid, **{manager.name: manager.pid for manager in status.managers}}
    pids |= {name: pid for manager in status.managers for name, pid in manager.cells.items()}
    try:
        while True:
            for name, pid in pids.items():
                seen.setdefault(name, []).append(_usage(pid))
            await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        return seen


def _usage(pid: int | None) -> Usage:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Usage(time.monotonic(), resident * os.sysconf("SC_PAGE_SIZE") / 1e6, cpu_s)


def _told(samples: Sequence[Usage]) -> dict[str, float]:
    """Memory after the first sixth, when what is kept for late callers is there, and the share of a core used."""
    steady = samples[len(samples) // 6 :]
    first, last = steady[0], steady[-1]
    return {
        "first_mb": round(first.rss_mb, 1),
        "last_mb": round(last.rss_mb, 1),
        "ratio": round(max(used.rss_mb for used in steady) / min(used.rss_mb for used in steady), 3),
        "cpu_share": round((last.cpu_s - first.cpu_s) / max(last.at_s - first.at_s, 1e-3), 3),
    }


async def measure(asked: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    """The three phases."""
    think_s = asked.think / 1_000
    with LocalNodes(workers=0, cells=0) as nodes, tempfile.TemporaryDirectory(prefix="overload-") as home:
        settings = Settings(address=nodes.address, home=Path(home), journal_url=asked.journal, cells=asked.cells)
        async with SwarmCoordinator(settings=settings) as swarm:
            await swarm.spawn_agents([AgentSpec(policy="bench.overload:work")] * asked.agents)
            rate = await carried(swarm, seconds=10.0, window=2 * asked.agents, think_s=think_s)
            progress(f"it carries {rate:.0f} tasks a second")
            phases = {}
            for times in (1.0, asked.times):
                phases[times] = await phase(
                    swarm,
                    nodes.address,
                    rate_per_s=times * rate,
                    clients=1 + int(times * rate / 2_000),
                    seconds=asked.seconds,
                    think_s=think_s,
                )
                progress(f"{times:g} x: {json.dumps(phases[times])}")
    return judged(rate, phases[1.0], phases[asked.times])


def judged(rate: float, once: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The figures, and `failed`: what does not hold."""
    ratio = over["urgent"]["p95_ms"] / once["urgent"]["p95_ms"]
    swollen = [name for name, used in over["processes"].items() if used["ratio"] > FLAT]
    failed = [
        *(f"the memory of {name} was not flat" for name in swollen),
        *(["priority 9 waited"] if ratio > STEADY else []),
        *(["nothing was refused"] if not over["refused"] else []),
        *(["a refusal without a time"] if over["refused"] and not over["least_retry_s"] > 0 else []),
        *(["tasks were lost"] if once["lost"] or over["lost"] else []),
        *(["other errors"] if once["other"] or over["other"] else []),
        *(["priority 9 was refused"] if once["urgent"]["refused"] or over["urgent"]["refused"] else []),
    ]
    return {
        "carried_per_s": round(rate, 1),
        "p95_ms_of_priority_9": [once["urgent"]["p95_ms"], over["urgent"]["p95_ms"]],
        "p95_ratio": round(ratio, 3),
        "at_1x": once,
        "overload": over,
        "failed": failed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Offer a swarm several times the load it can carry.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase")
    parser.add_argument("--times", type=float, default=5.0, help="what it can carry")
    parser.add_argument("--agents", type=int, default=60)
    parser.add_argument("--cells", type=int, default=2)
    parser.add_argument("--think", type=float, default=200.0, help="milliseconds that each task takes")
    parser.add_argument("--journal", default="", help="redis://, postgresql://; default: a SQLite file")
    parser.add_argument("--json", action="store_true", help="nothing but the figures, as JSON")
    parser.add_argument("--client", default="", help=argparse.SUPPRESS)
    parser.add_argument("--address", default="", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--priority", type=int, default=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        offered = client(
            asked.client,
            asked.address,
            rate_per_s=asked.rate,
            seconds=asked.seconds,
            priority=asked.priority,
            think_s=asked.think / 1_000,
        )
        with render.results_only():
            render.line(json.dumps(asyncio.run(offered).told()))
        return 0
    progress = (lambda said: None) if asked.json else (lambda said: print(said, file=sys.stderr, flush=True))
    with render.results_only():
        told = asyncio.run(measure(asked, progress))
        render.line(json.dumps(told, indent=2))
    return 1 if told["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
