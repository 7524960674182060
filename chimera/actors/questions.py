"""What missions of one coordinator ask of people: the port that brains' questions go to, and the answers' way back.

Nothing here is kept: after a restart each mission that goes on from its journal asks again. A queue that lasts is put
behind it by whoever calls `held` and `reviewed` of the coordinator.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from chimera.core.errors import InputError, NotThere
from chimera.core.events import EventKind
from chimera.swarm import facts
from chimera.swarm.held import HeldTask, Review, contradiction
from chimera.swarm.instructions import Reviewed
from chimera.swarm.status import HeldStatus

if TYPE_CHECKING:
    from chimera.actors.missions import Missions

MAX_LISTED = 1_000
"""Held tasks in one answer."""

MAX_SHOWN = 20
"""Of them in a swarm's status: those that have waited longest."""


class Questions:
    """The tasks that wait for a person, by mission and task."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, HeldTask]] = {}

    def ask(self, held: HeldTask) -> None:
        """A task waits. Asked again, it is the same question."""
        self._held.setdefault(held.mission_id, {})[held.task_id] = held

    def answered(self, mission_id: str, task_id: str) -> None:
        """A task waits no longer."""
        mine = self._held.get(mission_id, {})
        mine.pop(task_id, None)
        if not mine:
            self._held.pop(mission_id, None)

    def ended(self, mission_id: str) -> None:
        """The mission has ended, and asks nothing any more."""
        self._held.pop(mission_id, None)

    def held(self, mission_id: str, task_id: str) -> HeldTask:
        """All that a person is shown. Raises NotThere."""
        try:
            return self._held[mission_id][task_id]
        except KeyError:
            raise NotThere(f"task {task_id!r} of mission {mission_id!r} is not held for a person here") from None

    def listed(self, after: str = "", limit: int = MAX_LISTED) -> list[HeldStatus]:
        """What waits, by key, from the first one behind `after` on."""
        found = sorted((each for mine in self._held.values() for each in mine.values()), key=lambda held: held.key)
        start = bisect_right(found, after, key=lambda held: held.key)
        return [held.brief() for held in found[start : start + max(1, min(limit, MAX_LISTED))]]

    def longest(self) -> tuple[HeldStatus, ...]:
        """Those that have waited longest, for a status."""
        found = sorted((each for mine in self._held.values() for each in mine.values()), key=lambda held: held.since_s)
        return tuple(held.brief() for held in found[:MAX_SHOWN])


async def answer(missions: Missions, mission_id: str, task_id: str, review: Review) -> None:
    """Hand a person's answer to the mission; it is durable when this returns. The same answer again changes nothing.

    Raises InputError for a task that is not held, an answer that does not fit or that contradicts one that was given.
    """
    brain = missions.brain(mission_id)
    if brain is not None:
        if why := brain.holds.refusal(task_id, review):
            raise InputError(f"mission {mission_id}: {why}")
        missions.tell(mission_id, Reviewed(task_id, review))
        if await missions.written(mission_id, brain.seq):
            return
    events = await missions.read(mission_id)
    told = [event for event in events if event.kind is EventKind.TASK_REVIEWED and event.task_id == task_id]
    if not told and events[-1].kind is not EventKind.MISSION_ENDED:
        raise InputError(f"mission {mission_id!r} is not running here: `chimera missions resume {mission_id}`")
    given = facts.review(told[-1]) if told else None
    if why := contradiction(task_id, given, review):
        raise InputError(f"mission {mission_id}, which has ended: {why}")
