"""Patches that a person has to agree to, and the record of all steps in a journal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import InputError, StorageError
from chimera.core.events import EventKind
from chimera.core.watching import Reading
from chimera.healing.healer import Healer
from chimera.healing.memory import PatchMemory
from chimera.storage.journal import open_journal
from chimera.storage.memory import MemoryJournal
from chimera.system.heart import HeartNode
from chimera.system.heart_log import MAX_PENDING, HeartEvent, HeartLog
from chimera.system.proposals import Asked
from tests.unit.system.places import AFTER, ANSWER, BEFORE, places, proposal


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    with places(tmp_path, monkeypatch, request.node.name) as made:
        yield made


def trust(monkeypatch: pytest.MonkeyPatch, confidence: float) -> None:
    """All patches of this test are trusted so far."""
    heal = Healer.heal

    async def healed(self: Healer, *args: Any) -> Any:
        result = await heal(self, *args)
        object.__setattr__(result, "confidence", confidence)
        return result

    monkeypatch.setattr(Healer, "heal", healed)


async def waits(place: Any, monkeypatch: pytest.MonkeyPatch, review: Any = None, **more: Any) -> tuple[Any, str]:
    """A place whose patch waits for a person, and the patch's id."""
    trust(monkeypatch, 0.4)
    one = place([ANSWER], review, **{"review_below": 0.6, **more})
    assert await one.heal() == ["noticed", "decided", "asked"]
    assert one.text == BEFORE
    return one, one.node.events[-1].patch


def again(one: Any) -> HeartNode:
    """The same node in a later run."""
    node = HeartNode(one.node._settings)
    for part in ("anomaly_engine", "code_generator", "hot_reload"):
        setattr(node, part, getattr(one.node, part))
    node.source = one.source = type(one.source)()
    one.node = node
    return node


async def test_what_is_little_trusted_waits_and_is_applied_when_agreed_to(place: Any, monkeypatch: Any) -> None:
    one, patch = await waits(place, monkeypatch)
    kept = json.loads((one.home / "reviews" / f"{patch}.json").read_text())
    assert kept["patch"]["summary"] and kept["verdict"]["verdict"] == "accept" and kept["failure"]["module"] == one.name
    assert "0.40" in one.node.events[-1].detail and one.node.asked() == [patch]
    node = again(one)
    node.agree(patch)
    with pytest.raises(InputError, match="agreed to already"):
        node.agree(patch)
    with pytest.raises(InputError, match="agreed to already"):
        node.refuse(patch)
    one.source.finish()
    await node.run()
    assert one.steps == ["agreed", "applied", "kept"] and one.text == AFTER and node.asked() == []


async def test_one_that_a_metric_told_of_is_watched_after_it_was_agreed_to(place: Any, monkeypatch: Any) -> None:
    trust(monkeypatch, 0.4)
    one = place([ANSWER], review_below=0.6)
    await one.alarm()
    beating = asyncio.create_task(one.node.run())
    async with asyncio.timeout(30):
        while not one.node.asked():  # noqa: ASYNC110 (what it waits for tells nobody)
            await asyncio.sleep(0.01)
        one.node.agree(one.node.asked()[0])
        while one.node._probation is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await one.source.push([Reading("m", 20.0 + at, 500.0) for at in range(9)])
    one.source.finish()
    await beating
    assert one.steps[-3:] == ["agreed", "applied", "rolled_back"] and one.text == BEFORE


async def test_what_is_refused_is_remembered(place: Any, monkeypatch: Any) -> None:
    one, patch = await waits(place, monkeypatch)
    name = Asked(one.home / "reviews").read(patch).signature
    one.node.refuse(patch)
    assert one.steps[-1] == "rejected" and one.node.asked() == []
    with closing(PatchMemory(one.home / "patches.db", clock=SystemClock())) as memory:
        [known] = memory.recall(name)
    assert (known.accepted, known.reason) == (False, "a person refused it")
    with pytest.raises(InputError, match="waits for a person"):
        one.node.refuse(patch)


async def test_what_has_changed_since_it_was_asked_about_is_not_applied(place: Any, monkeypatch: Any) -> None:
    one, patch = await waits(place, monkeypatch)
    (one.app / f"{one.name}.py").write_text(f"# mine\n{BEFORE}")
    node = again(one)
    node.agree(patch)
    one.source.finish()
    await node.run()
    assert one.steps == ["agreed", "failed"] and one.text == f"# mine\n{BEFORE}"
    assert node.asked() == [patch], "it may be refused"
    node.refuse(patch)


@pytest.mark.parametrize(
    ("confidence", "below", "asked"), [(0.6, 0.6, 0), (0.59, 0.6, 1), (0.0, 0.0, 0), (1.0, None, 1)]
)
async def test_a_review_is_asked_about_what_is_below(
    place: Any, monkeypatch: Any, confidence: float, below: float | None, asked: int
) -> None:
    shown: list[Any] = []

    async def yes(*about: Any) -> bool:
        shown.append(about)
        return True

    trust(monkeypatch, confidence)
    one = place([ANSWER], yes, review_below=below)
    assert (await one.heal())[-1] == "kept" and len(shown) == asked


