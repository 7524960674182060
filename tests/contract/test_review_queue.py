"""The review queue over every journal: what is asked waits, one decides, and everybody reads the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, NotThere, StorageError
from chimera.core.events import Event
from chimera.review.outcomes import Judged, Outcome, judged, outcomes
from chimera.review.policy import ReviewPolicy
from chimera.review.queue import Answer, ReviewQueue
from chimera.review.types import Item, Proposal, Refusal, Refused, State
from chimera.storage.journal import Journal, open_journal
from tests.unit.review.made import POLICY, proposal


class Place:
    """A journal, and as many queues on it as are wanted, each as another process has it."""

    def __init__(self, url: str) -> None:
        self.journal = open_journal(url)
        self.clock = ManualClock(1_700_000_000.0)
        self.opened: list[Journal] = [self.journal]
        self._url = url

    def queue(self, policy: ReviewPolicy = POLICY, *, journal: Journal | None = None, seed: int = 1) -> ReviewQueue:
        if journal is None:
            journal = self.journal if self._url == "memory://" else open_journal(self._url)
            self.opened.append(journal)
        return ReviewQueue(journal=journal, policy=policy, clock=self.clock, generator=random.Random(seed))


@pytest.fixture(params=["memory", "sqlite", "redis", "postgresql"])
async def place(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> AsyncIterator[Place]:
    made = Place(url_of(request.param))
    yield made
    for journal in made.opened:
        await journal.close()


def item(answer: Answer) -> Item:
    assert isinstance(answer, Item), answer
    return answer


def reason(answer: Answer) -> Refusal:
    assert isinstance(answer, Refused), answer
    return answer.reason


async def test_what_is_asked_here_is_decided_there(place: Place) -> None:
    here, there = place.queue(), place.queue()
    asked = item(await here.ask(proposal("a", payload={"text": "é 漢 \u2028"})))
    assert [each.id for each in await there.waiting()] == [asked.id]
    assert item(await there.claim(asked.id, "ann")).claim is not None
    assert reason(await here.claim(asked.id, "bob")) is Refusal.CLAIMED
    assert item(await here.approve(asked.id, "ann")).may_go_on
    assert (await there.by_key("a")).state is State.APPROVED
    assert await there.waiting() == await here.waiting() == []


async def test_of_two_who_claim_one_item_one_wins(place: Place) -> None:
    queues = [place.queue(seed=seed) for seed in range(4)]
    asked = [item(await queues[0].ask(proposal(f"k{n}"))) for n in range(10)]
    people = ["ann", "bob", "cleo", "ann"]
    for each in asked:
        got = await asyncio.gather(*(q.claim(each.id, by) for q, by in zip(queues, people, strict=True)))
        winners = {answer.claim.by for answer in got if isinstance(answer, Item) and answer.claim}
        assert len(winners) == 1
        said = await asyncio.gather(*(q.reject(each.id, by, "no") for q, by in zip(queues, people, strict=True)))
        [who] = {answer.ending.by for answer in said if isinstance(answer, Item) and answer.ending}
        assert who in winners
    decided = [found async for found in outcomes(queues[1])]
    assert sorted(found.item for found in decided) == sorted(each.id for each in asked), "each of them once"


async def test_many_at_once_on_one_stream(place: Place) -> None:
    queues = [place.queue(seed=seed) for seed in range(3)]
    keys = [f"k{n}" for n in range(40)]
    answers = await asyncio.gather(*(queue.ask(proposal(key)) for queue in queues for key in keys))
    assert len({item(answer).id for answer in answers}) == 40
    assert all([len(await queue.waiting()) == 40 for queue in queues])
    events = await queues[0].events()
    assert len(events) == 40, "the same key is one item, whoever asks"


async def test_a_queue_that_is_opened_again_is_as_it_was(place: Place) -> None:
    first = place.queue()
    ids = [item(await first.ask(proposal(f"k{n}", kind="contract"))).id for n in range(5)]
    await first.approve(ids[0], "ann")
    await first.approve(ids[0], "bob")
    await first.edit(ids[1], "ann", {"text": "Hi"})
    await first.claim(ids[2], "bob")
    await first.reject(ids[3], "bob", "no")
    again = place.queue()
    assert [await again.item(each) for each in ids] == [await first.item(each) for each in ids]
    assert item(await again.approve(ids[1], "bob", 1)).payload == {"text": "Hi"}
    assert reason(await again.approve(ids[2], "ann")) is Refusal.CLAIMED
    assert item(await again.approve(ids[0], "ann")).state is State.APPROVED, "again is fine, after its end too"
    assert reason(await again.reject(ids[0], "ann", "no")) is Refusal.ENDED
    assert item(await again.ask(proposal("k3", kind="contract"))).state is State.REJECTED
    assert reason(await again.ask(proposal("k3", kind="contract", payload="x"))) is Refusal.OTHER_KEY


async def test_time_does_what_is_due_once(place: Place) -> None:
    policy = POLICY.model_copy(update={"escalate_after_s": 60.0, "escalate_to": "leads"})
    here, there = place.queue(policy), place.queue(policy)
    asked = item(await here.ask(proposal()))
    place.clock.advance(60)
    await asyncio.gather(here.tick(), there.tick())
    assert [each.group for each in await here.waiting(reviewer="cleo")] == ["leads"]
    assert await here.waiting(reviewer="bob") == []
    place.clock.advance(policy.expires_after_s)
    await asyncio.gather(here.tick(), there.tick())
    assert (await there.item(asked.id)).state is State.EXPIRED
    assert len(await here.events()) == 3


async def test_what_people_decided_is_told_once_and_weighed(place: Place) -> None:
    queue = place.queue(POLICY.model_copy(update={"check_monitored": 1.0}))
    told = {"agents": ("poet", "judge"), "subject": "write"}
    for key, confidence in (("a", 0.2), ("b", 0.8), ("c", 0.95)):
        await queue.ask(proposal(key, confidence=confidence, **told))
    await queue.ask(proposal("d", kind="security_policy"))
    await queue.edit((await queue.by_key("a")).id, "ann", {"text": "Hi"}, "shorter")
    await queue.reject((await queue.by_key("b")).id, "bob", "no")
    await queue.approve((await queue.by_key("d")).id, "ann")
    found: list[Outcome] = [each async for each in outcomes(queue)]
    assert [(each.key, each.verdict, each.agents, each.check) for each in found] == [
        ("a", "edited", ("poet", "judge"), False),
        ("b", "rejected", ("poet", "judge"), True),
        ("d", "approved", (), False),
    ]
    assert [each.key async for each in outcomes(queue, after=found[0].seq)] == ["b", "d"]
    assert await judged(queue) == [
        Judged(0.2, 1.0, "edited"),
        Judged(0.8, 1.0, "rejected"),
        Judged(0.95, 0.0, None),
    ], "what is critical is left out"


async def test_a_full_queue_takes_no_more_that_would_wait(place: Place) -> None:
    queue = place.queue(POLICY.model_copy(update={"max_waiting": 3}))
    answers = await asyncio.gather(*(queue.ask(proposal(f"k{n}")) for n in range(5)))
    assert [isinstance(each, Refused) and each.reason for each in answers] == [False] * 3 + [Refusal.FULL] * 2
    assert item(await queue.ask(proposal("sure", confidence=0.99))).may_go_on
    await queue.approve((await queue.waiting())[0].id, "ann")
    assert item(await queue.ask(proposal("k4"))).state is State.WAITING


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("text", "must be an object"),
        ({"text": "a", "more": 1}, "these differ: more"),
        ({"text": 7}, "text must be a text"),
        ({"text": "\ud800"}, "no JSON form"),
        ({"text": "x" * 300_000}, "300,0"),
    ],
)
async def test_an_edit_must_be_able_to_stand_for_it(payload: object, said: str) -> None:
    place = Place("memory://")
    queue = place.queue()
    asked = item(await queue.ask(proposal()))
    with pytest.raises(InputError, match=said):
        await queue.edit(asked.id, "ann", payload)  # type: ignore[arg-type]
    assert len(await queue.events()) == 1


async def test_bad_input_is_refused_alone() -> None:
    queue = Place("memory://").queue()

    def forbid(before: Proposal, after: object) -> None:
        raise InputError(f"no {before.kind}s today")

    bad = [queue.ask(proposal("x", payload="\ud800")), queue.approve("0" * 32, "ann"), queue.claim("zz", "ann")]
    good = queue.ask(proposal("y"))
    *errors, asked = await asyncio.gather(*bad, good, return_exceptions=True)
    assert [type(error) for error in errors] == [InputError, NotThere, InputError]
    assert isinstance(asked, Item)
    with pytest.raises(InputError, match="reason"):
        await queue.reject(asked.id, "ann", "  ")
    with pytest.raises(NotThere):
        await queue.by_key("none")
    with pytest.raises(InputError, match="no name"):
        ReviewQueue(
            journal=Place("memory://").journal,
            policy=POLICY,
            clock=ManualClock(),
            generator=random.Random(1),
            name="a b",
        )
    strict = ReviewQueue(
        journal=Place("memory://").journal,
        policy=POLICY,
        clock=ManualClock(),
        generator=random.Random(1),
        edit_checks={"answer": forbid},
    )
    asked = item(await strict.ask(proposal()))
    with pytest.raises(InputError, match="no answers today"):
        await strict.edit(asked.id, "ann", {"text": "Hi"})


class Faulty(Journal):
    """A journal that stores, and then says that it could not: as a server whose answer is lost; or does not store."""

    def __init__(self, inner: Journal, *, stores: bool) -> None:
        self._inner, self._stores, self.faults = inner, stores, 1

    async def append(self, events: object) -> None:
        if self.faults:
            self.faults -= 1
            if self._stores:
                await self._inner.append(events)  # type: ignore[arg-type]
            raise StorageError("the answer was lost")
        await self._inner.append(events)  # type: ignore[arg-type]

    async def read(self, mission_id: str, after: int = 0, limit: int = 20_000) -> list[Event]:
        return await self._inner.read(mission_id, after, limit)

    async def missions(self, *_: object, **__: object) -> list[object]:  # type: ignore[override]
        return []

    async def prune(self, *_: object) -> int:
        return 0

    async def close(self) -> None: ...


@pytest.mark.parametrize("stores", [True, False])
async def test_an_answer_that_is_lost_doubles_nothing(stores: bool) -> None:
    place = Place("memory://")
    asked = item(await place.queue().ask(proposal()))
    queue = place.queue(journal=Faulty(place.journal, stores=stores))
    if stores:
        assert item(await queue.claim(asked.id, "ann")).claim is not None
    else:
        with pytest.raises(StorageError, match="lost"):
            await queue.claim(asked.id, "ann")
    assert len(await queue.events()) == 1 + stores, "what was stored is not stored again"
    assert item(await queue.approve(asked.id, "ann")).state is State.APPROVED


async def test_the_queue_is_no_mission(place: Place) -> None:
    await place.queue().ask(proposal())
    assert await place.journal.missions() == []


async def test_who_gives_up_waiting_harms_nobody_else(place: Place) -> None:
    queue = place.queue()
    asks = [asyncio.create_task(queue.ask(proposal(f"k{n}"))) for n in range(6)]
    await asyncio.sleep(0)
    asks[2].cancel()
    done = await asyncio.gather(*asks, return_exceptions=True)
    assert [isinstance(each, Item) for each in done] == [True, True, False, True, True, True]
    assert len({each.id for each in await queue.waiting()}) in (5, 6)
    await queue.close()
