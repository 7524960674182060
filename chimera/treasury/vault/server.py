"""The vault's sockets: who may connect to which, and what each of them gives.

What a row may be is the ledger's to say, by the role that a socket stands for. Here everything has a limit: connections
and calls, their bytes, and the time that half a call may take; one who does not keep to it loses the connection, and
nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chimera.core.errors import ChimeraError, Forbidden, InputError, LedgerError, Overloaded, WireError
from chimera.treasury.ledger import MAX_BATCH, Ledger, LedgerRole, Row
from chimera.treasury.signer import MAX_PROPOSALS, Proposal, Signer
from chimera.treasury.types import Approval, Outcome, RefusalReason, Refused
from chimera.treasury.vault import wire
from chimera.treasury.vault.shared import Shared

MAX_CONNECTIONS = 128
"""Of one socket."""
MAX_CALLS = 32
"""Of one connection, at once. The next is read when one is answered."""
SHARED = frozenset({"write", "decide"})
"""Calls of a connection that go on side by side; its others are answered in turn."""
SEND_S = 30.0
MAX_PATH = 107
"""Bytes of a Unix socket's path."""
ROOT = 0

log = logging.getLogger(__name__)

Refusing = Callable[[Approval], str | None]
"""Why an approval is not written at all; None if the ledger may judge it."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """A socket at `path` for `role`. `uids` may connect, and root.

    Through one that is `for_cfo` the CFO proposes, and stops spending as the CFO.
    """

    path: Path
    role: LedgerRole
    uids: frozenset[int] = field(default_factory=lambda: frozenset({os.geteuid()}))
    for_cfo: bool = False


class VaultServer:
    """Serves `ledgers`, of every role, through `doors`; what is only read, from `reading`.

    It closes none of the ledgers. `signer` decides; `refusing` is asked about approvals before they are written.
    """

    def __init__(
        self,
        *,
        doors: Sequence[Door],
        ledgers: Mapping[LedgerRole, Ledger],
        reading: Ledger,
        signer: Signer | None = None,
        refusing: Refusing = lambda _: None,
        public_keys: wire.PublicKeys | None = None,
    ) -> None:
        self.doors = tuple(doors)
        self._ledgers = ledgers
        self._reading = reading
        self._signer = signer
        self._refusing = refusing
        self._public_keys = public_keys or wire.PublicKeys(cfo={}, people={})
        self._writes: dict[LedgerRole, Shared[Row, Outcome]] = {
            role: Shared(ledger.write, most=MAX_BATCH) for role, ledger in ledgers.items()
        }
        self._decides = Shared[Proposal, Outcome](self._decide, most=MAX_PROPOSALS)
        self._servers: list[asyncio.Server] = []
        self._open: dict[Path, set[asyncio.Task[None]]] = {}

    async def start(self) -> None:
        """Listen, in place of sockets that an earlier vault has left. Raises InputError for a path that is too long."""
        for door in self.doors:
            if len(os.fsencode(door.path)) > MAX_PATH:
                raise InputError(f"{door.path} is too long for a socket: {MAX_PATH} bytes; use a shorter home")
            self._open[door.path] = set()
            door.path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(str(door.path))
            door.path.chmod(0o600 if door.uids <= {ROOT, os.geteuid()} else 0o666)  # who connects is asked besides

            async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: Door = door) -> None:
                await self._welcome(door, reader, writer)

            self._servers.append(await asyncio.start_unix_server(welcome, sock=listening))

    async def close(self) -> None:
        """Take no more calls, end what was begun, and take the sockets away."""
        for server in self._servers:
            server.close()
        for door in self.doors:
            door.path.unlink(missing_ok=True)
        tasks = [task for tasks in self._open.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shared in self._writes.values():
            await shared.close()
        await self._decides.close()

    async def _welcome(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        there = self._open[door.path]
        try:
            uid = peer(writer)
            if uid not in door.uids and uid != ROOT:
                raise Forbidden(f"user {uid} may not connect to {door.path}: treasury.yaml says who may")
            if len(there) >= MAX_CONNECTIONS:
                raise Overloaded(f"{MAX_CONNECTIONS} connections to {door.path} are open: close some", 1.0)
            there.add(task)
            await _Connection(writer, self._answer, door).serve(reader)
        except (ChimeraError, TimeoutError) as error:
            why = error if isinstance(error, ChimeraError) else WireError("half a call came, and no more")
            writer.write(wire.framed(wire.failing(0, why)))
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            pass  # the vault ends; streams would report it as a fault
        finally:
            there.discard(task)
            writer.close()

    async def _answer(self, door: Door, call: str, values: tuple[Any, ...]) -> Any:
        match call:
            case "write":
                return await self._write(door.role, *values)
            case "decide" if door.for_cfo and self._signer is not None:
                return await self._decides.ask(*values)
            case "decide":
                raise Forbidden(f"nothing is decided through {door.path.name}: ask at the CFO's socket")
            case "stop" if door.for_cfo:
                return await self._ledgers[LedgerRole.CFO].stop(*values)
            case "set_cap" | "set_rules" | "stop" | "resume":
                return await getattr(self._ledgers[door.role], call)(*values)
            case "public_keys":
                return self._public_keys
            case _:
                return await getattr(self._reading, call)(*values)

    async def _write(self, role: LedgerRole, rows: Sequence[Row]) -> list[Outcome]:
        refused = {
            i: Refused(id=row.request_id, reason=RefusalReason.UNSIGNED, detail=why)
            for i, row in enumerate(rows)
            if isinstance(row, Approval) and (why := self._refusing(row)) is not None
        }
        written = iter(await self._writes[role].ask([row for i, row in enumerate(rows) if i not in refused]))
        return [refused.get(i) or next(written) for i in range(len(rows))]

    async def _decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        assert self._signer is not None
        return await self._signer.decide(proposals)


class _Connection:
    """Whoever is at the other end, and the calls of theirs that are not answered yet."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        answer: Callable[[Door, str, tuple[Any, ...]], Awaitable[Any]],
        door: Door,
    ) -> None:
        self._writer = writer
        self._answer = answer
        self._door = door
        self._free = asyncio.Semaphore(MAX_CALLS)
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the other end closes. Raises WireError, TimeoutError."""
        try:
            while (frame := await wire.read_frame(reader)) is not None:
                ask = wire.asked(frame)
                await self._free.acquire()
                task = asyncio.create_task(self._call(ask))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, ask: wire.Ask) -> None:
        try:
            # An answer may be large: who takes none of theirs would have the vault keep them all.
            async with nullcontext() if ask.call in SHARED else self._reading:
                await self._send(await self._frame(ask))
        finally:
            self._free.release()

    async def _frame(self, ask: wire.Ask) -> bytes:
        try:
            answer = await self._answer(self._door, ask.call, wire.called(ask))
            return wire.answering(ask.id, ask.call, answer)
        except ChimeraError as error:
            return wire.failing(ask.id, error)
        except Exception as error:
            log.exception("the call %s", ask.call)
            told = f"the vault failed at {ask.call} ({type(error).__name__}): its log says more"
            return wire.failing(ask.id, LedgerError(told))

    async def _send(self, frame: bytes) -> None:
        self._writer.write(wire.framed(frame))
        try:
            async with asyncio.timeout(SEND_S):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            with suppress(Exception):
                self._writer.transport.abort()


def peer(writer: asyncio.StreamWriter) -> int:
    """The user at the other end, as the kernel says: who they were when they connected (unix(7), SO_PEERCRED)."""
    end = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
