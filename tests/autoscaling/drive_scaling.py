"""What test_scaling.py has happen on the scaled cluster: 1 -> 3 -> 1 nodes, twice. Prints a line for each step."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

from chimera import Settings
from chimera.actors import cluster, scaling
from tests.autoscaling.head import MARKER, kill_node

PATIENCE_S = 60.0


class Resident:
    """Stands in for a cell."""

    async def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def alive() -> int:
    return sum(node.alive for node in scaling.nodes())


def until(what: str, holds: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > PATIENCE_S:
            raise SystemExit(f"in vain: {what}; {scaling.capacity()}, {scaling.nodes()}")
        time.sleep(0.1)
    sys.stdout.write(f"{what}: {time.monotonic() - begun:.1f} s\n")
    sys.stdout.flush()


def spawn(names: str) -> list[Any]:
    return [cluster.spawn(Resident, name=name, place="cell") for name in names]


def homes(residents: list[Any]) -> set[str]:
    return set(ray.get([resident.node.remote() for resident in residents], timeout=PATIENCE_S))


def homes_of_the_living(residents: list[Any]) -> set[str]:
    """None while one of them is being started again."""
    try:
        return homes(residents)
    except ray.exceptions.RayActorError:
        return set()


def pending_cells_are_demand() -> None:
    """8 cells, 1 place on the head and 4 on each worker node."""
    head = next(node.node_id for node in scaling.nodes() if node.head)
    assert scaling.capacity() == scaling.Capacity(cells=1, free=1)
    residents = spawn("abcdefgh")
    until("8 pending cells: 3 nodes", lambda: alive() == 3)
    on = homes(residents)
    assert len(on) == 3 and head in on
    until("8 places of 9 are taken", lambda: scaling.capacity() == scaling.Capacity(cells=9, free=1))
    for resident in residents:
        cluster.kill(resident)
    until("cells gone: 1 node", lambda: alive() == 1)


async def requests_add_up_and_lapse(lease_s: float) -> None:
    """3 cells for one swarm and 5 for another: either fits on two nodes, and the sum does not."""
    await scaling.request_cells("one", 3)
    await scaling.request_cells("two", 5)
    until("3 + 5 cells requested: 3 nodes", lambda: alive() == 3)
    residents = spawn("xyz")
    assert len(homes(residents)) == 3, "cells spread over the nodes that there are"
    until("places taken", lambda: scaling.capacity() == scaling.Capacity(cells=9, free=6))
    before = {node.node_id for node in scaling.nodes() if node.alive}
    kill_node(os.environ[MARKER], 0)
    until("a node killed: seen", lambda: not before <= {node.node_id for node in scaling.nodes() if node.alive})
    until("and replaced", lambda: alive() == 3)
    until("cells of the dead node live again", lambda: len(homes_of_the_living(residents)) >= 2)
    for resident in residents:
        cluster.kill(resident)
    await scaling.release("one")
    until("3 released: 2 nodes", lambda: alive() == 2)
    await scaling.request_cells("two", 5, lease_s=lease_s)
    until("5 lapsed: 1 node", lambda: alive() == 1)


if __name__ == "__main__":
    connection = cluster.connect(Settings())
    assert scaling.autoscaled()
    pending_cells_are_demand()
    asyncio.run(requests_add_up_and_lapse(3.0))
    cluster.disconnect(connection)
