"""Federations for tests, of tiny sandboxes in this process: through the same hosts and bytes as between machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chimera.sandbox.federation.grid import Send, SwarmGrid
from chimera.sandbox.federation.host import Host, NodePlan
from chimera.sandbox.federation.plan import FederationPlan
from chimera.sandbox.federation.report import NodeRow
from chimera.sandbox.federation.server import Federated, run_rounds
from tests.unit.sandbox.federation import tiny

ROUNDS, STEPS = 5, 10


def node(folder: Path, node_id: int, app: str, **config: Any) -> NodePlan:
    return NodePlan(
        node_id=node_id,
        app=f"{tiny.HERE}:{app}",
        folder=folder / str(node_id),
        config={"seed": node_id, **config},
    )


def plan(strategy: str, **fields: Any) -> FederationPlan:
    return FederationPlan.model_validate({"strategy": strategy, "rounds": ROUNDS, "steps": STEPS, **fields})


def host_send(host: Host) -> Send:
    async def send(packed: bytes) -> bytes:
        return await asyncio.to_thread(host.handle, packed)

    return send


def dying(send: Send, *, after: int) -> Send:
    """It answers so many messages, and is gone in the middle of the next."""
    answered = 0

    async def until_dead(packed: bytes) -> bytes:
        nonlocal answered
        answered += 1
        if answered > after:
            raise ConnectionError("the process is gone")
        return await send(packed)

    return until_dead


async def hanging(packed: bytes) -> bytes:
    """It never answers."""
    await asyncio.Event().wait()
    return packed


def hold(
    folder: Path,
    apps: Sequence[str],
    federation: FederationPlan,
    *,
    instead: Callable[[int, Send], Send | None] = lambda _, __: None,
    first_seed: int = 0,
) -> Federated:
    """Run it to its end. `instead` may give a node, numbered from 1, another end of the line."""

    async def held() -> Federated:
        sends = {i: host_send(Host(node(folder, i, app, seed=first_seed + i))) for i, app in enumerate(apps, start=1)}
        sends = {i: instead(i, send) or send for i, send in sends.items()}
        grid = SwarmGrid(nodes=sends, loop=asyncio.get_running_loop())
        return await asyncio.to_thread(run_rounds, federation, grid, tiny.blank())

    return asyncio.run(held())


def last(federated: Federated, node_id: int) -> NodeRow:
    """What the report says of a node in the last round."""
    rows = federated.report.rounds[-1].nodes
    return next(row for row in rows if row.node_id == node_id)
