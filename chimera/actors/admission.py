"""What one swarm takes on. Past its limits: a refusal that says which limit it is, and when to come back."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from chimera.actors.expenses import Expenses
from chimera.actors.missions import Missions
from chimera.actors.sessions import Submission
from chimera.core.config import Settings
from chimera.core.errors import BudgetExceeded, GraphError, NoAgents, Overloaded, StorageError
from chimera.core.types import Isolation
from chimera.storage.journal import MAX_READ
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.policy import Seat

log = logging.getLogger(__name__)

MAX_GRAPH_BYTES = 3_000_000
"""JSON bytes of a mission's graph, which is one event of the journal."""


def most_missions(max_missions: int, priority: int) -> int:
    """Missions that may run at once before one of this priority is refused."""
    return math.ceil(max_missions * (1 + (priority - 4) / 10))


def check_load(settings: Settings, priority: int, missions: Missions, missions_per_s: float) -> None:
    """Raises Overloaded when so many missions run that none of this priority is taken. Come back when a tenth of
    them may have ended. Those that are held for a person count only towards what a restart can take up again."""
    running, held = missions.running, missions.held
    if running + held >= MAX_READ:
        raise Overloaded(f"{held} missions wait for a person: no more than {MAX_READ} may wait and run", 30.0)
    most = most_missions(settings.max_missions, priority)
    if running < most:
        return
    wait_s = running / 10 / missions_per_s if missions_per_s else 1.0
    raise Overloaded(
        f"{running} missions are running; the limit for priority {priority} is {most} (CHIMERA_MAX_MISSIONS)",
        min(30.0, max(0.05, wait_s)),
    )


def check_room(settings: Settings, seats: Iterable[Seat]) -> None:
    """Raises Overloaded when these would be more agents than a swarm may have."""
    wanted = list(seats)
    if len(wanted) > settings.max_agents:
        raise Overloaded(
            f"there would be {len(wanted)} agents; the limit is {settings.max_agents} (max_agents, CHIMERA_MAX_AGENTS)",
            60.0,
        )
    alone = sum(seat.isolation is Isolation.DEDICATED for seat in wanted)
    if alone > settings.max_dedicated:
        raise Overloaded(
            f"{alone} agents would have a process of their own; the limit is"
            f" {settings.max_dedicated} (CHIMERA_MAX_DEDICATED)",
            60.0,
        )


def admitted(submission: Submission, *, roles: set[str], decomposer: TaskDecomposer, swarm: str) -> MissionBrain:
    """The brain of a new mission. Raises GraphError, NoAgents."""
    size = len(submission.packed)
    if size > MAX_GRAPH_BYTES:
        why = f"the mission's tasks are {size} bytes as JSON; the limit is {MAX_GRAPH_BYTES}"
        raise GraphError(why, "too_many")
    graph = decomposer.validate(submission.graph())
    for node in graph.nodes:
        if node.task.role not in roles:
            role = node.task.role
            raise NoAgents(f"task {node.id!r} needs an agent of role {role!r}; spawn one: AgentSpec(role={role!r})")
    return MissionBrain(
        mission_id=submission.mission_id,
        graph=graph,
        deadline_s=submission.deadline_s,
        decomposer=decomposer,
        budget=submission.budget,
        swarm=swarm,
    )


async def take_up(mission_ids: Iterable[str], missions: Missions, expenses: Expenses) -> None:
    """Go on with missions that a coordinator which died has left unfinished; one that cannot go on harms no other."""
    for mission_id in mission_ids:
        try:
            await missions.recover(mission_id)
            await expenses.resume(mission_id)
        except BudgetExceeded as error:
            missions.cancel(mission_id, str(error))
        except StorageError as error:
            log.error("mission %s cannot go on: %s", mission_id, error)
