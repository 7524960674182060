"""Wiring: settings in, a running swarm out. The edges talk to a swarm through `RunningSwarm` and nothing else."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from chimera.actors import cluster
from chimera.actors.coordinator import Coordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError

log = logging.getLogger(__name__)


class RunningSwarm:
    """A coordinator actor and the connection it lives behind."""

    def __init__(self, *, name: str, connection: cluster.Connection, coordinator: Any) -> None:
        self.name = name
        self.connection = connection
        self._coordinator = coordinator

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the coordinator. Its own errors come out as they were raised; Ray's as ClusterError."""
        try:
            return await getattr(self._coordinator, method).remote(*arguments)
        except Exception as error:
            raise cluster.unwrap(error) from None

    async def close(self) -> None:
        """End the swarm, and Ray with it when it was started for it. What is dead already is left alone."""
        try:
            await self.call("close")
        except ChimeraError as error:
            log.warning("%s did not end by itself: %s", self.name, error)
        finally:
            cluster.kill(self._coordinator)
            cluster.disconnect(self.connection)


async def start_swarm(settings: Settings) -> RunningSwarm:
    """Join or start Ray, and start a swarm in it. Raises ClusterError and what opening the journal raises."""
    connection = cluster.connect(settings)
    name = f"swarm-{secrets.token_hex(3)}"
    coordinator = cluster.spawn(
        Coordinator, name=f"{name}/Coordinator", swarm=name, settings=settings, cells=connection.cells
    )
    swarm = RunningSwarm(name=name, connection=connection, coordinator=coordinator)
    try:
        await swarm.call("start")
    except BaseException:
        await swarm.close()
        raise
    return swarm
