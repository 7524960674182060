"""Wiring of a federation: a plan and its sandboxes in, a node of each in this process or in an actor, a report out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chimera.actors import cluster
from chimera.actors.sandbox_node import SandboxNode
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.sandbox.federation.grid import Send, SwarmGrid
from chimera.sandbox.federation.host import Host, NodePlan, load_app
from chimera.sandbox.federation.local import Floating
from chimera.sandbox.federation.plan import FederationPlan
from chimera.sandbox.federation.report import RoundReport
from chimera.sandbox.federation.server import Federated, run_rounds

Watcher = Callable[[RoundReport], None]
"""Is told of each round when it has ended, in the event loop."""


async def federate(
    nodes: Sequence[NodePlan],
    plan: FederationPlan,
    initial: Sequence[Floating],
    *,
    settings: Settings | None = None,
    watch: Watcher | None = None,
) -> Federated:
    """Train one generator in all these sandboxes, from the arrays `initial` on. See `FederationPlan`.

    With `settings` each is an actor of the Ray that they name; without, all are in this process. Raises InputError
    before anything is started, ClusterError, and SwarmError where no round brought a generator.
    """
    check(nodes, plan)
    if settings is None:
        hosts = {node.node_id: Host(node) for node in nodes}
        return await _run({node_id: _in_thread(host) for node_id, host in hosts.items()}, plan, initial, watch)
    async with _actors(nodes, settings) as sends:
        return await _run(sends, plan, initial, watch)


def check(nodes: Sequence[NodePlan], plan: FederationPlan) -> None:
    """Raises InputError where these sandboxes cannot be a federation under this plan."""
    plan.check(len(nodes))
    for what, values in (("id", [node.node_id for node in nodes]), ("folder", [node.folder for node in nodes])):
        if len(set(values)) != len(nodes):
            raise InputError(f"two sandboxes have the same {what}: each has its own")
    for app in {node.app for node in nodes}:
        load_app(app)


async def _run(
    sends: Mapping[int, Send], plan: FederationPlan, initial: Sequence[Floating], watch: Watcher | None
) -> Federated:
    loop = asyncio.get_running_loop()
    grid = SwarmGrid(nodes=sends, loop=loop)
    told = None if watch is None else lambda report: _tell(loop, watch, report)
    try:
        return await asyncio.to_thread(run_rounds, plan, grid, initial, watch=told)
    finally:
        grid.close()


def _tell(loop: asyncio.AbstractEventLoop, watch: Watcher, report: RoundReport) -> None:
    loop.call_soon_threadsafe(watch, report)


def _in_thread(host: Host) -> Send:
    async def send(packed: bytes) -> bytes:
        return await asyncio.to_thread(host.handle, packed)

    return send


@asynccontextmanager
async def _actors(nodes: Sequence[NodePlan], settings: Settings) -> AsyncIterator[dict[int, Send]]:
    """An actor for each sandbox, for as long as the context lasts."""
    connection = cluster.connect(settings)
    name, actors = f"federation-{secrets.token_hex(3)}", dict[int, Any]()
    try:
        for node in nodes:
            actors[node.node_id] = cluster.spawn(
                SandboxNode, name=f"{name}/{node.node_id}", place="cell", lasting=False, plan=node
            )
        yield {node_id: _call(actor) for node_id, actor in actors.items()}
    finally:
        for actor in actors.values():
            cluster.kill(actor)
        cluster.disconnect(connection)


def _call(actor: Any) -> Send:
    async def send(packed: bytes) -> bytes:
        try:
            reply: Awaitable[bytes] = actor.deliver.remote(packed)
            return await reply
        except cluster.CALL_FAILED as error:
            raise cluster.unwrap(error) from None

    return send
