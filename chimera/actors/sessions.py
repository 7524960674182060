"""Clients as a coordinator knows them: what they hand over, and the results that wait for them to collect."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import ValidationError

from chimera.actors.outbox import Batch, Outbox
from chimera.core.clock import Clock
from chimera.core.errors import GraphError, InputError
from chimera.core.types import Budget, TaskResult
from chimera.storage import strict_json
from chimera.swarm.attempt import NO_LIMIT
from chimera.swarm.graph import TaskGraph

SESSION_S = 300.0
"""A client that has not asked for its results for this long has gone."""

MAX_HELD_BYTES = 256_000_000
"""Results that one client has not collected. The oldest are then let go: whoever asks for one gets it all the same."""

MAX_REVIEW_S = 2_678_400.0
"""For which a mission's money stays set aside while it waits for people: 31 days."""

MAX_KEPT = 1_000
MAX_KEPT_BYTES = 64_000_000
"""Results of ended missions that stay in memory for late callers; older ones are read from the journal."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A mission as a client hands it over: its graph as JSON, which travels in half the time of a pickle, and beside it
    the priority, so that what is refused need not be read. `review_s` is how long people may take over it, one after
    another."""

    mission_id: str
    packed: bytes
    deadline_s: float
    priority: int
    budget: Budget = NO_LIMIT
    review_s: float = 0.0

    @classmethod
    def of(cls, mission_id: str, graph: TaskGraph, deadline_s: float, budget: Budget = NO_LIMIT) -> Submission:
        """Raises InputError for inputs that have no JSON form."""
        try:
            packed = strict_json.dumps(graph.model_dump(mode="json", exclude_defaults=True))
        except ValueError as error:
            raise InputError(f"the mission's tasks cannot be written as JSON: {error}") from error
        review_s = sum(node.task.review_s for node in graph.nodes if node.task.review != "never")
        return cls(mission_id, packed, deadline_s, graph.nodes[0].task.priority, budget, min(review_s, MAX_REVIEW_S))

    def graph(self) -> TaskGraph:
        """Raises GraphError for what is none."""
        try:
            return TaskGraph.model_validate_json(self.packed)
        except ValidationError:  # perhaps only nested deeper than pydantic's parser goes
            try:
                return TaskGraph.model_validate(strict_json.loads(self.packed))
            except (ValueError, RecursionError) as error:
                raise GraphError(f"the mission's tasks cannot be read: {error}", "unknown") from error


def pack_result(result: TaskResult) -> bytes:
    """A result as it travels and is kept: as JSON, which is several times quicker than a pickle."""
    return result.model_dump_json(exclude_defaults=True).encode()


def read_result(packed: bytes) -> TaskResult:
    """What `pack_result` was given."""
    try:
        return TaskResult.model_validate_json(packed)
    except ValidationError:  # a value nested deeper than pydantic's parser goes
        return TaskResult.model_validate(strict_json.loads(packed))


class Results:
    """Packed results of the missions that ended last, within MAX_KEPT and MAX_KEPT_BYTES."""

    def __init__(self) -> None:
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def __contains__(self, mission_id: str) -> bool:
        return mission_id in self._packed

    def get(self, mission_id: str) -> bytes | None:
        return self._packed.get(mission_id)

    def put(self, mission_id: str, packed: bytes) -> None:
        """Keep a result, and let go of the oldest that are too many or too much."""
        self._bytes += len(packed) - len(self._packed.pop(mission_id, b""))
        self._packed[mission_id] = packed
        while len(self._packed) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._packed.popitem(last=False)[1])


class _Session:
    def __init__(self) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.held_bytes = 0
        self.seen_at = 0.0

    def forget(self, acked: int) -> None:
        self.held_bytes -= sum(map(len, self.outbox.forget(acked)))


class Sessions:
    """An outbox for each client, of packed results."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, _Session] = {}

    def open(self, name: str) -> None:
        """The client is here, for the first time or still."""
        now = self._clock.monotonic()
        for gone in [other for other, session in self._sessions.items() if session.seen_at < now - SESSION_S]:
            del self._sessions[gone]
        self._sessions.setdefault(name, _Session()).seen_at = now

    def tell(self, name: str, packed: bytes) -> None:
        """Keep a result for a client, unless it has gone."""
        if session := self._sessions.get(name):
            session.outbox.put([packed])
            session.held_bytes += len(packed)
            while session.held_bytes > MAX_HELD_BYTES and len(session.outbox) > 1:
                session.forget(session.outbox.first)

    async def collect(self, name: str, acked: int, after: int, wait_s: float, origin: str | None) -> Batch[bytes]:
        """Long-poll for a client's results; see `Outbox`.

        Who names another `origin` than the outbox has is answered at once: the coordinator or the session is a new one,
        and has to be told what is waited for.
        """
        self.open(name)
        outbox = self._sessions[name].outbox
        if origin is not None and origin != outbox.origin:
            acked, after, wait_s = 0, 0, 0.0
        self._sessions[name].forget(acked)
        batch = await outbox.collect(after=after, wait_s=wait_s)
        self.open(name)
        return batch
