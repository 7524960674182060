"""The ledger's port: rows that are only ever added, each fixed by the hash of the one before.

What a row may be is checked by the database itself (caps, funds, that it is signed and approved), under a lock that all
writers share: no application gets past it, and no two of them at once. Refusals are answers; what is raised is a fault.
Pending transfers are posted in two phases (Gray and Reuter, "Transaction Processing", 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from chimera.core.types import Frozen
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

MAX_BATCH = 1_000
"""Rows that are written at once."""


class LedgerRole(StrEnum):
    """Who a connection is to the database.

    `app` writes accounts, requests and transfers; `cfo` decisions, and may stop all spending; `approver` approvals, and
    starts it again; `owner` makes the tables and sets caps and rules. Everybody reads, nobody changes or removes.
    """

    OWNER = "owner"
    APP = "app"
    CFO = "cfo"
    APPROVER = "approver"


Row = Account | PaymentRequest | CfoDecision | Approval | Transfer


class Head(Frozen):
    """The last row of the chain; `seq` 0 and zeros for a ledger without rows. What is anchored elsewhere."""

    seq: int
    hash: str


class Stop(Frozen):
    """Nothing is spent until somebody says so: why, since when, and who said it."""

    why: str
    at: int
    by: str


class Ledger(Protocol):
    """Every method may raise LedgerError (a fault of the database) and LedgerUnavailable (it is out of reach)."""

    role: LedgerRole

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        """Add rows, at most `MAX_BATCH`, in their order and in one transaction: what came of each.

        A row that is refused does not keep the others out. One that is there already, the same, is `again`; another of
        the same id is a `conflict`. Once it returns, what is written is durable.
        """
        ...

    async def account(self, account_id: str) -> Account | None: ...

    async def request(self, request_id: str) -> PaymentRequest | None: ...

    async def decisions(self, request_id: str) -> list[CfoDecision | Approval]:
        """What was said of a request, the first first."""
        ...

    async def transfers(self, request_id: str) -> list[Transfer]: ...

    async def balance(self, account_id: str) -> Balance:
        """At this moment. Raises NotThere."""
        ...

    async def waiting(self, after: str = "", limit: int = 100) -> list[PaymentRequest]:
        """Requests that the CFO wants a person to approve, that nobody has, and that have not expired; by id."""
        ...

    async def caps(self) -> list[CapUse]:
        """Every cap, and how much of it is used now."""
        ...

    async def set_cap(self, cap: Cap) -> Outcome:
        """From now on this is the cap of its account, currency and window. Owner only."""
        ...

    async def set_rules(self, rules: Rules) -> Outcome:
        """From now on these are the rules of their currency. Owner only."""
        ...

    async def stop(self, why: str, by: str) -> None:
        """No spend is written from now on. CFO and owner."""
        ...

    async def resume(self, by: str) -> None:
        """Spends are written again. Approver and owner."""
        ...

    async def stopped(self) -> Stop | None: ...

    async def head(self) -> Head: ...

    async def rows(self, after: int = 0, limit: int = MAX_BATCH) -> list[tuple[int, str, dict[str, str | int], str]]:
        """The raw rows, in order: `(seq, table, columns, hash)`, for whoever checks them."""
        ...

    async def close(self) -> None: ...
