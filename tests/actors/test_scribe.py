from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from chimera.actors import scribe as module
from chimera.actors.scribe import MAX_BEHIND, MAX_EVENTS, MAX_PATIENCE, Scribe
from chimera.core.errors import Overloaded, StorageError, StorageUnavailable
from chimera.core.events import Event, EventKind
from chimera.storage.memory import MemoryJournal
from tests.actors.in_process import until


def events(mission: str, first: int = 1, count: int = 1) -> list[Event]:
    kind = EventKind.TASK_STARTED
    return [Event(mission_id=mission, seq=first + n, kind=kind, at_s=0.0) for n in range(count)]


class Journal(MemoryJournal):
    """Counts appends, waits until it is let, refuses for a while."""

    def __init__(self, *, refuse: int = 0) -> None:
        super().__init__()
        self.appends: list[int] = []
        self.free = asyncio.Event()
        self.free.set()
        self.refuse = refuse

    async def append(self, events: Sequence[Event]) -> None:
        self.appends.append(len(events))
        await self.free.wait()
        if self.refuse:
            self.refuse -= 1
            raise Overloaded("too much at once", 0.001)
        await super().append(events)


class Told:
    """What a scribe said of each entry, in order."""

    def __init__(self, scribe: Scribe) -> None:
        self.scribe = scribe
        self.said: list[str] = []

    def put(self, name: str, batch: list[Event]) -> None:
        self.scribe.put(
            batch, lambda: self.said.append(name), lambda error: self.said.append(f"{name}: {type(error).__name__}")
        )


async def test_what_depends_on_an_entry_happens_once_it_is_durable_and_in_order() -> None:
    journal = Journal()
    told = Told(Scribe(journal))
    journal.free.clear()
    for n in range(1, 4):
        told.put(f"m{n}", events("m", n))
    told.put("nothing to write", [])
    await asyncio.sleep(0.01)
    assert told.said == []
    journal.free.set()
    await told.scribe.finish()
    assert told.said == ["m1", "m2", "m3", "nothing to write"]
    assert [event.seq for event in await journal.read("m")] == [1, 2, 3]
    assert journal.appends == [3]


async def test_entries_gather_while_an_append_is_on_its_way() -> None:
    journal = Journal()
    told = Told(Scribe(journal))
    journal.free.clear()
    told.put("first", events("first"))
    await until(lambda: journal.appends)
    for n in range(2 * MAX_EVENTS):
        told.put("more", events(f"m{n}"))
    journal.free.set()
    await told.scribe.finish()
    assert journal.appends == [1, MAX_EVENTS, MAX_EVENTS]
    assert told.said == ["first", *["more"] * 2 * MAX_EVENTS]


async def test_what_follows_an_append_is_done_while_the_next_is_on_its_way() -> None:
    journal = Journal()
    scribe = Scribe(journal)
    begun: list[int] = []
    journal.free.clear()
    scribe.put(events("first"), lambda: begun.append(len(journal.appends)), lambda error: None)
    await until(lambda: journal.appends)
    scribe.put(events("second"), lambda: begun.append(len(journal.appends)), lambda error: None)
    journal.free.set()
    await scribe.finish()
    assert begun == [2, 2]


async def test_a_step_of_more_events_than_an_append_may_have_is_written_in_parts() -> None:
    journal = Journal()
    told = Told(Scribe(journal))
    told.put("long", events("m", count=2 * MAX_EVENTS + 1))
    await told.scribe.finish()
    assert journal.appends == [MAX_EVENTS, MAX_EVENTS, 1] and told.said == ["long"]


async def test_an_entry_that_cannot_be_written_harms_no_other() -> None:
    told = Told(Scribe(Journal()))
    told.put("before", events("a"))
    told.put("gap", events("b", first=7))
    told.put("after", events("a", first=2))
    await told.scribe.finish()
    assert told.said == ["before", "gap: StorageError", "after"]


async def test_what_raises_after_its_append_is_told_and_the_rest_goes_on() -> None:
    said: list[str] = []
    scribe = Scribe(Journal())

    def bad() -> None:
        raise ValueError("a bug")

    def worse(error: Exception) -> None:
        said.append(str(error))
        raise error

    scribe.put(events("a"), bad, worse)
    scribe.put(events("b"), lambda: said.append("b"), worse)
    await scribe.finish()
    assert said == ["a bug", "b"]


