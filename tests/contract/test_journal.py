"""What every journal does, over every adapter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import MAX_READ, Journal, open_journal


def event(mission: str, seq: int, data: dict[str, JsonValue] | None = None) -> Event:
    return Event(
        mission_id=mission, seq=seq, kind=EventKind.REPLY_ACCEPTED, at_s=1_700_000_000.5 + seq, data=data or {}
    )


def events(mission: str, *seqs: int) -> list[Event]:
    return [event(mission, seq) for seq in seqs]


@pytest.fixture(params=["sqlite", "memory"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    opened = open_journal("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'journal.db'}")
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
async def test_what_would_not_come_back_the_same_is_refused(journal: Journal, value: JsonValue) -> None:
    with pytest.raises(StorageError, match="event 2 of mission m cannot be stored"):
        await journal.append([event("m", 1), event("m", 2, {"x": value})])
    assert await journal.read("m") == []


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
    for call in (journal.append(events("m", 2)), journal.append([]), journal.read("m"), journal.missions()):
        with pytest.raises(StorageError, match="closed"):
            await call


async def test_close_waits_for_the_appends_under_way(journal: Journal) -> None:
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1))) for n in range(50)]
    closing = asyncio.ensure_future(journal.close())  # scheduled after every append
    await asyncio.gather(*appends, closing)
    assert all(append.exception() is None for append in appends)
