"""A direct line to an actor: its methods are called over one TCP connection, and through Ray only where there is none.

A call through Ray wakes a dozen threads of both processes: 1.5 to 3 ms of processor time, whatever it carries. Mail
between actors is a call every few milliseconds for as long as there is work, and over a connection each costs a tenth
of that (docs/adr/0009). Starting actors, finding them, and knowing that they died stay Ray's business: a line that
breaks leaves the call to Ray, which knows what has become of the actor. So a call may be carried out twice; whatever
is asked twice over a line must be done once.

Who may connect: whoever was told the secret, which travels through Ray and is proved by HMAC, in both directions,
before anything is read from the other side. Where Ray itself runs over TLS there are no lines.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import pickle
import secrets
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from chimera.core.errors import SwarmError

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 64_000_000
"""What is larger goes through Ray, whose object store is made for it."""

MAX_CALLS = 4_000
"""Calls in progress over one connection; more are not read yet."""

MAX_STRANGERS = 64
"""Connections that have not proved yet who they are; more are closed at once."""

HELLO_S = 3.0
RETRY_S = 1.0
MAX_RETRY_S = 60.0

_NONCE_BYTES = _PROOF_BYTES = 32
_BUFFER_BYTES = 1 << 20
_CALLER, _ANSWERER = b"caller", b"answerer"


@dataclass(frozen=True, slots=True)
class Door:
    """Where an actor answers, and what it takes to be let in."""

    host: str
    port: int
    secret: bytes = field(repr=False)


class _Elsewhere(Exception):
    """This call has to go through Ray."""


class Switchboard:
    """The answering side: calls the public coroutine methods of `actor` for whoever knows the secret."""

    def __init__(self, actor: object, host: str) -> None:
        self._actor = actor
        self._host = host
        self._secret = secrets.token_bytes(32)
        self._opening = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._strangers = 0

    async def door(self) -> Door | None:
        """Where this actor answers; from the first time it is asked. None where Ray's own traffic is encrypted."""
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return None
        async with self._opening:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, self._host, 0, limit=_BUFFER_BYTES)
        return Door(self._host, self._server.sockets[0].getsockname()[1], self._secret)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await self._knows_the_secret(reader, writer):
                _watch_over(writer)
                await self._listen(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _knows_the_secret(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self._strangers >= MAX_STRANGERS:
            return False
        self._strangers += 1
        try:
            async with asyncio.timeout(HELLO_S):
                mine = secrets.token_bytes(_NONCE_BYTES)
                writer.write(mine)
                hello = await reader.readexactly(_NONCE_BYTES + _PROOF_BYTES)
                nonces = mine + hello[:_NONCE_BYTES]
                if not hmac.compare_digest(hello[_NONCE_BYTES:], _proof(self._secret, _CALLER, nonces)):
                    log.warning("%r: somebody called who does not know the secret", self._actor)
                    return False
                writer.write(_proof(self._secret, _ANSWERER, nonces))
                return True
        finally:
            self._strangers -= 1

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: set[asyncio.Task[None]] = set()
        while True:
            number, packed = await _read(reader)
            call = asyncio.create_task(self._answer(writer, number, packed))
            for held in (mine, self._calls):  # a call goes on when its caller has gone
                held.add(call)
                call.add_done_callback(held.discard)
            if len(mine) >= MAX_CALLS:
                await asyncio.wait(mine, return_when=asyncio.FIRST_COMPLETED)

    async def _answer(self, writer: asyncio.StreamWriter, number: int, packed: bytes) -> None:
        try:
            method, arguments = pickle.loads(packed)
            work: Coroutine[Any, Any, Any] = getattr(self._actor, method)(*arguments)
        except Exception:  # a class that only Ray's pickles carry: the caller asks again, through Ray
            _write(writer, number, b"")
            return
        try:
            answer = (True, await work)
        except Exception as error:
            answer = (False, error.with_traceback(None))
        except BaseException as error:  # a cancel, within: the caller must not wait for ever
            answer = (False, SwarmError(f"{method}: {error!r}"))
        try:
            told = pickle.dumps(answer, protocol=5)
        except Exception:
            told = b"" if answer[0] else pickle.dumps((False, SwarmError(f"{answer[1]!r}")))
        _write(writer, number, told if len(told) <= MAX_FRAME_BYTES else b"")


class Line:
    """The calling side, to one actor. `handle` is Ray's, for everything else."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._keeper: asyncio.Task[None] | None = None
        self._told: set[asyncio.Task[Any]] = set()
        self._closed = getattr(handle, "door", None) is None
        self._pause_s = RETRY_S

    async def call(self, method: str, *arguments: Any) -> Any:
        """The answer of the actor's method. Raises what it raised, and Ray's errors where the actor cannot be had."""
        try:
            return await self._directly(method, arguments)
        except _Elsewhere:
            return await getattr(self.handle, method).remote(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method whose answer does not matter."""
        told = asyncio.ensure_future(self.call(method, *arguments))
        self._told.add(told)
        told.add_done_callback(self._was_told)

    def close(self) -> None:
        """Hang up. Calls in progress go through Ray."""
        self._closed = True
        if self._keeper:
            self._keeper.cancel()

    def _was_told(self, told: asyncio.Task[Any]) -> None:
        self._told.discard(told)
        if not told.cancelled() and (error := told.exception()):
            log.info("not told: %s", error)

    async def _directly(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._writer is None:
            self._open()
            raise _Elsewhere
        try:
            packed = pickle.dumps((method, arguments), protocol=5)
        except Exception as error:
            raise _Elsewhere from error
        if len(packed) > MAX_FRAME_BYTES:
            raise _Elsewhere
        self._last += 1
        number, answered = self._last, asyncio.get_running_loop().create_future()
        self._pending[number] = answered
        try:
            _write(self._writer, number, packed)
            told = await answered
        finally:
            self._pending.pop(number, None)
        try:
            good, answer = pickle.loads(told)
        except Exception as error:
            raise _Elsewhere from error
        if not good:
            raise answer
        return answer

    def _open(self) -> None:
        """Have a connection soon, if there can be one: whoever calls meanwhile does so through Ray."""
        if not self._closed and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Connect, and connect again for as long as the actor can be had."""
        try:
            while True:
                try:
                    door: Door | None = await self.handle.door.remote()
                    if door is None:
                        self._closed = True
                        return
                    await self._talk(door)
                except (OSError, EOFError, TimeoutError) as error:
                    log.info("no line: %r", error)
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, MAX_RETRY_S)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the actor has gone: the next call sees what has become of it
            log.info("no line: %r", error)
            await asyncio.sleep(RETRY_S)

    async def _talk(self, door: Door) -> None:
        async with asyncio.timeout(HELLO_S):
            reader, writer = await asyncio.open_connection(door.host, door.port, limit=_BUFFER_BYTES)
        try:
            async with asyncio.timeout(HELLO_S):
                theirs, mine = await reader.readexactly(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
                writer.write(mine + _proof(door.secret, _CALLER, theirs + mine))
                proof = await reader.readexactly(_PROOF_BYTES)
            if not hmac.compare_digest(proof, _proof(door.secret, _ANSWERER, theirs + mine)):
                raise ConnectionRefusedError("somebody else answers there")
            _watch_over(writer)
            self._writer, self._pause_s = writer, RETRY_S
            while True:
                number, told = await _read(reader)
                if (waiting := self._pending.get(number)) and not waiting.done():
                    waiting.set_result(told)
        finally:
            self._writer = None
            writer.close()
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(_Elsewhere())


def _proof(secret: bytes, side: bytes, nonces: bytes) -> bytes:
    return hmac.digest(secret, side + nonces, "sha256")


def _write(writer: asyncio.StreamWriter, number: int, packed: bytes) -> None:
    """A frame: its length, its number, what it says. It gathers in memory while the other side does not read: one call
    is in flight for each stream of mail, so that is one batch at most."""
    writer.write(len(packed).to_bytes(4, "big") + number.to_bytes(8, "big") + packed)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(12)
    size = int.from_bytes(head[:4], "big")
    if size > MAX_FRAME_BYTES:
        raise ConnectionAbortedError(f"a frame of {size} bytes")
    return int.from_bytes(head[4:], "big"), await reader.readexactly(size)


def _watch_over(writer: asyncio.StreamWriter) -> None:
    """See within seconds that the other machine is gone, where the system can tell. One that is only busy answers the
    probes; what is written to it may wait longer."""
    line: socket.socket = writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
