"""A made-up status of a busy swarm, for what shows or publishes one."""

from __future__ import annotations

from typing import Any

from chimera.core.types import FailureKind, MissionState, Outcome, Spend
from chimera.swarm.status import ManagerStatus, NodeStatus, RoleStatus, SwarmStatus
from chimera.swarm.tally import Tally


def made_status(*, name: str = "swarm-1", roles: int = 20, text: str = "", **changes: Any) -> SwarmStatus:
    """Every count is above zero; `text` is put into every name."""
    tally = Tally(0.0)
    tally.admitted(40)
    tally.resumed(1)
    tally.refused(2)
    tally.dispatched(300)
    tally.quarantined()
    tally.spent(Spend(usd=1.25, tokens=5_000, calls=300, seconds=75.0))
    tally.journaled(1.0, 900)
    for state in MissionState:
        if state.ended:
            tally.mission_ended(1.1, state, 2.0)
    for outcome in Outcome:
        tally.task_decided(1.2, outcome, 0.5, saved=3)
    for kind in FailureKind:
        tally.attempt_ended(1.3, kind, 0.25, 0.004)
    fields: dict[str, Any] = {
        **dict(tally.snapshot(11.5, running=7, queued=5, reserved=Spend(usd=0.5, calls=10), scheme="sqlite")),
        "swarm": f"{name}{text}",
        "pid": 4_242,
        "nodes": (NodeStatus(node=f"a1b2c3{text}", cells=2, cpus=2.0), NodeStatus(node="d4e5f6", alive=False)),
        "managers": (
            ManagerStatus(
                name=f"Manager[0]{text}",
                pid=11,
                agents=6_000,
                busy=900,
                waiting=30,
                cells={f"Cell[0]{text}": 21, f"Cell[1]{text}": None},
            ),
            ManagerStatus(name="Manager[1]", state="restarting", agents=4_000, busy=100, waiting=12),
        ),
        "agents_by_role": {
            f"role-{i}{text}": RoleStatus(agents=100 * (i + 1), busy=10 * i + 1, waiting=i + 1) for i in range(roles)
        },
    }
    return SwarmStatus(**{**fields, **changes})