async def test_a_journal_that_has_too_much_to_do_is_waited_for() -> None:
    journal = Journal(refuse=MAX_PATIENCE)
    told = Told(Scribe(journal))
    told.put("m", events("m"))
    await told.scribe.finish()
    assert told.said == ["m"] and len(journal.appends) == MAX_PATIENCE + 1


async def test_a_journal_that_never_has_time_is_given_up() -> None:
    journal = Journal(refuse=1_000)
    told = Told(Scribe(journal))
    told.put("m", events("m"))
    await told.scribe.finish()
    assert told.said == ["m: Overloaded"] and len(journal.appends) == MAX_PATIENCE + 1


async def test_who_brings_more_waits_while_too_much_is_unwritten() -> None:
    journal = Journal()
    told = Told(Scribe(journal))
    journal.free.clear()
    told.put("first", events("first"))
    await until(lambda: journal.appends)
    for n in range(MAX_BEHIND):
        told.put("more", events(f"m{n}"))
    await asyncio.wait_for(told.scribe.room(), 1.0)
    told.put("one too many", events("last"))
    waiting = asyncio.create_task(told.scribe.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    journal.free.set()
    await asyncio.wait_for(waiting, 5.0)
    await told.scribe.finish()
    assert len(told.said) == MAX_BEHIND + 2


async def test_a_closed_journal_fails_what_comes_and_nothing_hangs() -> None:
    journal = Journal()
    await journal.close()
    told = Told(Scribe(journal))
    told.put("late", events("m"))
    await told.scribe.finish()
    assert told.said == ["late: StorageError"]
    with pytest.raises(StorageError):
        await journal.read("m")


class Outage(MemoryJournal):
    """Out of reach for the first `times` appends; with `stores`, only the answers are lost."""

    def __init__(self, times: int, *, stores: bool = False) -> None:
        super().__init__()
        self.times = times
        self.stores = stores
        self.appends: list[int] = []

    async def append(self, events: Sequence[Event]) -> None:
        self.appends.append(len(events))
        if len(self.appends) > self.times:
            await super().append(events)
            return
        if self.stores and len(self.appends) == 1:
            await super().append(events)
        raise StorageUnavailable("it does not answer; what was being stored may be there or not")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.001)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stores", [False, True])
async def test_an_outage_is_waited_out_and_what_it_left_in_doubt_is_stored_once(stores: bool) -> None:
    journal = Outage(4, stores=stores)
    told = Told(Scribe(journal))
    told.put("a", events("a", count=2))
    told.put("b", events("b"))
    await told.scribe.written()
    told.put("later", events("a", first=3))
    await told.scribe.written()
    assert told.said == ["a", "b", "later"]
    assert journal.appends == [3, 3, 3, 3, 3, 1]
    assert [event.seq for event in await journal.read("a")] == [1, 2, 3]
    assert [event.seq for event in await journal.read("b")] == [1]


@pytest.mark.usefixtures("quick")
async def test_what_another_wrote_during_an_outage_is_not_taken_for_ones_own() -> None:
    journal = Outage(1)
    rival = [event.model_copy(update={"at_s": 7.0}) for event in events("a")]
    await MemoryJournal.append(journal, rival)
    told = Told(Scribe(journal))
    told.put("a", events("a"))
    told.put("b", events("b"))
    await told.scribe.written()
    assert told.said == ["a: StorageError", "b"]
    assert await journal.read("a") == rival


async def test_an_outage_without_end_is_given_up_once_for_all_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTAGE_S", -1.0)
    journal = Outage(2)
    said: list[str] = []
    scribe = Scribe(journal)
    for name in "abc":
        scribe.put(events(name), lambda: None, lambda error: said.append(str(error)))
    await scribe.written()
    assert len(said) == 3 and all("given up after 0 s: it does not answer" in why for why in said)
    assert journal.appends == [3], "and not each of them once more"
    with pytest.raises(StorageUnavailable, match="given up"):
        await scribe.write(events("d"))
    await scribe.write(events("e"))
    assert len(await journal.read("e")) == 1


async def test_who_finishes_waits_for_no_outage() -> None:
    told = Told(Scribe(Outage(1_000)))
    told.put("a", events("a"))
    told.put("nothing", [])
    await asyncio.sleep(0.01)
    assert told.said == []
    await told.scribe.finish()
    assert told.said == ["a: StorageUnavailable", "nothing"]


async def test_a_fault_in_counting_does_not_undo_what_is_durable() -> None:
    def wrote(count: int) -> None:
        raise RuntimeError("metrics")

    told = Told(Scribe(Journal(), wrote))
    told.put("a", events("a"))
    await told.scribe.finish()
    assert told.said == ["a"]
