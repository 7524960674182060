"""The ledger and the signer, for everybody outside the vault: calls over one of its sockets, many at once.

A vault that was restarted is found again. What was under way then is asked again: a row that had been written comes
back as `again`, so that nothing is lost or doubled.
"""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chimera.core.errors import (
    ChimeraError,
    LedgerError,
    LedgerUnavailable,
    Overloaded,
    StorageUnavailable,
)
from chimera.storage.server import Disconnected, Persistence
from chimera.treasury.calls import LedgerCalls
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.vault import wire
from chimera.treasury.vault.server import MAX_CALLS

MAX_WAITING = 10_000
"""Calls that wait for their turn."""
RETRY_AFTER_S = 0.1
CONNECT_S = 5.0
ANSWER_S = 60.0
"""A vault that has not answered by then is taken for one that is out of reach."""


class VaultLedger(LedgerCalls):
    """The ledger behind the vault's socket at `path`, which stands for `role`; at the app's also the signer.

    Of one event loop. A vault that never answered is LedgerUnavailable at once, one that did is waited for, up to 14 s.
    """

    def __init__(self, *, path: Path, role: LedgerRole = LedgerRole.APP) -> None:
        self.path = path
        self.role = role
        self._persistence = Persistence(str(path))
        self._turn = asyncio.Semaphore(MAX_CALLS)
        self._connecting = asyncio.Lock()
        self._link: _Link | None = None
        self._waiting = 0
        self._closed = False

    async def public_keys(self) -> wire.PublicKeys:
        """Under which keys the ledger's words are signed: of the CFO, old ones too, and of people."""
        answer: wire.PublicKeys = await self._ask("public_keys")
        return answer

    async def close(self) -> None:
        self._closed = True
        if self._link is not None:
            await self._link.close()

    async def _ask(self, call: str, *values: Any) -> Any:
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} calls already wait for {self.path}", RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with self._turn:
                answer = await self._persistence.ask(lambda _again: self._try(call, values))
            return wire.answers(call).validate_python(answer)
        except StorageUnavailable as error:
            raise LedgerUnavailable(f"{error}: start it with python -m chimera.treasury.vault") from None
        except ValidationError as error:
            raise LedgerError(f"{self.path}: this is no answer to {call}: {error!s:.300}") from None
        finally:
            self._waiting -= 1

    async def _try(self, call: str, values: tuple[Any, ...]) -> Any:
        if self._closed:
            raise LedgerError(f"{self.path}: the ledger is closed")
        async with self._connecting:
            if self._link is None or self._link.broken:
                self._link = await _connect(self.path)
        return await self._link.ask(call, values)


class _Link:
    """One connection: calls go out with a number each, and answers come in any order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._fault: Exception | None = None
        self._hearing = asyncio.create_task(self._hear(reader))

    @property
    def broken(self) -> bool:
        return self._fault is not None

    async def ask(self, call: str, values: tuple[Any, ...]) -> Any:
        """Raises Disconnected, and what the vault raises."""
        number = next(self._numbers)
        frame = wire.asking(number, call, values)
        if self._fault is not None:
            raise self._fault
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_S):
                self._writer.write(wire.framed(frame))
                await self._writer.drain()
                return await answer
        except TimeoutError:
            self._break(Disconnected(f"no answer within {ANSWER_S:.0f} s"))
            raise Disconnected(f"no answer within {ANSWER_S:.0f} s") from None
        except ConnectionError as error:
            await asyncio.wait([self._hearing], timeout=CONNECT_S)  # it may have been said why
            self._break(Disconnected(str(error)))
            assert self._fault is not None
            raise self._fault from None
        finally:
            self._calls.pop(number, None)
            answer.cancel()

    async def close(self) -> None:
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        fault: Exception = Disconnected("the vault has closed the connection")
        try:
            while (frame := await wire.read_frame(reader)) is not None:
                number, told, error = wire.answered(frame)
                if number == 0 and error is not None:
                    fault = error  # about the connection, and so about all of its calls
                    break
                answer = self._calls.get(number)
                if answer is None or answer.done():
                    continue
                if error is None:
                    answer.set_result(told)
                else:
                    answer.set_exception(error)
        except (ChimeraError, TimeoutError) as error:
            fault = Disconnected(str(error) or "half an answer came, and no more")
        finally:
            self._break(fault)

    def _break(self, fault: Exception) -> None:
        if self._fault is None:
            self._fault = fault
        self._writer.close()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self._fault)


async def _connect(path: Path) -> _Link:
    try:
        async with asyncio.timeout(CONNECT_S):
            return _Link(*await asyncio.open_unix_connection(str(path)))
    except (OSError, TimeoutError) as error:
        raise Disconnected(str(error) or "nobody answers") from None
