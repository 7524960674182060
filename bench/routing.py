"""How many attempts fail when some agents are bad: routing by reputation against routing by load.

    python bench/routing.py [--agents 100 1000] [--loads 0.3 0.5 0.7 0.8] [--bad 0.2] [--attempts 20000] [--json]

The real roster, with simulated agents: a share of them fails whatever it is given, and a failed attempt is made again
by another agent. `load` is the share of agents that are at work at any moment. Both routings get the same seeds, so
that the counts are the same on every machine. `idle` are the healthy agents that were given nothing at all. The last
columns time the roster itself: an attempt's `submit` and `done`.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from dataclasses import asdict, dataclass
from typing import Literal

from chimera.core.rng import rng
from chimera.swarm.attempt import Appraisal, Attempt
from chimera.swarm.roster import Roster

Routing = Literal["reputation", "least_loaded"]


@dataclass(frozen=True)
class Outcome:
    """What became of the attempts of one simulation, and how evenly the healthy agents were used."""

    attempts: int
    failed: int
    healthy_idle: int
    healthy_least: int
    healthy_median: int
    cpu_us: float


def simulate(
    routing: Routing, *, agents: int, load: float, bad: float = 0.2, attempts: int = 20_000, seed: int = 0
) -> Outcome:
    """Keep `load * agents` attempts in hand until `attempts` have ended. An attempt takes 1 s on average."""
    chance = rng("routing", seed, agents, round(load * 100))
    roster = Roster(rng=rng("roster", seed), routing=routing)
    for n in range(agents):
        roster.add(f"a{n}", role="worker", policy="p", cell=f"c{n % 8}")
    for cell in range(8):
        roster.cell_up(f"c{cell}")
    broken = {f"a{n}" for n in chance.sample(range(agents), round(bad * agents))}
    served = dict.fromkeys((f"a{n}" for n in range(agents)), 0)
    running: list[tuple[float, str, Attempt]] = []
    now, failed, tasks, cpu_s = 0.0, 0, 0, 0.0
    again: list[Attempt] = []
    for ended in range(attempts + round(load * agents)):
        if ended >= round(load * agents):
            now, agent, attempt = heapq.heappop(running)
            good = agent not in broken
            failed += not good
            roster.appraise([Appraisal(agent, "", float(good))], now)
            started = time.process_time()
            roster.done(attempt.id, now)
            cpu_s += time.process_time() - started
            again = [] if good else [_attempt(attempt.task_id, attempt.number + 1, attempt.barred | {agent})]
        if not again:
            tasks += 1
            again = [_attempt(f"t{tasks}", 1, frozenset())]
        started = time.process_time()
        step = roster.submit(again, now)
        cpu_s += time.process_time() - started
        again = []
        for assignment in step.assignments:
            served[assignment.agent_id] += 1
            heapq.heappush(running, (now + chance.uniform(0.5, 1.5), assignment.agent_id, assignment.attempt))
    healthy = sorted(count for agent, count in served.items() if agent not in broken)
    idle, median = healthy.count(0), healthy[len(healthy) // 2]
    return Outcome(attempts, failed, idle, healthy[0], median, round(cpu_s / attempts * 1e6, 1))


def _attempt(task: str, number: int, barred: frozenset[str]) -> Attempt:
    return Attempt(f"m/{task}/0/{number}", "m", task, 0, number, "worker", 60.0, b"", barred=barred)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.8])
    parser.add_argument("--bad", type=float, default=0.2)
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    rows = []
    for agents in options.agents:
        for load in options.loads:
            both = [
                simulate(
                    routing, agents=agents, load=load, bad=options.bad, attempts=options.attempts, seed=options.seed
                )
                for routing in ("least_loaded", "reputation")
            ]
            ratio = round(both[0].failed / max(1, both[1].failed), 2)
            rows.append((agents, load, both[0], both[1], ratio))
    if options.json:
        names = ("agents", "load", "least_loaded", "reputation", "ratio")
        print(json.dumps([dict(zip(names, (a, b, asdict(c), asdict(d), e), strict=True)) for a, b, c, d, e in rows]))
        return
    print(
        "agents  load  failed by load  by reputation  ratio  healthy idle / least / median  us by load  by reputation"
    )
    for agents, load, plain, wise, ratio in rows:
        spread = f"{wise.healthy_idle} / {wise.healthy_least} / {wise.healthy_median}"
        print(
            f"{agents:6} {load:5.0%} {plain.failed:15} {wise.failed:14} {ratio:6.2f}"
            f"{spread:>31} {plain.cpu_us:11.1f} {wise.cpu_us:14.1f}"
        )


if __name__ == "__main__":
    main()
