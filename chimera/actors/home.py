"""A cell as its manager sees it: the actor, who lives there, and the mail on its way to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chimera.actors import cluster
from chimera.actors.courier import Courier
from chimera.actors.line import Line
from chimera.core.errors import ClusterError
from chimera.swarm.attempt import Attempt
from chimera.swarm.policy import Seat

log = logging.getLogger(__name__)

Errand = tuple[str, Attempt]
"""An agent's id and what it is to do."""


class Home:
    """One cell. `seats` are all who live here, or are about to: whenever it has to be filled anew, it is with them.

    `up`: it hosts its seats. `leaving`: it takes no work any more and ends as soon as it is empty. `start` starts the
    actor, or finds it.
    """

    def __init__(self, name: str, start: Callable[[], Any], *, load_timeout_s: float) -> None:
        self.name = name
        self._start = start
        self._load_timeout_s = load_timeout_s
        self.line = Line(start())
        self.seats: dict[str, Seat] = {}
        self.courier: Courier[Errand] = Courier(self._send)
        self.watcher: asyncio.Task[None] | None = None
        self.vitals: dict[str, Any] = {}
        self.up = False
        self.leaving = False

    @property
    def handle(self) -> Any:
        """Ray's, for what is not mail."""
        return self.line.handle

    async def load(self, seats: Sequence[Seat], *, afresh: bool = False) -> dict[str, str]:
        """Have the cell take these in, with `afresh` in place of whoever is there.

        Returns whose policy could not be loaded, and why. Raises ClusterError when the cell failed at it.
        """
        limit_s = self._load_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                refused: dict[str, str] = await self.handle.host.remote(seats, afresh)
        except TimeoutError:
            raise ClusterError(
                f"{self.name} did not start within {limit_s:g} s: has the cluster room for it, does the policy's"
                " import end?"
            ) from None
        except cluster.CALL_FAILED as error:
            policies = ", ".join(sorted({seat.policy for seat in seats})[:10])
            raise ClusterError(f"{self.name} failed while it loaded {policies}: {cluster.unwrap(error)}") from error
        return refused

    async def refill(self) -> dict[str, str]:
        """Have the cell host those who live here and no others: also those who came to live here meanwhile."""
        hosted: dict[str, Seat] = {}
        refused: dict[str, str] = {}
        first = True
        while first or self.seats.keys() - hosted.keys():
            missing = {agent_id: seat for agent_id, seat in self.seats.items() if agent_id not in hosted}
            refused |= await self.load(list(missing.values()), afresh=first)
            hosted |= missing
            first = False
        return refused

    def renew(self) -> None:
        """The actor is to be had again, if it ended for good by a new one; what was on its way there is not sent."""
        self.courier.close()
        self.courier = Courier(self._send)
        try:
            handle = self._start()
        except Exception as error:  # Ray itself cannot be asked just now: whoever waits for the cell asks again
            log.warning("%s cannot be started yet: %s", self.name, error)
            return
        self.line.close()
        self.line = Line(handle)

    def evict(self, agent_ids: Iterable[str]) -> None:
        """These do not live here any more."""
        gone = list(agent_ids)
        for agent_id in gone:
            self.seats.pop(agent_id, None)
        if gone:
            self.handle.evict.remote(gone)

    def close(self) -> None:
        """Send nothing more, watch no longer."""
        if self.watcher:
            self.watcher.cancel()
        self.courier.close()
        self.line.close()

    async def examine(self) -> None:
        """Ask for the vitals; empty while the cell does not answer."""
        try:
            async with asyncio.timeout(5):
                vitals: dict[str, Any] = await self.handle.vitals.remote()
        except Exception:
            self.vitals = {}
            return
        now = time.monotonic()
        was = self.vitals
        same = was.get("pid") == vitals["pid"]
        spent = (vitals["cpu_s"] - was["cpu_s"]) / max(now - was["at_s"], 1e-3) if same else 0.0
        self.vitals = {**vitals, "at_s": now, "cpu_share": max(0.0, spent)}

    async def _send(self, batch: list[Errand]) -> None:
        await self.line.call("run", batch)
