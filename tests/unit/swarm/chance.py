"""Missions of every kind that go through every kind of trouble, drawn from a seeded generator."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from random import Random
from typing import Any

from chimera.core.types import Budget, Consensus, FailureKind, Spend
from chimera.swarm.attempt import NO_LIMIT, Attempt, Report
from chimera.swarm.graph import TaskNode
from chimera.swarm.held import Review
from chimera.swarm.instructions import Cancelled, Reported, Resumed, Reviewed, Tick
from tests.unit.swarm.driver import Mission, encoded, node

TICK_S = 1 / 64
"""Times are multiples of it, so that sums of them are exact whatever the clock began with."""

MAX_STEPS = 400

_FAILURES = [*FailureKind, *FailureKind, *[FailureKind.LOST] * 10, *[FailureKind.RAISED] * 5]


def a_budget(chance: Random) -> Budget:
    """A limit in at least one dimension, from far too little to plenty."""
    limits: dict[str, Any] = {"usd": chance.choice([0.0, 0.5, 2.0, 20.0]), "tokens": chance.choice([0, 3, 50, 500])}
    limits |= {"calls": chance.choice([1, 8, 40]), "seconds": chance.choice([0.0, 5.0, 100.0])}
    return Budget(**{name: limits[name] for name in chance.sample(sorted(limits), chance.randint(1, 4))})


def a_mission(chance: Random, budget: Budget = NO_LIMIT) -> Mission:
    """A graph of one to six tasks, with a fan in every third, admitted at any second."""
    nodes = [_node(chance, "t0")]
    for i in range(1, chance.randint(1, 6)):
        nodes.append(
            _node(chance, f"t{i}", *chance.sample([n.id for n in nodes], chance.randint(0, min(2, len(nodes)))))
        )
    if chance.random() < 0.35:
        nodes += [
            _node(chance, "plan", nodes[-1].id, replicas=1),
            _node(chance, "fan", "plan", each="plan"),
            _node(chance, "sum", "plan", "fan"),
        ]
    return Mission(*nodes, deadline_s=20.0, budget=budget, max_nodes=16, wall_ahead_s=float(chance.randint(0, 2**31)))


def _node(chance: Random, name: str, *after: str, each: str | None = None, replicas: int | None = None) -> TaskNode:
    consensus = chance.choice(list(Consensus))
    spend = chance.choice([None, None, Budget(usd=0.5), Budget(calls=2, tokens=30)])
    equality = chance.choice([{"kind": "json"}, {"kind": "json"}, {"kind": "numeric", "tolerance": 0.5}])
    return node(
        name,
        *after,
        each=each,
        needs=chance.choice(["agreed", "settled"]),
        replicas=replicas or chance.randint(1, 5),
        consensus=consensus,
        threshold=chance.choice([None, 0.4]) if consensus is Consensus.QUORUM else None,
        equality=equality if replicas is None else {"kind": "json"},
        deadline_s=chance.choice([4.0, 12.0, 60.0]),
        max_attempts=chance.randint(1, 4),
        early_stop=chance.random() < 0.7,
        spend=spend,
        review=chance.choice(["never", "never", "never", "policy", "always"]),
        review_below=chance.choice([0.0, 0.6, 1.0]),
        review_s=chance.choice([1.0, 30.0, 604_800.0]),
    )


def at_random(mission: Mission, chance: Random, *, wall_jumps: bool = False) -> Iterator[None]:
    """Let things happen to the mission until it ends, one at each step."""
    past: list[Report] = []
    for _ in range(MAX_STEPS):
        if mission.result is not None:
            return
        if wall_jumps:
            mission.wall_ahead_s += chance.choice([0.0, 0.0, -7_200.0, 3.5])
        now = on_the_tick(mission.now) + chance.choice([0, 0, 1, 7, 40]) * TICK_S
        what = chance.random()
        if mission.asked and chance.random() < (0.4 if mission.brain.held else 0.05):
            mission.tell(_answer(chance, mission), now)
        elif what < 0.62 and mission.open:
            attempt = chance.choice(list(mission.open.values()))
            past.append(_report(chance, attempt))
            del mission.open[attempt.id]
            mission.tell(Reported(past[-1]), now)
        elif what < 0.80 and mission.cancelled:
            late = mission.cancelled.pop(chance.choice(list(mission.cancelled)))
            past.append(_report(chance, late))
            mission.tell(Reported(past[-1]), now)
        elif what < 0.84 and past:
            mission.tell(Reported(chance.choice(past)), now)
        elif what < 0.85:
            mission.tell(Cancelled("no longer wanted"), now)
        elif what < 0.87:
            mission.tell(Resumed(f"swarm-{chance.randint(0, 9)}"), now)
        elif what < 0.93 or not mission.open:
            mission.tell(Tick(), max(mission.brain.wake_at, mission.now))
        else:
            mission.tell(Tick(), now)
        yield
    while mission.result is None:
        mission.tell(Tick(), mission.brain.wake_at)
        yield


def on_the_tick(now: float) -> float:
    """The first multiple of TICK_S from `now` on."""
    return ceil(now / TICK_S) * TICK_S


def _answer(chance: Random, mission: Mission) -> Reviewed:
    """What a person says of a task that is held, or was, or never: most are approved."""
    asked = [held.task_id for held in mission.asked]
    name = chance.choice([*asked, asked[-1], asked[-1], "t0"])
    verdict: Any = chance.choice(["approve", "approve", "approve", "edit", "edit", "reject"])
    value: Any = chance.choice([None, 1, [1, 2], "one"]) if verdict == "edit" else None
    return Reviewed(name, Review(verdict=verdict, by=chance.choice(["ada", "bob"]), reason="because", value=value))


def _report(chance: Random, attempt: Attempt) -> Report:
    spent = Spend(usd=chance.choice([0.0, 0.1, 3.0]), tokens=chance.choice([0, 7, 900]), calls=chance.randint(0, 3))
    fields: dict[str, Any] = {"agent": f"a{chance.randint(0, 9)}", "policy": chance.choice("pq"), "spent": spent}
    elapsed_s = chance.random()
    if chance.random() < (0.2 if attempt.suspect else 0.7):
        value = (
            chance.choice([[1, 2], [], "x"])
            if attempt.task_id == "plan"
            else chance.choice([0, 1, 1, 1, 1.25, "one", None])
        )
        reply = encoded(value, confidence=chance.choice([0.5, 1.0]), appraisals=chance.choice([{}, {"a1": 0.5}]))
        return Report(attempt.id, attempt.mission_id, reply=reply, elapsed_s=elapsed_s, **fields)
    failure = FailureKind.LOST if attempt.suspect and chance.random() < 0.9 else chance.choice(_FAILURES)
    wrong = "InputError" if failure is FailureKind.RAISED and chance.random() < 0.4 else ""
    fields["alone"] = failure is FailureKind.LOST and chance.random() < 0.9
    return Report(
        attempt.id, attempt.mission_id, failure=failure, detail="why", input_error=wrong, elapsed_s=elapsed_s, **fields
    )
