"""From what managers and Ray say to the one status that people and programs are shown."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from chimera.actors.scaling import Node
from chimera.swarm.status import Activity, ManagerStatus, NodeStatus, RoleStatus, SwarmStatus


def overview(swarm: str, activity: Activity, managers: Sequence[dict[str, Any]], nodes: Sequence[Node]) -> SwarmStatus:
    """The swarm's status. `managers` are as `Manager.status` gives them, or with only `name` and `state`."""
    homes = Counter(v.get("node") for m in managers for v in m.get("cells", {}).values() if v)
    roles: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for manager in managers:
        for role, counts in manager.get("roles", {}).items():
            roles[role] = [had + more for had, more in zip(roles[role], counts, strict=True)]
    return SwarmStatus(
        **dict(activity),
        swarm=swarm,
        pid=os.getpid(),
        nodes=tuple(
            NodeStatus(
                node=node.node_id[:8],
                alive=node.alive,
                cells=homes[node.node_id],
                cpus=node.resources.get("CPU", 0.0),
            )
            for node in nodes
        ),
        managers=tuple(_manager(manager) for manager in managers),
        agents_by_role={
            role: RoleStatus(agents=agents, busy=busy, waiting=waiting)
            for role, (agents, busy, waiting) in sorted(roles.items())
        },
    )


def _manager(told: dict[str, Any]) -> ManagerStatus:
    up = told["state"] == "up"
    cells = told.get("cells", {})
    return ManagerStatus(
        name=told["name"],
        pid=told.get("pid") if up else None,
        state=told["state"],
        agents=told.get("agents", 0),
        busy=told.get("busy", 0),
        waiting=told.get("waiting", 0),
        cells={name: int(vitals["pid"]) if up and vitals else None for name, vitals in cells.items()},
    )
