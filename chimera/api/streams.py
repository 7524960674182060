"""Server-sent events: what happened to a mission as it happens, for as long as the caller reads and may.

A stream goes by its reader: nothing is fetched before what was fetched is taken. A reader that is too slow is dropped,
and so is one whose token has ended. (WHATWG HTML, "Server-sent events".)
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi.responses import StreamingResponse

from chimera.api.bounds import Message, Receive, Scope, Send
from chimera.api.guard import still
from chimera.api.services import Services
from chimera.client import SwarmCoordinator
from chimera.core.errors import ChimeraError, Overloaded, RateLimited, Unauthenticated
from chimera.core.events import Event
from chimera.security.principal import Principal

POLL_S = 20.0

RECHECK_S = 1.0
"""A token that was revoked, or permits something else now, ends its stream within this time."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event in words: `text` is JSON, on one line."""

    seq: int
    kind: str
    text: str

    @classmethod
    def of(cls, event: Event) -> Told:
        return cls(event.seq, event.kind, json.dumps(event.model_dump(mode="json"), separators=(",", ":")))


class Open:
    """How many streams, or sockets, are open: in all, and of each caller."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._of.total()

    def enter(self, caller: str) -> Callable[[], None]:
        """Count one more; what is returned is called once, at its end. Raises RateLimited, Overloaded."""
        if self._of[caller] >= self._most_each:
            raise RateLimited(f"{self._most_each} of yours are open already: close one", 1.0)
        if len(self) >= self._most:
            raise Overloaded("too many are open: try again later", 5.0)
        self._of[caller] += 1

        def leave() -> None:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

        return leave


class EventStream(StreamingResponse):
    """A stream that calls `leave` at its end, and ends when one part of it is not taken within `slow_s`."""

    def __init__(self, content: AsyncIterator[str], *, slow_s: float, leave: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self._slow_s = slow_s
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        slow = False

        async def sending(message: Message) -> None:
            nonlocal slow
            try:
                async with asyncio.timeout(self._slow_s):
                    await send(message)
            except TimeoutError:
                slow = True
                raise

        try:
            await super().__call__(scope, receive, sending)
        except Exception:
            if not slow:
                raise  # else it is left without its end: the server breaks the connection off
        finally:
            self._leave()


Read = Callable[[str, int], Awaitable[Sequence[Told]]]


class Reads:
    """Reads of the swarm that are under way: whoever waits for the same thing waits for one of them.

    A thousand sockets that follow one mission are one call to the swarm at a time, and each event is put into words
    once. Who may see the mission has been checked before.
    """

    def __init__(self, swarm: SwarmCoordinator) -> None:
        self._swarm = swarm
        self._under_way: dict[tuple[str, int], _Shared] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def __call__(self, mission_id: str, after: int) -> Sequence[Told]:
        """Events after that one, when there are any; none after POLL_S. Raises what reading them raises."""
        key = (mission_id, after)
        shared = self._under_way.get(key)
        if shared is None:
            shared = self._under_way[key] = _Shared(asyncio.create_task(read(self._swarm, mission_id, after)))
            shared.task.add_done_callback(partial(self._forget, key, shared))
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                self._forget(key, shared)
                shared.task.cancel()

    def _forget(self, key: tuple[str, int], shared: _Shared, _: object = None) -> None:
        if self._under_way.get(key) is shared:
            del self._under_way[key]


@dataclass
class _Shared:
    task: asyncio.Task[Sequence[Told]]
    waiting: int = 0


async def read(swarm: SwarmCoordinator, mission_id: str, after: int) -> Sequence[Told]:
    """As `Reads`, for one who waits alone."""
    return tuple(Told.of(event) for event in await swarm.read_events(mission_id, after, POLL_S))


async def events_of(here: Services, mission_id: str, after: int, reading: Read) -> AsyncIterator[Sequence[Told]]:
    """A mission's events until its last; none now and then."""
    seq = after
    while True:
        found = await reading(mission_id, seq)
        if found:
            seq = found[-1].seq
        yield found
        if found and found[-1].kind == "mission_ended":
            return
        if not found and await here.swarm.look_up(mission_id) is not None:
            return


async def sse(here: Services, caller: Principal, token: str, mission_id: str, after: int) -> AsyncIterator[str]:
    """A mission's events in the form of the standard; an error that ends them is the last."""

    def reading(mission_id: str, after: int) -> Awaitable[Sequence[Told]]:
        return _checked(read(here.swarm, mission_id, after), lambda: still(here, caller, token))

    try:
        async for found in events_of(here, mission_id, after, reading):
            for event in found:
                yield f"id: {event.seq}\nevent: {event.kind}\ndata: {event.text}\n\n"
            if not found:
                yield ": still running\n\n"
    except ChimeraError as error:
        here.note(caller.subject, "GET events", mission_id, "ended", why=type(error).__name__, key=caller.token_id)
        yield f'event: error\ndata: {{"type":"urn:chimera:problem:ended","detail":"{_why(error)}"}}\n\n'


def _why(error: ChimeraError) -> str:
    if isinstance(error, Unauthenticated):
        return "the token has ended: log in again"
    return "the stream has ended: ask again, from the last event's id"


async def _checked(work: Awaitable[Any], may_go_on: Callable[[], object]) -> Any:
    """What `work` gives, while it is looked after every second."""
    task = asyncio.ensure_future(work)
    try:
        while True:
            may_go_on()
            done, _ = await asyncio.wait({task}, timeout=RECHECK_S)
            if done:
                may_go_on()
                return task.result()
    finally:
        task.cancel()
