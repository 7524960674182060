"""From a held task to the review queue and back, over a real coordinator and a real queue, whichever of them dies."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from pydantic import JsonValue

from chimera.actors.sessions import Submission
from chimera.client import SwarmCoordinator
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, SwarmError
from chimera.core.types import MissionState
from chimera.review.policy import KINDS, KindRule, ReviewPolicy
from chimera.review.queue import ReviewQueue
from chimera.review.types import Item, Proposal, State
from chimera.storage.memory import MemoryJournal
from chimera.system.held_missions import KIND, HeldMissions
from tests.actors.in_process import SWARM, Processes, graph, seats, until


class Link:
    """The client's connection to a coordinator in this process, in the place of Ray's."""

    def __init__(self, handle: Any, name: str = SWARM) -> None:
        self.handle, self.name = handle, name

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self.handle, method).remote(*arguments)


class Office:
    """A swarm, a queue over a journal of its own, and the bridge between them."""

    def __init__(self, journal: str, **policy: Any) -> None:
        self.processes = Processes()
        self.handle = self.processes.coordinator(cells=1, journal_url=journal)
        self.journal = MemoryJournal()
        self.clock = ManualClock(1_000.0)
        reviewers: dict[str, tuple[str, ...]] = {"ada": (), "bob": ()}
        self.policy = ReviewPolicy(**{"reviewers": reviewers, **policy})
        self.swarm = SwarmCoordinator()
        self.swarm._swarm = Link(self.handle)  # type: ignore[assignment]
        self.open()

    def open(self) -> None:
        """The queue's process and the bridge's start, for the first time or again."""
        self.queue = ReviewQueue(journal=self.journal, policy=self.policy, clock=self.clock, generator=Random(1))
        self.bridge = HeldMissions(swarm=self.swarm, queue=self.queue)

    async def crash_coordinator(self) -> None:
        dying = self.handle.actor._journal
        self.processes.crash("Coordinator")
        await dying.close()

    async def hold(self, mission_id: str = "m", **task: Any) -> None:
        submission = Submission.of(mission_id, graph(**{"review": "always", **task}), 30.0)
        assert await self.handle.submit.remote("tests", [submission]) == [None]

        async def there() -> bool:
            return any(each.mission_id == mission_id for each in await self.swarm.held())

        await until(there)

    async def asked(self, mission_id: str = "m") -> Item:
        return await self.queue.by_key(f"{mission_id}/t")

    async def ended(self, mission_id: str = "m") -> tuple[MissionState, Any]:
        found = await self.handle.result.remote(mission_id, 20.0)
        assert found is not None, "it never ended"
        return found.state, found.value


@asynccontextmanager
async def office(tmp_path: Any, *policies: str, **policy: Any) -> AsyncIterator[Office]:
    made = Office(f"sqlite:///{tmp_path / 'journal.db'}", **policy)
    await made.handle.spawn_agents.remote(seats(*(policies or ("unsure",))))
    try:
        yield made
    finally:
        await made.queue.close()
        await made.handle.close.remote()


async def test_what_is_held_is_asked_once_and_what_was_approved_comes_back(tmp_path: Any) -> None:
    async with office(tmp_path) as here:
        await here.hold(goal="which colour?")
        assert [await here.bridge.round() for _ in range(3)] == [0, 0, 0]
        [item] = await here.queue.waiting()
        assert (item.proposal.kind, item.proposal.confidence, item.proposal.mission) == (KIND, 0.2, "m")
        assert item.proposal.summary == "t: which colour?"
        payload: Any = item.payload
        assert payload["value"] == "maybe"
        await here.queue.approve(item.id, "ada")
        assert await here.bridge.round() == 1
        assert await here.ended() == (MissionState.ANSWERED, "maybe")
        assert await here.bridge.round() == 0


async def test_what_was_edited_comes_back_as_the_person_wrote_it(tmp_path: Any) -> None:
    async with office(tmp_path) as here:
        await here.hold()
        await here.bridge.round()
        item = await here.asked()
        assert isinstance(item.payload, dict)
        await here.queue.edit(item.id, "ada", {**item.payload, "value": "blue"}, "it is")
        await here.bridge.round()
        assert await here.ended() == (MissionState.ANSWERED, "blue")
        [reviewed] = [e for e in await here.handle.events.remote("m", 0, 0.0) if e.kind == "task_reviewed"]
        assert reviewed.data == {"verdict": "edit", "by": "ada", "reason": "it is", "value": "blue"}


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("answer", {"text": "Hello"}),
        (KIND, {"goal": "which colour?", "value": "yellow", "outcome": "agreed", "others": []}),
    ],
    ids=["something else", "another value"],
)
async def test_a_yes_to_what_somebody_else_asked_under_its_name_is_none_to_a_task(
    tmp_path: Any, kind: str, payload: dict[str, JsonValue]
) -> None:
    async with office(tmp_path) as here:
        rogue = Proposal(key="m/t", kind=kind, summary="Say hello", payload=payload, confidence=0.1, asker="rogue")
        asked = await here.queue.ask(rogue)
        assert isinstance(asked, Item)
        await here.queue.approve(asked.id, "ada")
        await here.hold(goal="which colour?")
        assert [await here.bridge.round() for _ in range(3)] == [0, 0, 0]
        [held] = await here.swarm.held()
        assert held.mission_id == "m", "it waits on"


@pytest.mark.parametrize("how", ["reject", "expire", "withdraw"])
async def test_whatever_else_becomes_of_an_item_its_mission_is_rejected(tmp_path: Any, how: str) -> None:
    async with office(tmp_path) as here:
        await here.hold()
        await here.bridge.round()
        item = await here.asked()
        if how == "reject":
            await here.queue.reject(item.id, "bob", "it is wrong")
        elif how == "expire":
            here.clock.advance(8 * 86_400.0)
            await here.queue.tick()
        else:
            await here.queue.withdraw(item.id, SWARM)
        assert await here.bridge.round() == 1
        assert await here.ended() == (MissionState.FAILED, None)


@pytest.mark.parametrize("dies", ["coordinator", "bridge", "both"])
@pytest.mark.parametrize("when", ["before it is asked", "before it is answered", "before it is handed back"])
async def test_whoever_dies_whenever_the_answer_finds_its_mission(tmp_path: Any, dies: str, when: str) -> None:
    async with office(tmp_path) as here:

        async def die() -> None:
            if dies != "bridge":
                await here.crash_coordinator()
            if dies != "coordinator":
                await here.queue.close()
                here.open()

        await here.hold()
        if when == "before it is asked":
            await die()
        await here.bridge.round()
        if when == "before it is answered":
            await die()
        await here.bridge.round()
        assert len(await here.queue.waiting()) == 1, "it is asked once, and not taken back"
        await here.queue.approve((await here.asked()).id, "ada")
        if when == "before it is handed back":
            await die()
        assert await here.bridge.round() == 1
        assert await here.ended() == (MissionState.ANSWERED, "maybe")


async def test_two_bridges_do_it_once(tmp_path: Any) -> None:
    async with office(tmp_path) as here:
        other = HeldMissions(swarm=here.swarm, queue=here.queue)
        await here.hold()
        await here.bridge.round()
        await other.round()
        await here.queue.approve((await here.asked()).id, "ada")
        assert sorted([await here.bridge.round(), await other.round()]) == [0, 1]
        assert await here.ended() == (MissionState.ANSWERED, "maybe")


async def test_what_nobody_waits_for_any_more_is_taken_back_and_what_is_anothers_is_not(tmp_path: Any) -> None:
    async with office(tmp_path) as here:
        await here.hold()
        await here.bridge.round()
        item = await here.asked()
        strange = item.proposal.model_copy(update={"key": "other/t", "mission": "other", "asker": "swarm-other"})
        await here.queue.ask(strange)
        await here.handle.cancel.remote("m")
        await here.bridge.round()
        assert (await here.asked()).state is State.WITHDRAWN
        assert (await here.asked("other")).state is State.WAITING


async def test_where_agents_did_not_agree_a_person_gives_the_value_or_there_is_none(tmp_path: Any) -> None:
    async with office(tmp_path, "answer", "unsure") as here:
        for name in ("m", "n"):
            await here.hold(name, replicas=2, different_policies=True)
        await here.bridge.round()
        item = await here.asked()
        assert "edit it, or reject it" in item.proposal.summary and isinstance(item.payload, dict)
        assert sorted(map(str, item.payload["others"])) == ["42", "maybe"]  # type: ignore[arg-type]
        await here.queue.edit(item.id, "ada", {**item.payload, "value": 42})
        await here.queue.approve((await here.asked("n")).id, "ada")
        await here.bridge.round()
        assert await here.ended() == (MissionState.ANSWERED, 42)
        assert await here.ended("n") == (MissionState.FAILED, None)


async def test_a_policy_that_asks_nobody_does_not_answer_for_a_person(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = {**KINDS, KIND: KindRule()}
    async with office(tmp_path, "answer", kinds=kinds) as here:
        await here.hold()
        with caplog.at_level(logging.ERROR):
            assert [await here.bridge.round() for _ in range(3)] == [0, 0, 0]
        assert len([each for each in caplog.records if "make that kind critical" in each.message]) == 1
        assert len(await here.swarm.held()) == 1


async def test_four_eyes_are_two_people(tmp_path: Any) -> None:
    kinds = {**KINDS, KIND: KindRule(critical=True, four_eyes=True)}
    async with office(tmp_path, kinds=kinds) as here:
        await here.hold()
        await here.bridge.round()
        item = (await here.asked()).id
        await here.queue.approve(item, "ada")
        assert await here.bridge.round() == 0
        await here.queue.approve(item, "bob")
        assert await here.bridge.round() == 1
        [reviewed] = [e for e in await here.handle.events.remote("m", 0, 0.0) if e.kind == "task_reviewed"]
        assert reviewed.data["by"] == "ada and bob"


async def test_what_is_too_large_for_the_queue_is_told_once_and_harms_no_other(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with office(tmp_path) as here:
        await here.hold("large", inputs={"other": "x" * 300_000})
        await here.hold("small")
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                await here.bridge.round()
        assert len([each for each in caplog.records if "large/t" in each.message]) == 1
        assert [item.proposal.mission for item in await here.queue.waiting()] == ["small"]
        await here.swarm.reviewed("large", "t", "approve", by="ada")
        state, value = await here.ended("large")
        assert state is MissionState.ANSWERED and len(value) == 300_000


async def test_the_client_says_what_is_wrong_with_an_answer(tmp_path: Any) -> None:
    async with office(tmp_path) as here:
        await here.hold()
        with pytest.raises(InputError, match="has a reason"):
            await here.swarm.reviewed("m", "t", "reject", by="ada")
        with pytest.raises(InputError, match=r"^by: "):
            await here.swarm.reviewed("m", "t", "approve", by="")
        with pytest.raises(InputError, match="not held"):
            await here.swarm.reviewed("m", "u", "approve", by="ada")
    with pytest.raises(SwarmError, match="not running"):
        await SwarmCoordinator().held()
