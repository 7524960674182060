"""Lines between actors: real sockets, and a handle that counts what goes through it instead."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chimera.actors import line
from chimera.actors.line import Door, Line, Switchboard
from chimera.core.errors import NotBegun, Overloaded, SwarmError
from tests.actors.in_process import until

HOST = "127.0.0.1"


class Actor:
    """What answers. `held` lets calls of `wait` end."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.heard: list[Any] = []

    async def double(self, n: int) -> int:
        return 2 * n

    async def hear(self, what: Any) -> None:
        self.heard.append(what)

    async def wait(self) -> str:
        await self.held.wait()
        return "waited"

    async def refuse(self) -> None:
        raise Overloaded("too much", 1.5)

    async def raise_what_no_pickle_holds(self) -> None:
        raise RuntimeError(lambda: None)

    async def give_what_no_pickle_holds(self) -> Callable[[], None]:
        return lambda: None

    async def size(self, data: bytes) -> int:
        return len(data)

    async def zeros(self, n: int) -> bytes:
        return bytes(n)


class Handle:
    """As Ray's: `handle.method.remote(...)`. `through_ray` are the calls that came this way."""

    def __init__(self, actor: Actor, door: Callable[[], Any]) -> None:
        self._actor = actor
        self._door = door
        self.through_ray: list[str] = []
        self.doors = 0

    def __getattr__(self, name: str) -> Any:
        async def remote(*arguments: Any) -> Any:
            if name == "door":
                self.doors += 1
                return await self._door()
            self.through_ray.append(name)
            return await getattr(self._actor, name)(*arguments)

        return type("Method", (), {"remote": staticmethod(remote)})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Line, Actor, Handle, Switchboard]]:
    """A line that is open: its first call, which went through Ray, is not counted."""
    actor = Actor()
    board = Switchboard(actor, HOST)
    handle = Handle(actor, board.door)
    made = Line(handle)
    try:
        await opened(made, handle)
        yield made, actor, handle, board
    finally:
        made.close()


async def opened(made: Line, handle: Handle) -> None:
    async with asyncio.timeout(10):
        while True:
            before = len(handle.through_ray)
            assert await made.call("double", 1) == 2
            if len(handle.through_ray) == before:
                break
            await asyncio.sleep(0.01)
    handle.through_ray.clear()


async def test_calls_go_over_the_line_once_it_is_open_and_before_that_through_ray() -> None:
    async with connected() as (made, actor, handle, _):
        assert await asyncio.gather(*(made.call("double", n) for n in range(50))) == [2 * n for n in range(50)]
        await made.call("hear", {"a": (1, b"x")})
        assert actor.heard == [{"a": (1, b"x")}]
        assert handle.through_ray == []
        assert handle.doors == 1


async def test_an_answer_that_takes_long_holds_no_other_up() -> None:
    async with connected() as (made, actor, _, _board):
        slow = asyncio.create_task(made.call("wait"))
        assert await made.call("double", 4) == 8
        assert not slow.done()
        actor.held.set()
        assert await slow == "waited"


async def test_errors_come_out_as_they_were_raised() -> None:
    async with connected() as (made, _, handle, _board):
        with pytest.raises(Overloaded, match="too much") as caught:
            await made.call("refuse")
        assert caught.value.retry_after_s == 1.5
        with pytest.raises(Exception, match="RuntimeError"):
            await made.call("raise_what_no_pickle_holds")
        assert handle.through_ray == []


async def test_what_only_ray_can_carry_goes_through_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (made, actor, handle, _):
        await made.call("hear", lambda: None)
        assert len(actor.heard) == 1
        assert callable(await made.call("give_what_no_pickle_holds"))
        monkeypatch.setattr(line, "MAX_FRAME_BYTES", 1_000)
        assert await made.call("size", bytes(2_000)) == 2_000
        assert len(await made.call("zeros", 2_000)) == 2_000
        assert handle.through_ray == ["hear", "give_what_no_pickle_holds", "size", "zeros"]
        assert await made.call("double", 2) == 4  # and the line is still there
        assert handle.through_ray[4:] == []


async def test_calls_in_progress_when_the_line_breaks_go_through_ray_and_a_new_line_is_had() -> None:
    async with connected() as (made, actor, handle, board):
        slow = asyncio.create_task(made.call("wait"))
        await made.call("double", 1)
        assert made._writer is not None
        made._writer.close()
        await asyncio.sleep(0)
        actor.held.set()
        assert await slow == "waited"
        assert handle.through_ray == ["wait"]
        await opened(made, handle)
        assert handle.doors == 2
        assert board._strangers == 0


async def test_an_actor_that_has_gone_is_rays_business() -> None:
    async def gone() -> Door:
        raise RuntimeError("dead")

    actor = Actor()
    handle = Handle(actor, gone)
    made = Line(handle)
    assert await made.call("double", 3) == 6
    actor.double = _not_begun  # type: ignore[method-assign]
    with pytest.raises(NotBegun):
        await made.call("double", 3)
    made.close()


async def _not_begun(n: int) -> int:
    raise NotBegun("started anew")


async def test_what_is_told_needs_no_answer_and_an_error_of_it_harms_nobody() -> None:
    async with connected() as (made, actor, _, _board):
        made.tell("hear", 1)
        made.tell("refuse")
        await made.call("double", 1)  # which was said last, and so is answered after both
        assert actor.heard == [1]


