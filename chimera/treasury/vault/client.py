"""The ledger and the signer, for everybody outside the vault: calls over one of its sockets, many at once.

A vault that was restarted is found again. What was under way then is asked again: a row that had been written comes
back as `again`, so that nothing is lost or doubled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chimera.core.errors import (
    ChimeraError,
    InputError,
    LedgerError,
    LedgerUnavailable,
    Overloaded,
    StorageUnavailable,
)
from chimera.storage.server import Disconnected, Persistence
from chimera.treasury.ledger import MAX_BATCH, Head, LedgerRole, Row, Stop
from chimera.treasury.signer import MAX_PROPOSALS, Proposal
from chimera.treasury.types import (
    Account,
    Approval,
    Balance,
    Cap,
    CapUse,
    CfoDecision,
    Outcome,
    PaymentRequest,
    Rules,
    Transfer,
)
from chimera.treasury.vault import wire
from chimera.treasury.vault.server import MAX_CALLS

MAX_WAITING = 10_000
"""Calls that wait for their turn."""
RETRY_AFTER_S = 0.1
CONNECT_S = 5.0
ANSWER_S = 60.0
"""A vault that has not answered by then is taken for one that is out of reach."""


class VaultLedger:
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

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        if len(rows) > MAX_BATCH:
            raise InputError(f"{len(rows)} rows are too many at once: write at most {MAX_BATCH}")
        return await self._ask("write", list(rows)) if rows else []

    async def decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        """As `Signer.decide`; only at the app's socket. Raises Forbidden elsewhere."""
        if len(proposals) > MAX_PROPOSALS:
            raise InputError(f"{len(proposals)} are too many at once: propose at most {MAX_PROPOSALS}")
        return await self._ask("decide", list(proposals)) if proposals else []

    async def public_keys(self) -> wire.PublicKeys:
        """Under which keys the ledger's words are signed: of the CFO, old ones too, and of people."""
        answer: wire.PublicKeys = await self._ask("public_keys")
        return answer

    async def account(self, account_id: str) -> Account | None:
        answer: Account | None = await self._ask("account", account_id)
        return answer

    async def request(self, request_id: str) -> PaymentRequest | None:
        answer: PaymentRequest | None = await self._ask("request", request_id)
        return answer

    async def decisions(self, request_id: str) -> list[CfoDecision | Approval]:
        answer: list[CfoDecision | Approval] = await self._ask("decisions", request_id)
        return answer

    async def transfers(self, request_id: str) -> list[Transfer]:
        answer: list[Transfer] = await self._ask("transfers", request_id)
        return answer

    async def balance(self, account_id: str) -> Balance:
        answer: Balance = await self._ask("balance", account_id)
        return answer

    async def waiting(self, after: str = "", limit: int = 100) -> list[PaymentRequest]:
        answer: list[PaymentRequest] = await self._ask("waiting", after, limit)
        return answer

    async def caps(self) -> list[CapUse]:
        answer: list[CapUse] = await self._ask("caps")
        return answer

    async def set_cap(self, cap: Cap) -> Outcome:
        answer: Outcome = await self._ask("set_cap", cap)
        return answer

    async def set_rules(self, rules: Rules) -> Outcome:
        answer: Outcome = await self._ask("set_rules", rules)
        return answer

    async def stop(self, why: str, by: str) -> None:
        """At the app's socket as the CFO."""
        await self._ask("stop", why, by)

    async def resume(self, by: str) -> None:
        await self._ask("resume", by)

    async def stopped(self) -> Stop | None:
        answer: Stop | None = await self._ask("stopped")
        return answer

    async def head(self) -> Head:
        answer: Head = await self._ask("head")
        return answer

    async def rows(self, after: int = 0, limit: int = MAX_BATCH) -> list[tuple[int, str, dict[str, str | int], str]]:
        """Fewer than `limit` may come where more would not fit into an answer; none, only at the end."""
        answer: list[tuple[int, str, dict[str, str | int], str]] = await self._ask("rows", after, limit)
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
