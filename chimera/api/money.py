"""What the API tells of money: the treasury's accounts, caps, payments and rows, as JSON that no reader rounds.

Amounts are decimal strings in whole units, times whole microseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from chimera.core.types import Frozen
from chimera.system.treasury import AccountView, Entry
from chimera.treasury.ledger import Stop
from chimera.treasury.payment import Payment, PaymentState
from chimera.treasury.rows import AnyRow, Switch
from chimera.treasury.types import (
    Account,
    AccountKind,
    Approval,
    Cap,
    CapUse,
    CfoDecision,
    Factor,
    PaymentRequest,
    Rules,
    Transfer,
    TransferKind,
    Window,
    shown,
)

MONEY = frozenset(
    {"amount", "limit", "ask_over", "dual_over", "opening", "moved_in", "moved_out", "closing", "pending_out"}
    | {"highest", "now", "by_day", "by_category", "cost", "cost_per_task", "value"}
)
"""Fields of rows and statements whose whole numbers are billionths."""


class CapShown(Frozen):
    """The most that may be spent in a window, and what of it is; `account` "*" is all funds of the currency."""

    account: str
    currency: str
    window: Window
    limit: str
    used: str

    @classmethod
    def of(cls, use: CapUse) -> CapShown:
        cap = use.cap
        return cls(
            account=cap.account,
            currency=cap.currency,
            window=cap.window,
            limit=units(cap.limit),
            used=units(use.used),
        )


class AccountShown(Frozen):
    """An account; `available` is what is neither spent nor set aside to go out."""

    id: str
    kind: AccountKind
    currency: str
    title: str
    posted: str
    available: str
    pending_out: str
    pending_in: str

    @classmethod
    def of(cls, view: AccountView) -> AccountShown:
        balance = view.balance
        return cls(
            **view.account.model_dump(),
            posted=units(balance.posted),
            available=units(balance.available),
            pending_out=units(balance.pending_out),
            pending_in=units(balance.pending_in),
        )


class Spending(Frozen):
    """Whether nothing is spent: why, since when, and who said so."""

    stopped: Stop | None


class TreasuryStatus(Spending):
    """And the caps with their use, and every account."""

    caps: list[CapShown]
    accounts: list[AccountShown]


class ApprovalShown(Frozen):
    """What a person said; `signed` where it is under a key of theirs."""

    approver: str
    verdict: str
    at: int
    expires_at: int
    signed: bool


class PaymentShown(Frozen):
    """A payment: what was asked for, what the CFO made of it, and what came of it. `digest` is what is signed."""

    id: str
    debit: str
    credit: str
    amount: str
    currency: str
    category: str
    requester: str
    mission: str
    reason: str
    expires_at: int
    digest: str
    state: PaymentState
    why: str
    moved: str
    verdict: str | None
    risk: float | None
    factors: tuple[Factor, ...]
    approvals: tuple[ApprovalShown, ...]

    @classmethod
    def of(cls, found: Payment) -> PaymentShown:
        request, decision = found.request, found.decision
        return cls(
            **request.model_dump(exclude={"amount"}),
            amount=units(request.amount),
            digest=request.digest(),
            state=found.state,
            why=found.why,
            moved=units(found.moved),
            verdict=decision.verdict if decision else None,
            risk=decision.risk if decision else None,
            factors=decision.factors if decision else (),
            approvals=tuple(
                ApprovalShown(
                    approver=word.approver,
                    verdict=word.verdict,
                    at=word.at,
                    expires_at=word.expires_at,
                    signed=bool(word.signature),
                )
                for word in found.approvals
            ),
        )


class EntryShown(Frozen):
    """A row of the ledger, and a line about it for people."""

    seq: int
    at: int
    table: str
    line: str
    row: dict[str, JsonValue]

    @classmethod
    def of(cls, entry: Entry) -> EntryShown:
        row: Any = in_units(entry.row.model_dump(mode="json"))
        return cls(seq=entry.seq, at=entry.at, table=entry.table, line=line(entry.row), row=row)


def units(billionths: int) -> str:
    """An amount in whole units, with at least two digits after the point: "1234.50"."""
    return shown(billionths).split()[0].replace(",", "")


def in_units(told: JsonValue, money: bool = False) -> JsonValue:
    """The same with every amount in whole units: a browser rounds the billionths of ten million."""
    if isinstance(told, dict):
        return {name: in_units(each, money or name in MONEY) for name, each in told.items()}
    if isinstance(told, list):
        return [in_units(each, money and isinstance(each, int)) for each in told]
    return units(told) if money and isinstance(told, int) else told


def line(row: AnyRow) -> str:
    """What a row of the ledger says, for people."""
    match row:
        case Account():
            return f"account {row.id} ({row.kind}, {row.currency}){f': {row.title}' if row.title else ''}"
        case PaymentRequest():
            what = f"{shown(row.amount, row.currency)} from {row.debit} to {row.credit}"
            return f"{row.requester} asks for {what} ({row.id})"
        case CfoDecision():
            word = {"approved": "agrees to", "ask": "asks a person about", "refused": "refuses"}[row.verdict]
            return f"the CFO {word} {row.request_id}, risk {row.risk:.2f}"
        case Approval():
            return f"{row.approver} has {row.verdict} {row.request_id}{', signed' if row.signature else ''}"
        case Transfer():
            word = "is set aside" if row.kind is TransferKind.PENDING else "is paid"
            return f"{row.request_id}: " + (f"{units(row.amount)} {word}" if row.amount else "it is let go")
        case Cap():
            whose = "all funds" if row.account == "*" else row.account
            return f"cap of {whose}, {row.window.replace('_', ' ')}: {shown(row.limit, row.currency)}"
        case Rules():
            ask, dual = (shown(each, row.currency) for each in (row.ask_over, row.dual_over))
            return f"a person approves above {ask}, two keys above {dual}"
        case Switch(action="stop"):
            return f"{row.by} stops all spending: {row.why}"
        case Switch():
            return f"{row.by} starts spending again"