async def test_there_are_no_lines_where_ray_encrypts_its_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    actor = Actor()
    board = Switchboard(actor, HOST)
    handle = Handle(actor, board.door)
    made = Line(handle)
    for n in range(5):
        assert await made.call("double", n) == 2 * n
        await asyncio.sleep(0.01)
    assert handle.doors == 1
    assert handle.through_ray == ["double"] * 5
    assert board._server is None
    made.close()


class _Bomb:
    """Unpickled, it sets off."""

    gone_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (_set_off, ())


def _set_off() -> None:
    _Bomb.gone_off = True


async def _send_bomb(door: Door, secret: bytes) -> bytes:
    """Say hello with this secret and send a pickle that sets off; what comes back after the nonce."""
    reader, writer = await asyncio.open_connection(door.host, door.port)
    theirs, mine = await reader.readexactly(32), secrets.token_bytes(32)
    writer.write(mine + line._proof(secret, b"caller", theirs + mine))
    line._write(writer, 1, pickle.dumps(_Bomb()))
    try:
        async with asyncio.timeout(5):
            return await reader.read(32)
    finally:
        writer.close()


async def test_nothing_is_unpickled_of_who_does_not_know_the_secret() -> None:
    async with connected() as (made, _, _handle, board):
        door = await board.door()
        assert door is not None
        _Bomb.gone_off = False
        assert await _send_bomb(door, secrets.token_bytes(32)) == b""
        assert not _Bomb.gone_off
        assert await made.call("double", 2) == 4
        assert len(await _send_bomb(door, door.secret)) == 32  # the attack is a real one: with the secret it works
        await made.call("double", 2)
        assert _Bomb.gone_off


async def test_a_proof_that_was_overheard_opens_nothing() -> None:
    """Each connection has nonces of its own, and a caller's proof is no answerer's."""
    async with connected() as (_, _actor, _handle, board):
        door = await board.door()
        assert door is not None
        reader, writer = await asyncio.open_connection(door.host, door.port)
        theirs, mine = await reader.readexactly(32), secrets.token_bytes(32)
        hello = mine + line._proof(door.secret, b"caller", theirs + mine)
        writer.write(hello)
        assert len(await reader.readexactly(32)) == 32
        writer.close()
        again, writer = await asyncio.open_connection(door.host, door.port)
        await again.readexactly(32)
        writer.write(hello)
        assert await again.read() == b""
        writer.close()


async def test_somebody_else_who_answers_there_is_told_nothing() -> None:
    told = bytearray()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(32))
        await reader.readexactly(64)
        writer.write(bytes(32))
        told.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(impostor, HOST, 0)
    port = server.sockets[0].getsockname()[1]

    async def door() -> Door:
        return Door(HOST, port, secrets.token_bytes(32))

    actor = Actor()
    handle = Handle(actor, door)
    made = Line(handle)
    assert await made.call("double", 1) == 2
    await asyncio.sleep(0.1)
    assert await made.call("double", 1) == 2
    assert handle.through_ray == ["double", "double"]
    assert told == b""
    made.close()
    server.close()


async def test_strangers_are_few_and_have_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "HELLO_S", 0.2)
    monkeypatch.setattr(line, "MAX_STRANGERS", 3)
    board = Switchboard(Actor(), HOST)
    door = await board.door()
    assert door is not None
    silent = [await asyncio.open_connection(door.host, door.port) for _ in range(3)]
    for reader, _ in silent:
        assert len(await reader.readexactly(32)) == 32
    reader, writer = await asyncio.open_connection(door.host, door.port)
    assert await reader.read() == b""  # one too many: closed without a word
    writer.close()
    async with asyncio.timeout(5):
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
    assert board._strangers == 0


async def test_a_frame_that_is_too_long_ends_the_connection_before_it_is_read() -> None:
    async with connected() as (_, _actor, _handle, board):
        door = await board.door()
        assert door is not None
        reader, writer = await asyncio.open_connection(door.host, door.port)
        theirs, mine = await reader.readexactly(32), secrets.token_bytes(32)
        writer.write(mine + line._proof(door.secret, b"caller", theirs + mine))
        await reader.readexactly(32)
        writer.write((line.MAX_FRAME_BYTES + 1).to_bytes(4, "big") + bytes(8))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


def test_one_that_is_used_in_one_event_loop_after_another_opens_in_each() -> None:
    async def once(made: Line | None) -> Line:
        actor = Actor()
        board = Switchboard(actor, HOST)
        handle = Handle(actor, board.door)
        if made is None:
            made = Line(handle)
        made.handle = handle
        await opened(made, handle)
        assert await made.call("double", 4) == 8
        assert handle.through_ray == []
        return made

    made = asyncio.run(once(None))
    asyncio.run(once(made)).close()


async def test_a_call_that_is_cancelled_within_its_actor_is_answered() -> None:
    async with connected() as (made, actor, _, _board):

        async def cancelled() -> None:
            raise asyncio.CancelledError

        actor.refuse = cancelled  # type: ignore[method-assign]
        with pytest.raises(SwarmError, match="CancelledError"):
            async with asyncio.timeout(5):
                await made.call("refuse")


async def test_a_line_that_was_had_again_is_had_again_as_quickly_the_next_time() -> None:
    async with connected() as (made, _, handle, _board):
        for _ in range(2):
            assert made._writer is not None
            made._writer.close()
            await until(lambda: made._writer is None)
            assert made._pause_s == line.RETRY_S
            await opened(made, handle)
