"""Many who follow one mission: the swarm is asked once for all of them, and telling them holds nobody else up."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from websockets.asyncio.client import ClientConnection, connect

from chimera.api.app import ROUTERS
from chimera.api.guard import routes_of
from chimera.api.services import Services
from chimera.api.socket import AT_A_TIME, Sockets
from chimera.api.streams import Reads
from chimera.client import SwarmCoordinator
from chimera.core.errors import StorageUnavailable
from chimera.core.events import Event, EventKind
from chimera.security.roles import Role
from tests.api.serving import Served, served
from tests.api.whole import opened

MISSION = "mission-" + "d" * 44

COUNT = 30


class Swarm(SwarmCoordinator):
    """One whose missions go on when a test says so. `asked` has, of each read, after which event it was."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.cancelled = 0
        self.fault: Exception | None = None
        self.goes_on = asyncio.Event()

    async def read_events(self, mission_id: str, after: int = 0, wait_s: float = 0.0) -> list[Event]:
        self.asked.append(after)
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault is not None:
            raise self.fault
        return [Event(mission_id=mission_id, seq=after + 1, kind=EventKind.REPLY_ACCEPTED, at_s=0.0)]


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_waits_for_the_same_waits_for_one_read() -> None:
    swarm = Swarm()
    reads = Reads(swarm)
    waiting = [asyncio.create_task(reads("a", after)) for after in (0, 0, 0, 7)]
    waiting.append(asyncio.create_task(reads("b", 0)))
    await _settle()
    assert sorted(swarm.asked) == [0, 0, 7]
    swarm.goes_on.set()
    found = await asyncio.gather(*waiting)
    assert [[event.seq for event in part] for part in found] == [[1], [1], [1], [8], [1]]
    assert [json.loads(part[0].text)["mission_id"] for part in found] == ["a", "a", "a", "a", "b"]
    assert len(reads) == 0
    assert [event.seq for event in await reads("a", 0)] == [1]
    assert len(swarm.asked) == 4, "what was read is not kept"


async def test_one_who_leaves_takes_the_read_from_nobody_and_the_last_ends_it() -> None:
    swarm = Swarm()
    reads = Reads(swarm)
    first, second, third = (asyncio.create_task(reads("a", 0)) for _ in range(3))
    await _settle()
    first.cancel()
    await _settle()
    assert (swarm.cancelled, second.done(), len(reads)) == (0, False, 1)
    second.cancel()
    third.cancel()
    newcomer = asyncio.create_task(reads("a", 0))  # while that read ends
    await _settle()
    assert (swarm.cancelled, newcomer.done(), len(reads)) == (1, False, 1), "it has a read of its own"
    newcomer.cancel()
    await _settle()
    assert (swarm.cancelled, len(reads)) == (2, 0)
    swarm.goes_on.set()
    assert [event.seq for event in await reads("a", 0)] == [1]


async def test_a_read_that_fails_fails_for_all_and_is_nobodys_answer_again() -> None:
    swarm = Swarm()
    reads = Reads(swarm)

    async def twice() -> list[int]:
        with pytest.raises(StorageUnavailable):
            await reads("a", 0)
        swarm.fault = None
        return [event.seq for event in await reads("a", 0)]

    swarm.fault = StorageUnavailable("gone for now")
    waiting = [asyncio.create_task(twice()) for _ in range(3)]
    await _settle()
    swarm.goes_on.set()
    assert await asyncio.gather(*waiting) == [[1]] * 3
    assert swarm.asked == [0, 0]


async def test_a_thousand_that_are_told_let_others_have_their_turn(tmp_path: Path) -> None:
    """Between two looks at the network, few of them go on."""
    async with opened(tmp_path) as api:
        sockets = Sockets(api.node.services)
        had = 0

        async def told() -> None:
            nonlocal had
            await sockets.turn()
            had += 1

        tasks = [asyncio.create_task(told()) for _ in range(1_000)]
        most = before = 0
        while had < len(tasks):
            await asyncio.sleep(0)
            most, before = max(most, had - before), had
        assert most == AT_A_TIME


