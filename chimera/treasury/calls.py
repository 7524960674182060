"""The ledger's port over calls: for whoever has it behind a socket or in an actor, and only has to carry the calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from chimera.core.errors import InputError
from chimera.treasury.ledger import MAX_BATCH, Head, Row, Stop
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


class LedgerCalls(ABC):
    """Every method is a call of the same name (`Ledger`, `Signer`); what is too much at once is refused before."""

    @abstractmethod
    async def _ask(self, call: str, *values: Any) -> Any: ...

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        if len(rows) > MAX_BATCH:
            raise InputError(f"{len(rows)} rows are too many at once: write at most {MAX_BATCH}")
        return list(await self._ask("write", list(rows))) if rows else []

    async def decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        """As `Signer.decide`; of the vault's sockets only at the app's. Raises Forbidden elsewhere."""
        if len(proposals) > MAX_PROPOSALS:
            raise InputError(f"{len(proposals)} are too many at once: propose at most {MAX_PROPOSALS}")
        return list(await self._ask("decide", list(proposals))) if proposals else []

    async def account(self, account_id: str) -> Account | None:
        found: Account | None = await self._ask("account", account_id)
        return found

    async def request(self, request_id: str) -> PaymentRequest | None:
        found: PaymentRequest | None = await self._ask("request", request_id)
        return found

    async def decisions(self, request_id: str) -> list[CfoDecision | Approval]:
        return list(await self._ask("decisions", request_id))

    async def transfers(self, request_id: str) -> list[Transfer]:
        return list(await self._ask("transfers", request_id))

    async def balance(self, account_id: str) -> Balance:
        found: Balance = await self._ask("balance", account_id)
        return found

    async def waiting(self, after: str = "", limit: int = 100) -> list[PaymentRequest]:
        return list(await self._ask("waiting", after, limit))

    async def caps(self) -> list[CapUse]:
        return list(await self._ask("caps"))

    async def set_cap(self, cap: Cap) -> Outcome:
        outcome: Outcome = await self._ask("set_cap", cap)
        return outcome

    async def set_rules(self, rules: Rules) -> Outcome:
        outcome: Outcome = await self._ask("set_rules", rules)
        return outcome

    async def stop(self, why: str, by: str) -> None:
        await self._ask("stop", why, by)

    async def resume(self, by: str) -> None:
        await self._ask("resume", by)

    async def stopped(self) -> Stop | None:
        found: Stop | None = await self._ask("stopped")
        return found

    async def head(self) -> Head:
        found: Head = await self._ask("head")
        return found

    async def rows(self, after: int = 0, limit: int = MAX_BATCH) -> list[tuple[int, str, dict[str, str | int], str]]:
        """Fewer than `limit` may come where more would not fit into an answer; none, only at the end."""
        return list(await self._ask("rows", after, limit))
