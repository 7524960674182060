"""What a swarm asks of Ray's autoscaler, and what the cluster has. See docs/adr/0006-scaling.md.

Cells hold the resource `chimera_cell`, so cells that wait for a place are demand, and nodes that have one are not idle:
that alone makes a cluster grow and shrink, adds up over swarms, and ends with them. The request made here comes on top.
It brings nodes before there are cells for them, and keeps them while cells come and go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.utils import is_autoscaler_v2

from chimera.actors import cluster
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import ClusterError
from chimera.swarm.placement import Leases

log = logging.getLogger(__name__)

HEADROOM = "Headroom"

LEASE_S = 60.0
"""A request that was not repeated for this long lapses: its swarm is no more."""

LINGER_S = 30.0
"""How long the actor stays when nothing is asked for: more than the time between two requests of a swarm."""

LOOK_S = 1.0

ANSWER_S = 30.0

TRIES = 3


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster and what it has in all, used or not. A dead one has nothing. `cells` may live on it."""

    node_id: str
    alive: bool
    head: bool
    resources: dict[str, float]
    cells: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """The cells that the nodes of this moment can host, and how many of those places are free."""

    cells: int
    free: int


def autoscaled() -> bool:
    """Whether Ray's autoscaler (v2) looks after this cluster. One that Chimera started has none."""
    return bool(is_autoscaler_v2(fetch_from_server=True))


def nodes() -> list[Node]:
    """The nodes of the cluster, also the dead ones that Ray remembers."""
    found = []
    for told in ray.nodes() if ray.is_initialized() else ():
        resources = {name: float(count) for name, count in told["Resources"].items()}
        found.append(
            Node(
                node_id=told["NodeID"],
                alive=told["Alive"],
                head=cluster.HEAD_RESOURCE in resources,
                resources=resources,
                cells=int(resources.get(cluster.CELL_RESOURCE, 0)),
            )
        )
    return found


def capacity() -> Capacity:
    """Room for cells now. Where no node declares `chimera_cell` there is one place a CPU, and cells take none."""
    total = ray.cluster_resources()
    if cluster.CELL_RESOURCE in total:
        return Capacity(int(total[cluster.CELL_RESOURCE]), int(ray.available_resources().get(cluster.CELL_RESOURCE, 0)))
    cpus = max(1, int(total.get("CPU", 1)))
    return Capacity(cpus, cpus)


async def request_cells(swarm: str, cells: int, *, lease_s: float = LEASE_S) -> None:
    """Ask that the cluster be large enough for `cells` of this swarm, besides what other swarms ask for.

    In place of what the swarm asked for before; repeat it well within `lease_s`, for it lapses then. Does nothing where
    there is no autoscaler. Raises ClusterError.
    """
    for _ in range(TRIES):
        headroom = await asyncio.to_thread(_headroom, start=cells > 0)
        if headroom is None:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                await headroom.ask.remote(swarm, cells, lease_s)
            return
        except cluster.ACTOR_GONE:  # it was about to end: nothing had been asked for
            await asyncio.sleep(LOOK_S)
        except cluster.CALL_FAILED as error:
            raise cluster.unwrap(error) from error
    raise ClusterError("the actor that asks Ray's autoscaler for nodes ends as soon as it is started")


async def release(swarm: str) -> None:
    """Ask for nothing any more. Raises ClusterError."""
    await request_cells(swarm, 0)


def _headroom(*, start: bool) -> Any:
    if start and autoscaled():
        return cluster.spawn(Headroom, name=HEADROOM)
    return cluster.find(HEADROOM)


def _request(cells: int) -> None:
    request_resources(bundles=[{cluster.CELL_RESOURCE: 1}] * cells)


class Headroom:
    """Speaks to the autoscaler for all swarms of a cluster: a request is one for the whole cluster, in place of the one
    before, and stays in force for ever. This actor asks for the sum of what living swarms want, and for nothing when
    the last one has released its request or has been silent too long; then it ends itself.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        request: Callable[[int], None] = _request,
        end: Callable[[], None] = cluster.end_self,
    ) -> None:
        self._clock = clock or SystemClock()
        self._request = request
        self._end = end
        self._leases = Leases()
        self._requested = -1  # what a process before this one asked for is not known
        self._asked_at = self._clock.monotonic()
        self._one_by_one = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Headroom {max(0, self._requested)} cells"

    async def awake(self) -> None:
        """Look after the leases from now on."""
        self._looking = asyncio.create_task(self._look_on())

    async def ask(self, swarm: str, cells: int, lease_s: float) -> None:
        """See `request_cells`."""
        now = self._asked_at = self._clock.monotonic()
        self._leases.ask(swarm, cells, now + lease_s)
        await self._update()

    async def look(self) -> None:
        """Withdraw what has lapsed; end when nothing was asked for in a while."""
        if self._clock.monotonic() - self._asked_at < LINGER_S:
            if self._requested >= 0:
                await self._update()
        elif await self._update() == 0:
            self._end()

    async def _update(self) -> int:
        async with self._one_by_one:
            total = self._leases.total(self._clock.monotonic())
            if total != self._requested:
                await asyncio.to_thread(self._request, total)
                self._requested = total
            return total

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception as error:  # the GCS is away; it may come back
                log.warning("cannot ask Ray's autoscaler: %s: %s", type(error).__name__, error)
