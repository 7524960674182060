"""The bridge between a swarm's held tasks and the review queue: questions go into the queue, answers come back.

It keeps nothing. The swarm's journal knows what is held, and the queue's what was decided; a task is one item, by its
key. So each round compares the two, and either side, or this one, may die at any moment: the next round goes on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal, NamedTuple, Protocol

from pydantic import JsonValue, ValidationError

from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, NotThere
from chimera.core.types import Outcome
from chimera.review.queue import ReviewQueue
from chimera.review.types import Item, Proposal, Refused, Route, State, item_id
from chimera.swarm.held import NOBODY, HeldTask
from chimera.swarm.status import HeldStatus
from chimera.system.review import open_desk, read_policy

log = logging.getLogger(__name__)

KIND = "held_task"
"""The kind of these items."""

ROUND_S = 2.0
PAGE = 1_000
MAX_SUMMARY_CHARS = 500
MAX_NAMES_CHARS = 200


class HoldingSwarm(Protocol):
    """What is asked of a swarm: see `chimera.SwarmCoordinator`."""

    @property
    def name(self) -> str: ...

    async def held(self, after: str = "", limit: int = PAGE) -> list[HeldStatus]: ...

    async def held_task(self, mission_id: str, task_id: str) -> HeldTask: ...

    async def reviewed(
        self,
        mission_id: str,
        task_id: str,
        verdict: Literal["approve", "edit", "reject"],
        *,
        by: str,
        reason: str = "",
        value: JsonValue = None,
    ) -> None: ...


class Answer(NamedTuple):
    """What an item that has ended says of its task."""

    verdict: Literal["approve", "edit", "reject"]
    by: str
    reason: str = ""
    value: JsonValue = None


class HeldMissions:
    """One swarm and one queue. Several of them may run for the same two: asking and answering twice changes nothing.

    Items name no agents: the swarm itself lets the voters' reputations know, and it would be done twice.
    """

    def __init__(self, *, swarm: HoldingSwarm, queue: ReviewQueue) -> None:
        self._swarm = swarm
        self._queue = queue
        self._seen: set[str] = set()
        self._faults: dict[str, str] = {}

    async def run(self, *, every_s: float = ROUND_S) -> None:
        """Compare both sides until cancelled. What fails is logged, and tried again in the next round."""
        while True:
            try:
                await self.round()
            except ChimeraError as error:
                log.warning("held tasks wait for the next round: %s", error)
            await asyncio.sleep(every_s)

    async def round(self) -> int:
        """Ask what has not been asked, hand back what was decided, take back what nobody waits for; how many answers
        were handed back. What cannot be asked or handed back is logged once, and harms no other."""
        held = await self._held()
        waiting = {item.id: item for item in await self._queue.waiting() if item.proposal.kind == KIND}
        answered = 0
        for key, brief in held.items():
            if item_id(self._queue.name, key) not in waiting:
                try:
                    answered += await self._settle(key, brief)
                    self._faults.pop(key, None)
                except (InputError, ValidationError) as error:
                    self._fault(key, str(error))
        for item in waiting.values():
            if item.proposal.key not in held:
                await self._take_back(item)
        self._seen = set(held)
        self._faults = {key: why for key, why in self._faults.items() if key in held}
        return answered

    async def _held(self) -> dict[str, HeldStatus]:
        found: dict[str, HeldStatus] = {}
        while page := await self._swarm.held(next(reversed(found), ""), PAGE):
            found |= {f"{each.mission_id}/{each.task_id}": each for each in page}
            if len(page) < PAGE:
                break
        return found

    async def _settle(self, key: str, brief: HeldStatus) -> bool:
        """Ask about a task that does not wait in the queue, or hand back what was said; True if it was.

        Raises InputError and ValidationError for a task that cannot be asked about, or answered so.
        """
        try:
            task = await self._swarm.held_task(brief.mission_id, brief.task_id)
        except NotThere:  # it was answered meanwhile
            return False
        wanted = proposal(task, asker=self._swarm.name)
        try:
            item = await self._queue.by_key(key)
        except NotThere:
            asked = await self._queue.ask(wanted)
            if isinstance(asked, Refused):
                raise InputError(asked.message) from None
            item = asked
        if item.proposal.kind != KIND or not item.proposal.same_act(wanted):
            raise InputError("the queue's item of that name asks about something else: a yes to it is none to this")
        if item.routing.route is not Route.PERSON:
            raise InputError(f"the review policy lets {KIND} go on without a person: make that kind critical")
        if (said := answer(item)) is None:
            return False
        await self._swarm.reviewed(
            brief.mission_id, brief.task_id, said.verdict, by=said.by, reason=said.reason, value=said.value
        )
        return True

    async def _take_back(self, item: Item) -> None:
        """Its task is not held any more, if the swarm says so again: it may have come after the list was made."""
        asker, key = item.proposal.asker, item.proposal.key
        if asker != self._swarm.name and key not in self._seen:
            return  # another swarm's
        mission_id = item.proposal.mission
        try:
            await self._swarm.held_task(mission_id, key.removeprefix(f"{mission_id}/"))
        except NotThere:
            await self._queue.withdraw(item.id, asker, "its mission waits for it no longer")

    def _fault(self, key: str, why: str) -> None:
        if self._faults.get(key) != why:
            self._faults[key] = why
            log.error("held task %s has no answer from the review queue: %s", key, why)


async def bridge_held(swarm: HoldingSwarm, settings: Settings) -> None:
    """Run the bridge between a swarm and the installation's own queue until cancelled. Raises InputError for a policy
    that cannot be read, StorageError."""
    policy = await asyncio.to_thread(read_policy, settings)
    async with open_desk(settings, policy=policy) as desk:
        await HeldMissions(swarm=swarm, queue=desk.queue).run()


def proposal(task: HeldTask, *, asker: str) -> Proposal:
    """What the queue is asked: an edit of it is one of `value`. Raises ValidationError for what no queue takes."""
    agreed = "" if task.proposal.agreed else " (the agents agreed on nothing: edit it, or reject it)"
    return Proposal(
        key=task.key,
        kind=KIND,
        summary=f"{task.task_id}{agreed}: {task.goal}"[:MAX_SUMMARY_CHARS],
        payload={
            "goal": task.goal,
            "value": task.proposal.value,
            "outcome": task.proposal.outcome.value,
            "others": list(task.others),
        },
        confidence=task.confidence,
        asker=asker,
        mission=task.mission_id,
    )


def answer(item: Item) -> Answer | None:
    """What the item says of its task; None while it waits. What ended without a person's word is a rejection."""
    if item.ending is None:
        return None
    said, reason = item.payload, item.ending.reason
    value = said.get("value") if isinstance(said, dict) else None
    if item.state in (State.APPROVED, State.EDITED):
        people = " and ".join(item.approvers) or item.ending.by  # of four eyes, both
        by = people[:MAX_NAMES_CHARS]
        if value is None and not _proposes(item):
            return Answer("reject", by, "agreed to, but there was no value to agree to: ask anew")
        return Answer("edit", by, reason, value) if item.state is State.EDITED else Answer("approve", by, reason)
    by = item.ending.by or "the review queue"
    if item.state is State.EXPIRED:
        return Answer("reject", by, NOBODY)
    return Answer("reject", by, reason or f"{item.state.value} in the review queue")


def _proposes(item: Item) -> bool:
    proposed = item.proposal.payload
    return isinstance(proposed, dict) and proposed.get("outcome") == Outcome.AGREED.value
