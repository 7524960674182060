"""Reloads over many cells that die, refuse and do not answer, and a coordinator that is started anew in between.

The cells are fakes that keep one promise only: to run what they are told, and to say so. Each real one is tested in
test_reloads.py.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from chimera.actors import reload_line
from chimera.actors.reloads import Reloads
from chimera.core.errors import ReloadError
from chimera.core.events import Event
from chimera.reload.messages import Answer, Commit, Drain, Parcel, Prepare, Request
from chimera.reload.twophase import Limits, TwoPhase
from tests.actors.in_process import Handle, until

MODULE = "some.module"


class FakeCell:
    """It runs versions, by number. `refuses` are the sources that it cannot take."""

    lives = itertools.count(1)

    def __init__(self, name: str, swarm: Swarm) -> None:
        self.name, self.swarm = name, swarm
        self.life = next(self.lives)
        self.runs = 0
        self.source = b""
        self.ready = 0
        self.drops = 0
        self.joined = asyncio.Event()

    async def awake(self) -> None:
        while not self.joined.is_set():
            try:
                async with asyncio.timeout(0.2):  # a coordinator that is gone does not answer
                    await self.swarm.reloads.join(self.name, self.life)
                self.joined.set()
            except Exception:
                await asyncio.sleep(0.01)

    async def reload(self, life: int, module: str, asked: Request, parcel: Parcel | None = None) -> Answer:
        if life != self.life:
            return Answer("stranger")
        if self.drops:
            self.drops -= 1
            raise RuntimeError("the answer is lost")
        await asyncio.sleep(self.swarm.rng.random() * 0.005)
        match asked:
            case Prepare():
                assert parcel is not None and parcel.digest == asked.digest
                if parcel.code in self.swarm.refused and self.name in self.swarm.refusing:
                    return Answer("failed", "not me")
                self.ready = asked.version
                return Answer("ready")
            case Commit():
                assert parcel is not None and parcel.digest == asked.digest
                self.swarm.committed.add((asked.version, parcel.code))
                self.runs, self.source = max(self.runs, asked.version), parcel.code
                return Answer("running")
            case Drain():
                return Answer("drained")
        return Answer("aborted")

    async def reload_status(self) -> dict[str, Any]:
        return {"life": self.life, "runs": {MODULE: self.runs} if self.runs else {}}

    async def reload_source(self, module: str) -> Parcel | None:
        return Parcel(b"deployed")


class Swarm:
    """Cells, the events that were written, and the `Reloads` of the coordinator's process of now."""

    def __init__(self, cells: int, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.events: list[Event] = []
        self.committed: set[tuple[int, bytes]] = set()
        self.refused: set[bytes] = set()
        self.refusing: set[str] = set()
        self.handles: dict[str, Handle] = {}
        self.begin()
        for number in range(cells):
            self.add(f"cell{number}")

    def add(self, name: str) -> None:
        self.handles[name] = Handle(lambda: FakeCell(name, self))

    def begin(self) -> None:
        """A new process of the coordinator, from what was written."""
        if hasattr(self, "reloads"):
            self.reloads.close()
        self.reloads = reloads = Reloads(cells=self._names, find=self._find, kill=self._kill)

        async def note(*facts: Any) -> None:
            await asyncio.sleep(self.rng.random() * 0.005)
            if reloads is self.reloads:  # the dead write nothing
                first = len(self.events) + 1
                self.events += [
                    Event(mission_id="swarm-x", seq=seq, kind=kind, at_s=0.0, data=data)
                    for seq, (kind, data) in enumerate(facts, start=first)
                ]
            else:
                await asyncio.Event().wait()

        reloads.begin(list(self.events), note)

    async def settled(self) -> set[tuple[int, bytes]]:
        """What the cells run, when all that live run what is committed."""
        await self.reloads.look()

        def done() -> bool:
            status = self.reloads.status().modules.get(MODULE)
            living = sum(handle.living for handle in self.handles.values())
            return status is None or (not status.behind and not status.preparing and status.actors == living)

        await until(done)
        return {(cell.actor.runs, cell.actor.source) for cell in self.handles.values() if cell.living}

    async def _names(self) -> list[str]:
        return [name for name, handle in self.handles.items() if handle.living]

    def _find(self, name: str) -> Handle | None:
        handle = self.handles.get(name)
        return handle if handle and handle.living else None

    def _kill(self, handle: Handle, *, restart: bool = False) -> None:
        handle.end(restart=restart)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_line, "TwoPhase", _Quick)


