"""What every journal does, over every adapter."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import JsonValue

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Outcome, Spend
from chimera.storage.journal import MAX_READ, Journal, open_journal


def event(mission: str, seq: int, data: dict[str, JsonValue] | None = None) -> Event:
    return Event(
        mission_id=mission, seq=seq, kind=EventKind.REPLY_ACCEPTED, at_s=1_700_000_000.5 + seq, data=data or {}
    )


def events(mission: str, *seqs: int) -> list[Event]:
    return [event(mission, seq) for seq in seqs]


@pytest.fixture(params=["memory", "sqlite", "redis", "postgresql"])
async def journal(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> AsyncIterator[Journal]:
    opened = open_journal(url_of(request.param))
    yield opened
    await opened.close()


async def seqs(journal: Journal, mission: str) -> list[int]:
    return [event.seq for event in await journal.read(mission)]


async def test_what_goes_in_comes_out(journal: Journal) -> None:
    written = [
        Event(
            mission_id="m",
            seq=1,
            kind=EventKind.MISSION_ADMITTED,
            at_s=0.1 + 0.2,
            data={"b": 1, "a": [1.0, None, True]},
        ),
        Event(mission_id="m", seq=2, kind=EventKind.TASK_STARTED, at_s=1e-9, task_id="extract[0]"),
        Event(mission_id="m", seq=3, kind=EventKind.MISSION_ENDED, at_s=2e9, data={"n": 2**80, "deep": {"x": [[{}]]}}),
    ]
    await journal.append(written[:1])
    await journal.append(written[1:])
    read = await journal.read("m")
    assert read == written
    assert list(read[0].data) == ["b", "a"], "the order of keys is part of what was written"


@pytest.mark.parametrize(
    "text", ["é ü 漢字 🐙", "a\x00b", "\u2028\u2029\ufeff", "'; DROP TABLE events; --", '"\\\n\r\t']
)
async def test_text_is_kept_character_by_character(journal: Journal, text: str) -> None:
    written = Event(mission_id="m", seq=1, kind=EventKind.TASK_DECIDED, at_s=1.0, task_id=text, data={text: text})
    await journal.append([written])
    assert await journal.read("m") == [written]


async def test_read_pages_in_order(journal: Journal) -> None:
    await journal.append(events("m", *range(1, 26)))
    assert [e.seq for e in await journal.read("m", after=3, limit=4)] == [4, 5, 6, 7]
    assert [e.seq for e in await journal.read("m", after=24)] == [25]
    assert await journal.read("m", after=25) == []
    assert await journal.read("m", after=2**70) == []
    assert [e.seq for e in await journal.read("m", after=-1, limit=1)] == [1]
    assert await journal.read("nobody") == []


@pytest.mark.parametrize("limit", [0, -1, MAX_READ + 1])
async def test_a_limit_out_of_range_is_refused(journal: Journal, limit: int) -> None:
    with pytest.raises(StorageError, match="limit"):
        await journal.read("m", limit=limit)
    with pytest.raises(StorageError, match="limit"):
        await journal.missions(limit=limit)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([2], "is already stored: 3 comes next"),
        ([1], "is already stored: 3 comes next"),
        ([4], "leaves a gap: 3 comes next"),
        ([3, 3], "is already stored: 4 comes next"),
        ([3, 5], "leaves a gap: 4 comes next"),
        ([4, 3], "leaves a gap: 3 comes next"),
    ],
)
async def test_gaps_and_duplicates_are_refused_and_nothing_is_written(
    journal: Journal, bad: list[int], says: str
) -> None:
    await journal.append(events("m", 1, 2))
    with pytest.raises(StorageError, match=says):
        await journal.append(events("other", 1) + events("m", *bad))
    assert await seqs(journal, "m") == [1, 2]
    assert await seqs(journal, "other") == []
    await journal.append(events("m", 3))
    assert await seqs(journal, "m") == [1, 2, 3]


async def test_a_mission_begins_with_one(journal: Journal) -> None:
    with pytest.raises(StorageError, match="1 comes next"):
        await journal.append(events("m", 2))
    assert await journal.missions() == []


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), "\ud800", 10**5_000],
    ids=["nan", "inf", "-inf", "surrogate", "digits"],
)
async def test_what_would_not_come_back_the_same_is_refused(journal: Journal, value: JsonValue) -> None:
    with pytest.raises(StorageError, match="event 2 of mission m cannot be stored"):
        await journal.append([event("m", 1), event("m", 2, {"x": value})])
    assert await journal.read("m") == []


async def test_words_that_no_number_may_be_are_kept_in_text(journal: Journal) -> None:
    written = event("m", 1, {"x": "NaN, Infinity", "NaN": [-1.5], "digits": "9" * 5_000})
    await journal.append([written])
    assert await journal.read("m") == [written]


async def test_what_is_nested_deep_comes_back_or_is_refused(journal: Journal) -> None:
    kept = 0
    for depth in range(150, 320):
        value: JsonValue = 1
        for _ in range(depth):
            value = [value]
        with contextlib.suppress(StorageError):
            await journal.append([_unchecked("m", kept + 1, {"x": value})])
            kept += 1
    assert 50 < kept < 170
    assert len(await journal.read("m")) == kept


async def test_events_that_were_made_unchecked_are_stored_as_the_checked_ones(journal: Journal) -> None:
    """`model_construct` lets enums and tuples in; JSON has neither."""
    await journal.append([_unchecked("m", 1, {"kind": Outcome.TIE, "of": ("a", ("b",)), "spent": Spend(calls=1)})])
    [read] = await journal.read("m")
    assert read.data["kind"] == "tie"
    assert read.data["of"] == ["a", ["b"]]
    assert read.data["spent"] == Spend(calls=1).model_dump()
    assert read == Event.model_validate(read.model_dump())


def _unchecked(mission: str, seq: int, data: Any) -> Event:
    return Event.model_construct(mission_id=mission, seq=seq, kind=EventKind.TASK_DECIDED, at_s=1.0, data=data)


async def test_an_event_over_the_limit_is_refused(journal: Journal) -> None:
    with pytest.raises(StorageError, match="the limit is 4000000"):
        await journal.append([event("m", 1), event("m", 2, {"x": "é" * 2_000_000})])
    assert await journal.read("m") == []
    await journal.append([event("m", 1, {"x": "e" * 3_900_000})])


async def test_one_append_may_hold_several_missions(journal: Journal) -> None:
    await journal.append([*events("a", 1), *events("b", 1), *events("a", 2)])
    assert await seqs(journal, "a") == [1, 2]
    assert await seqs(journal, "b") == [1]


async def test_an_append_of_nothing_is_nothing(journal: Journal) -> None:
    await journal.append([])
    assert await journal.missions() == []


async def test_missions_are_listed_newest_first(journal: Journal) -> None:
    for mission in ("first", "second", "third"):
        await journal.append(events(mission, 1))
    ended = Event(mission_id="first", seq=2, kind=EventKind.MISSION_ENDED, at_s=5.0)
    await journal.append([ended])
    listed = await journal.missions()
    assert [m.mission_id for m in listed] == ["third", "second", "first"]
    assert listed[2].events == 2
    assert listed[2].last_kind is EventKind.MISSION_ENDED
    assert listed[2].first_at_s == event("first", 1).at_s
    assert listed[0].last_kind is EventKind.REPLY_ACCEPTED
    assert await journal.missions(limit=2) == listed[:2]


async def test_first_at_is_the_first_event_of_the_first_append(journal: Journal) -> None:
    await journal.append(events("m", 1, 2, 3))
    [summary] = await journal.missions()
    assert summary.first_at_s == event("m", 1).at_s
    assert summary.events == 3


async def test_concurrent_appends_all_arrive_in_order(journal: Journal) -> None:
    chance = random.Random(7)
    missions = [f"m{n}" for n in range(7)]
    next_seq = dict.fromkeys(missions, 1)
    batches: list[list[Event]] = []
    for _ in range(100):
        mission, size = chance.choice(missions), chance.randint(1, 5)
        batches.append(events(mission, *range(next_seq[mission], next_seq[mission] + size)))
        next_seq[mission] += size
    await asyncio.gather(*(journal.append(batch) for batch in batches))
    for mission in missions:
        assert await seqs(journal, mission) == list(range(1, next_seq[mission]))


async def test_a_refused_append_does_not_harm_its_neighbours(journal: Journal) -> None:
    """All of these are under way at once, so a store that commits them together has to tell them apart."""
    batches = [events(f"m{n}", 1, 2) if n % 3 else events(f"m{n}", 1, 3) for n in range(60)]
    outcomes = await asyncio.gather(*(journal.append(batch) for batch in batches), return_exceptions=True)
    for n, outcome in enumerate(outcomes):
        if n % 3:
            assert outcome is None
            assert await seqs(journal, f"m{n}") == [1, 2]
        else:
            assert isinstance(outcome, StorageError)
            assert await seqs(journal, f"m{n}") == []


async def test_only_one_of_two_rivals_for_a_seq_is_stored(journal: Journal) -> None:
    rivals = [[event("m", 1, {"rival": n})] for n in range(20)]
    outcomes = await asyncio.gather(*(journal.append(rival) for rival in rivals), return_exceptions=True)
    winners = [n for n, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert (await journal.read("m"))[0].data == {"rival": winners[0]}


def of_swarm(mission: str, seq: int, swarm: str, *, ended_at_s: float | None = None) -> Event:
    if ended_at_s is None:
        return event(mission, seq).model_copy(update={"swarm": swarm})
    return Event(mission_id=mission, seq=seq, kind=EventKind.MISSION_ENDED, at_s=ended_at_s, swarm=swarm)


async def names(journal: Journal, **filters: Any) -> list[str]:
    return [summary.mission_id for summary in await journal.missions(**filters)]


async def test_missions_are_listed_by_swarm_and_by_whether_they_run(journal: Journal) -> None:
    await journal.append([of_swarm(mission, 1, f"s{mission[1]}") for mission in ("a1", "b2", "c1", "d2")])
    await journal.append([of_swarm("a1", 2, "s1", ended_at_s=9.0), of_swarm("d2", 2, "s2", ended_at_s=8.0)])
    assert await names(journal) == ["d2", "c1", "b2", "a1"]
    assert await names(journal, swarm="s1") == ["c1", "a1"]
    assert await names(journal, running=True) == ["c1", "b2"]
    assert await names(journal, swarm="s2", running=True) == ["b2"]
    assert await names(journal, swarm="nobody") == []
    assert await names(journal, swarm="s2", limit=1) == ["d2"]
    [last] = await journal.missions(swarm="s1", limit=1)
    assert (last.swarm, last.first_at_s, last.last_at_s) == ("s1", event("c1", 1).at_s, event("c1", 1).at_s)
    assert (await journal.missions(limit=1))[0].last_at_s == 8.0


async def test_a_mission_belongs_to_the_swarm_that_wrote_last(journal: Journal) -> None:
    await journal.append([of_swarm("m", 1, "old")])
    await journal.append([of_swarm("m", 2, "new")])
    assert await names(journal, swarm="old") == await names(journal, swarm="old", running=True) == []
    assert await names(journal, swarm="new") == await names(journal, swarm="new", running=True) == ["m"]
    await journal.append([of_swarm("m", 3, "new", ended_at_s=5.0), of_swarm("m", 4, "third")])
    assert await names(journal, swarm="third", running=True) == ["m"]
    assert await names(journal, swarm="new") == []


async def test_a_mission_that_goes_on_after_its_end_runs_again(journal: Journal) -> None:
    await journal.append([of_swarm("m", 1, "s", ended_at_s=1.0)])
    assert await names(journal, running=True) == []
    await journal.append([of_swarm("m", 2, "s")])
    assert await names(journal, running=True) == await names(journal, swarm="s", running=True) == ["m"]
    assert await journal.prune(2e9) == 0
    await journal.append([of_swarm("m", 3, "s", ended_at_s=2.0)])
    await journal.append([of_swarm("m", 4, "s", ended_at_s=3.0)])
    assert await journal.prune(2.5) == 0, "the last end counts"
    assert await journal.prune(3.5) == 1


async def test_a_swarms_own_stream_is_read_and_never_listed(journal: Journal) -> None:
    await journal.append([of_swarm("swarm-a", 1, "swarm-a"), of_swarm("m", 1, "swarm-a")])
    await journal.append([of_swarm("swarm-a", 2, "swarm-a", ended_at_s=1.0)])
    assert await seqs(journal, "swarm-a") == [1, 2]
    for filters in ({}, {"swarm": "swarm-a"}, {"running": True}, {"swarm": "swarm-a", "running": True}):
        assert await names(journal, **filters) == ["m"]
    assert await journal.prune(2e9) == 0
    with pytest.raises(StorageError, match="3 comes next"):
        await journal.append([of_swarm("swarm-a", 1, "swarm-a")])


async def test_prune_deletes_what_ended_before(journal: Journal) -> None:
    for n in range(6):
        await journal.append(
            [of_swarm(f"m{n}", 1, "s"), *([of_swarm(f"m{n}", 2, "s", ended_at_s=float(n))] if n else [])]
        )
    assert await journal.prune(3.0) == 2, "before 3.0, not at it; m0 runs"
    assert await names(journal) == ["m5", "m4", "m3", "m0"]
    assert await seqs(journal, "m1") == await seqs(journal, "m2") == []
    assert await seqs(journal, "m3") == [1, 2]
    assert await journal.prune(10.0, limit=1) == 1
    assert await names(journal) == ["m5", "m4", "m0"], "the one that ended first goes first"
    assert await names(journal, swarm="s") == ["m5", "m4", "m0"]
    assert await journal.prune(10.0) == 2
    assert await journal.prune(10.0) == 0
    await journal.append(events("m1", 1))
    assert await seqs(journal, "m1") == [1], "a name may be used again"
    with pytest.raises(StorageError, match="limit"):
        await journal.prune(1.0, limit=0)


async def test_prune_takes_as_many_as_it_is_asked_to(journal: Journal) -> None:
    ended = [of_swarm(f"m{n}", 1, "s", ended_at_s=float(n)) for n in range(700)]
    await journal.append([*ended, *events("m", 1)])
    assert await journal.prune(1e9, limit=450) == 450
    assert len(await names(journal, limit=1_000)) == 251
    assert await journal.prune(1e9) == 250
    assert await names(journal) == ["m"]


@pytest.mark.parametrize("seed", range(3))
async def test_it_is_what_a_dictionary_of_lists_is(journal: Journal, seed: int) -> None:
    """Random appends, good and bad, and prunes: after each, the journal says what a plain model of it says."""
    chance = random.Random(seed)
    model: dict[str, list[Event]] = {}
    for step in range(60):
        batch, ahead = [], {name: len(stored) for name, stored in model.items()}
        for _ in range(chance.randint(1, 12)):
            name = f"m{chance.randrange(9)}"
            ahead[name] = ahead.get(name, 0) + 1
            ended = float(step) if chance.random() < 0.2 else None
            batch.append(of_swarm(name, ahead[name], f"s{chance.randrange(3)}", ended_at_s=ended))
        if chance.random() < 0.2:
            batch.append(of_swarm(name, chance.choice([1, ahead[name] + 2]), "s0"))
            with pytest.raises(StorageError, match="comes next"):
                await journal.append(batch)
        else:
            await journal.append(batch)
            for new in batch:
                model.setdefault(new.mission_id, []).append(new)
        if chance.random() < 0.1:
            gone = [name for name, stored in model.items() if _ended(stored) and stored[-1].at_s < step - 3]
            assert await journal.prune(step - 3.0) == len(gone)
            model = {name: stored for name, stored in model.items() if name not in gone}
        for swarm, running in ((None, False), ("s1", False), (None, True), ("s2", True)):
            assert await names(journal, swarm=swarm, running=running) == [
                name
                for name, stored in reversed(model.items())
                if (swarm is None or stored[-1].swarm == swarm) and not (running and _ended(stored))
            ]
    for name, stored in model.items():
        assert await journal.read(name) == stored


def _ended(stored: list[Event]) -> bool:
    return stored[-1].kind is EventKind.MISSION_ENDED


async def test_what_was_read_does_not_reach_back_into_the_journal(journal: Journal) -> None:
    written = event("m", 1, {"list": [1]})
    await journal.append([written])
    written.data["list"] = "changed by the writer"
    (await journal.read("m"))[0].data["list"] = "changed by a reader"
    assert (await journal.read("m"))[0].data == {"list": [1]}


async def test_a_closed_journal_refuses_everything(journal: Journal) -> None:
    await journal.append(events("m", 1))
    await journal.close()
    await journal.close()
    for call in (
        journal.append(events("m", 2)),
        journal.append([]),
        journal.read("m"),
        journal.missions(),
        journal.prune(1.0),
    ):
        with pytest.raises(StorageError, match="closed"):
            await call


async def test_close_waits_for_the_appends_under_way(journal: Journal) -> None:
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1))) for n in range(50)]
    closing = asyncio.ensure_future(journal.close())  # scheduled after every append
    await asyncio.gather(*appends, closing)
    assert all(append.exception() is None for append in appends)