async def test_a_review_that_hangs_or_is_cancelled_leaves_the_patch_waiting(place: Any, monkeypatch: Any) -> None:
    async def hangs(*about: Any) -> bool:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if len(asyncio.all_tasks()) < 3:
                    raise

    async def is_cancelled(*about: Any) -> bool:
        raise asyncio.CancelledError

    one, _ = await waits(place, monkeypatch, hangs, review_s=0.05)
    assert "no answer" in one.node.events[-1].detail
    await waits(place, monkeypatch, is_cancelled)


async def test_a_review_that_raises_lets_nothing_through(place: Any) -> None:
    async def raises(*about: Any) -> bool:
        raise KeyError("who?")

    one = place([ANSWER], raises)
    assert (await one.heal())[-1] == "failed" and one.text == BEFORE


@pytest.mark.parametrize("patch_id", ["../../etc/passwd", "", "A" * 32, "x/" * 16, "a" * 33])
async def test_ids_that_are_none_are_refused(place: Any, patch_id: str) -> None:
    one = place([])
    for decide in (one.node.agree, one.node.refuse):
        with pytest.raises(InputError, match="no id of a patch"):
            decide(patch_id)


def test_a_file_that_is_no_patch_or_another_is_refused(tmp_path: Path) -> None:
    asked, patch = Asked(tmp_path), proposal("a", {"a.py": "x"}, {"a.py": None})
    (tmp_path / f"{'b' * 32}.json").write_text("{")
    with pytest.raises(InputError, match="no patch that waits"):
        asked.read("b" * 32)
    asked.keep(patch)
    (tmp_path / f"{patch.patch.id}.json").rename(tmp_path / f"{'c' * 32}.json")
    with pytest.raises(InputError, match="another patch"):
        asked.read("c" * 32)


async def test_every_step_is_in_the_journal_in_order_over_two_runs(place: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    one = place([ANSWER], journal_url=url, name="till")
    await one.heal()
    first = list(one.node.events)
    again(one)._tell("noticed", "more", "\ud800")
    one.source.finish()
    await one.node.run()
    journal = open_journal(url)
    events = await journal.read("swarm-till")
    assert await journal.missions() == []
    await journal.close()
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert {event.kind for event in events} == {EventKind.HEART_STEP_TAKEN}
    assert [event.data["step"] for event in events[:4]] == [event.step for event in first]
    assert events[2].data["patch"] == first[2].patch and events[4].data["detail"] == "?"


class Unreliable(MemoryJournal):
    """Fails as it is told: before it stores, or after."""

    fails = ""

    async def append(self, events: Any) -> None:
        if self.fails == "before":
            raise StorageError("out of reach")
        await super().append(events)
        if self.fails == "after":
            raise StorageError("no answer")


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_steps_wait_for_a_journal_and_none_is_there_twice(tmp_path: Path, fails: str) -> None:
    log = HeartLog(tmp_path, "heart", "memory://")
    await log.open()
    log._journal = journal = Unreliable()
    journal.fails = fails
    for number in range(3):
        log.tell(HeartEvent(at_s=float(number), step="kept", subject="a"))
        await log.flush_if_it_can()
    journal.fails = ""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(log, "_write", lambda line: None)
        for _ in range(2 * MAX_PENDING):
            log._pending.append(HeartEvent(at_s=9.0, step="kept", subject="b"))
        assert len(log._pending) == MAX_PENDING
        log._pending.clear()
    log.tell(HeartEvent(at_s=3.0, step="kept", subject="a"))
    await log.flush()
    stored = await journal.read("swarm-heart")
    times = [event.at_s for event in stored]
    assert times == sorted(set(times)) and times[-1] == 3.0 and len(times) == (1 if fails == "before" else 4)
    await log.close()


async def test_nothing_is_applied_while_the_journal_is_out_of_reach(place: Any) -> None:
    one = place([ANSWER], journal_url="memory://")
    real = one.node._log.open

    async def opened() -> None:
        await real()
        one.node._log._journal = Unreliable()
        one.node._log._journal.fails = "before"

    one.node._log.open = opened
    assert await one.heal() == ["noticed", "decided", "failed"]
    assert one.text == BEFORE and "StorageError" in one.node.events[-1].detail


async def test_a_journal_that_is_none_ends_the_run_before_it_begins(place: Any) -> None:
    one = place([], journal_url="ftp://x")
    with pytest.raises(InputError, match="not a journal"):
        await one.node.run()


def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimera.system.heart_log.MAX_FILE_BYTES", 1_000)
    log, clock = HeartLog(tmp_path, "heart", None), ManualClock()
    for _ in range(100):
        log.tell(HeartEvent(at_s=clock.now(), step="kept", subject="a" * 50))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) <= {"heart.jsonl", "heart.1.jsonl"} and max(sizes.values()) < 1_200
