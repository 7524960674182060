"""Clients as a coordinator knows them: what they hand over, and the results that wait for them to collect."""

from __future__ import annotations

from dataclasses import dataclass

from chimera.actors.outbox import Batch, Outbox
from chimera.core.clock import Clock
from chimera.core.types import Budget, TaskResult
from chimera.swarm.attempt import NO_LIMIT
from chimera.swarm.graph import TaskGraph

SESSION_S = 300.0
"""A client that has not asked for its results for this long has gone."""


@dataclass(frozen=True)
class Submission:
    """A mission as a client hands it over."""

    mission_id: str
    graph: TaskGraph
    deadline_s: float
    budget: Budget = NO_LIMIT


class _Session:
    def __init__(self) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.seen_at = 0.0


class Sessions:
    """An outbox for each client. Results travel as JSON, which is several times quicker than a pickle."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, _Session] = {}

    def open(self, name: str) -> None:
        """The client is here, for the first time or still."""
        now = self._clock.monotonic()
        for gone in [other for other, session in self._sessions.items() if session.seen_at < now - SESSION_S]:
            del self._sessions[gone]
        self._sessions.setdefault(name, _Session()).seen_at = now

    def tell(self, name: str, result: TaskResult) -> None:
        """Keep a result for a client, unless it has gone."""
        if session := self._sessions.get(name):
            session.outbox.put([result.model_dump_json(exclude_defaults=True).encode()])

    async def collect(self, name: str, acked: int, after: int, wait_s: float, origin: str | None) -> Batch[bytes]:
        """Long-poll for a client's results; see `Outbox`.

        Who names another `origin` than the outbox has is answered at once: the coordinator or the session is a new one,
        and has to be told what is waited for.
        """
        self.open(name)
        outbox = self._sessions[name].outbox
        if origin is not None and origin != outbox.origin:
            acked, after, wait_s = 0, 0, 0.0
        outbox.forget(acked)
        batch = await outbox.collect(after=after, wait_s=wait_s)
        self.open(name)
        return batch
