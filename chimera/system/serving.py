"""Wiring of a node's API: a gateway in front of a swarm, kept up, and replaced without a failed request."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

from chimera.actors import cluster, listening
from chimera.actors.gateway import Gateway, GatewayOptions, GatewayStatus, is_loopback
from chimera.core.errors import ChimeraError, InputError, SwarmError

__all__ = ["Front", "GatewayOptions", "GatewayStatus", "check_port", "is_loopback"]

log = logging.getLogger(__name__)

START_S = 120.0
DRAIN_S = 30.0
ANSWER_S = 30.0

UNANSWERED: tuple[type[BaseException], ...] = (TimeoutError, *cluster.ACTOR_GONE)


def check_port(host: str, port: int) -> None:
    """Raises InputError where nothing can be served. It says so before anything has been started for it."""
    listening.bind(host, port).close()


class Front:
    """The gateway of the swarm of that name. Ray must be connected to. Every method raises ChimeraError."""

    def __init__(self, swarm: str, options: GatewayOptions) -> None:
        self._swarm = swarm
        self._options = options
        self._gateway: Any = None
        self._name = ""
        self._turn = asyncio.Lock()
        self.host, self.port = options.host, options.port

    async def start(self) -> tuple[str, int]:
        """Start the gateway: where it listens. Raises InputError where the port is taken."""
        self._options.check()
        async with self._turn:
            self._name, self._gateway = await self._started(join=False)
        return self.host, self.port

    async def keep(self) -> GatewayStatus | None:
        """Keep the gateway alive, and serving after its process died: how it is; None while a new one starts.

        To be called more often than every `orphan_s` seconds.
        """
        if self._turn.locked():  # it is being replaced
            return None
        async with self._turn:
            try:
                status: GatewayStatus = await asyncio.wait_for(self._gateway.status.remote(), ANSWER_S)
            except UNANSWERED as error:
                if cluster.find(self._name) is None:
                    raise SwarmError(f"the gateway has ended: {cluster.unwrap(error)}") from error
                log.warning("the gateway does not answer: %s", cluster.unwrap(error))
                return None
            if status.state == "new":  # the process is another one
                try:
                    await _ask(self._gateway.start.remote(False, self.port), START_S)
                except InputError as error:
                    log.warning("the gateway cannot serve again yet: %s", error)
            elif status.state != "serving":
                raise SwarmError("the gateway has stopped serving: see its process's log")
            return status

    async def redeploy(self, drain_s: float = DRAIN_S) -> int:
        """Have a new process serve, with the code as it is now: how many requests were cut off after `drain_s`.

        Where the new one cannot be started, the one before goes on.
        """
        async with self._turn:
            before = self._gateway
            self._name, self._gateway = await self._started(join=True)
            return await self._drained(before, drain_s)

    async def close(self, drain_s: float = 2.0) -> None:
        """End the gateway; what it is at has `drain_s` to be finished."""
        async with self._turn:
            if self._gateway is not None:
                await self._drained(self._gateway, drain_s)

    async def _started(self, *, join: bool) -> tuple[str, Any]:
        name = f"{self._swarm}/Gateway[{secrets.token_hex(3)}]"
        made = cluster.spawn(Gateway, name=name, lasting=True, options=self._options)
        try:
            self.host, self.port = await _ask(made.start.remote(join, self.port), START_S)
        except BaseException:
            cluster.kill(made)
            raise
        return name, made

    async def _drained(self, gateway: Any, drain_s: float) -> int:
        try:
            left: int = await _ask(gateway.drain.remote(drain_s), drain_s + ANSWER_S)
        except ChimeraError as error:
            log.warning("the gateway did not end by itself: %s", error)
            left = 0
        finally:
            cluster.kill(gateway)
        return left


async def _ask(answer: Any, timeout_s: float) -> Any:
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except TimeoutError:
        raise SwarmError(f"the gateway has not answered within {timeout_s:g} s") from None
    except Exception as error:
        raise cluster.unwrap(error) from None