class Told:
    """A mission that is told of in parts of three events, as far as `last`."""

    def __init__(self) -> None:
        self.reads = 0
        self.go = False

    def put_in(self, services: Services) -> None:
        async def read_events(mission_id: str, after: int = 0, wait_s: float = 0.0) -> list[Event]:
            self.reads += 1
            while not self.go:  # noqa: ASYNC110 - the test is in another thread
                await asyncio.sleep(0.01)
            last = after + 3
            kinds = {seq: EventKind.MISSION_ENDED if seq == 12 else EventKind.REPLY_ACCEPTED for seq in range(1, 13)}
            return [
                Event(mission_id=mission_id, seq=seq, kind=kinds[seq], at_s=0.0, data={"reply": 'a "b" \u2028\n'})
                for seq in range(after + 1, last + 1)
            ]

        async def look_up(mission_id: str, wait_s: float = 0.0) -> None:
            return None

        services.swarm.read_events, services.swarm.look_up = read_events, look_up  # type: ignore[method-assign]


async def _follow(socket: ClientConnection, token: str, asked_id: str) -> None:
    await socket.send(json.dumps({"type": "authenticate", "token": token}))
    await socket.send(json.dumps({"type": "subscribe", "id": asked_id, "mission_id": MISSION}))
    kinds = [json.loads(await socket.recv())["type"] for _ in range(2)]
    assert kinds == ["authenticated", "subscribe_done"]


def test_sockets_that_follow_one_mission_get_all_of_it_and_ask_for_it_once(tmp_path: Path) -> None:
    mission = Told()
    with served(tmp_path / "node", change=mission.put_in, login_s=60.0) as made:
        asyncio.run(_check_all(made, mission))
        assert len(made.node.app.state.sockets.reads) == 0


async def _check_all(made: Served, mission: Told) -> None:
    token = await asyncio.to_thread(made.token, Role.OPERATOR)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60.0):
        opening = (stack.enter_async_context(connect(made.ws)) for _ in range(COUNT))
        sockets = await asyncio.gather(*opening)
        ids = [f'the "{n}"th' for n in range(COUNT)]
        await asyncio.gather(*(_follow(*each) for each in zip(sockets, [token] * COUNT, ids, strict=True)))
        assert mission.reads == 1
        turns = _counted(made.node.app.state.sockets)
        mission.go = True
        for socket, asked_id in zip(sockets, ids, strict=True):
            told = [json.loads(await socket.recv()) for _ in range(13)]
            assert [each.get("event", {}).get("seq") for each in told] == [*range(1, 13), None]
            assert {each["id"] for each in told} == {asked_id}
            assert told[0]["event"]["data"] == {"reply": 'a "b" \u2028\n'}
            assert told[-1] == {"type": "ended", "id": asked_id, "mission_id": MISSION}
        assert len(turns) == COUNT * 12, "each event waits for its turn"


def _counted(sockets: Sockets) -> list[None]:
    """One for each turn from now on."""
    turns: list[None] = []
    turn = sockets.turn

    async def counted() -> None:
        turns.append(None)
        await turn()

    sockets.turn = counted  # type: ignore[method-assign]
    return turns


def _calls(dependant: Dependant) -> list[object]:
    return [call for part in dependant.dependencies for call in (part.call, *_calls(part))]


@pytest.mark.parametrize("route", routes_of(ROUTERS), ids=lambda route: f"{sorted(route.methods)[0]} {route.path}")
def test_no_request_waits_for_a_thread_before_it_is_answered(route: object) -> None:
    """FastAPI calls plain functions in threads, of which there are few."""
    calls = [route.endpoint, *_calls(route.dependant)]  # type: ignore[attr-defined]
    for call in calls:
        asked = call if inspect.isfunction(call) else type(call).__call__
        assert inspect.iscoroutinefunction(asked), call