class _Quick(TwoPhase):
    """Asks again sooner."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(Limits(prepare_s=2.0, again_s=0.02, tries=20))


async def test_one_of_many_that_refuses_leaves_all_as_they_were() -> None:
    swarm = Swarm(20)
    await swarm.reloads.reload(MODULE, Parcel(b"a = 1"))
    swarm.refused, swarm.refusing = {b"a = 2"}, {"cell13"}
    with pytest.raises(ReloadError, match="cell13: not me"):
        await swarm.reloads.reload(MODULE, Parcel(b"a = 2"))
    assert await swarm.settled() == {(1, b"a = 1")}
    swarm.reloads.close()


async def test_a_lost_answer_is_asked_for_again() -> None:
    swarm = Swarm(3)
    swarm.handles["cell1"].actor.drops = 3
    assert (await swarm.reloads.reload(MODULE, Parcel(b"a = 1"))).settled
    assert await swarm.settled() == {(1, b"a = 1")}
    swarm.reloads.close()


async def test_one_that_never_answers_holds_up_nobody_for_ever() -> None:
    swarm = Swarm(3)
    swarm.handles["cell1"].slow["reload"] = asyncio.Event()
    with pytest.raises(ReloadError, match=r"no answer within 2 s from cell1"):
        await swarm.reloads.reload(MODULE, Parcel(b"a = 1"))
    assert {handle.actor.runs for handle in swarm.handles.values()} == {0}
    swarm.reloads.close()


async def test_one_that_does_not_answer_to_a_commit_is_started_anew() -> None:
    swarm = Swarm(3)
    stuck = swarm.handles["cell1"]
    deaf = asyncio.Event()
    actor, heard = stuck.actor, stuck.actor.reload

    async def reload(life: int, module: str, asked: Request, parcel: Parcel | None = None) -> Answer:
        if isinstance(asked, Commit):
            await deaf.wait()
        return await heard(life, module, asked, parcel)

    actor.reload = reload
    assert (await swarm.reloads.reload(MODULE, Parcel(b"a = 1"))).settled
    assert stuck.lives == 2
    assert await swarm.settled() == {(1, b"a = 1")}
    swarm.reloads.close()


async def test_who_comes_late_waits_until_it_runs_what_is_committed() -> None:
    swarm = Swarm(2)
    await swarm.reloads.reload(MODULE, Parcel(b"a = 1"))
    swarm.add("late")
    late = swarm.handles["late"]
    held = late.slow["reload"] = asyncio.Event()
    await asyncio.sleep(0.1)
    assert not late.actor.joined.is_set()
    held.set()
    await late.actor.joined.wait()
    assert late.actor.runs == 1
    swarm.reloads.close()


@pytest.mark.parametrize("seed", range(15))
async def test_whatever_dies_all_end_up_on_the_one_version_that_was_committed_last(seed: int) -> None:
    swarm = Swarm(6, seed)
    rng = swarm.rng
    told: list[bytes] = []

    async def asks() -> None:
        for number in range(8):
            code = f"a = {number}".encode()
            if rng.random() < 0.25:
                swarm.refused, swarm.refusing = {code}, {f"cell{rng.randrange(6)}"}
            try:
                async with asyncio.timeout(0.5):
                    if rng.random() < 0.2 and told:
                        await swarm.reloads.roll_back(MODULE, False, 0)
                    else:
                        await swarm.reloads.reload(MODULE, Parcel(code))
                told.append(code)
            except (ReloadError, TimeoutError):
                continue

    async def kills() -> None:
        for number in range(12):
            await asyncio.sleep(rng.random() * 0.02)
            if rng.random() < 0.3:
                swarm.begin()
            elif rng.random() < 0.2:
                swarm.add(f"late{number}")
            else:
                victim = swarm.handles[f"cell{rng.randrange(6)}"]
                victim.end(restart=rng.random() < 0.8 or number > 6)

    await asyncio.gather(asks(), kills())
    await until(lambda: all(h.actor.joined.is_set() for h in swarm.handles.values() if h.living))
    committed = {event.data["version"]: event.data for event in swarm.events if event.kind == "reload_committed"}
    last = max(committed, default=0)
    found = await swarm.settled()
    assert {version for version, _ in found} == {last}
    assert len(found) == 1
    assert {version for version, _ in swarm.committed} <= committed.keys(), "nobody ran what was not decided"
    swarm.reloads.close()
