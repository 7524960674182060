"""What the CFO still has to do, as the ledger's rows tell it (pure): requests to decide, to carry out, to see through.

It is a fold over the rows, so whoever follows them from the first on, after a crash too, has the same docket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from chimera.treasury.payment import Payment, payment
from chimera.treasury.rows import AnyRow, Switch
from chimera.treasury.types import (
    Account,
    AccountKind,
    Approval,
    CfoDecision,
    PaymentRequest,
    Rules,
    Transfer,
    TransferKind,
)


@dataclass
class Case:
    """A request that has not come to an end.

    `tried` is how many words there were when it was last refused; `undecided` is why the CFO has no word for it.
    """

    request: PaymentRequest
    decision: CfoDecision | None = None
    approvals: dict[str, Approval] = field(default_factory=dict)
    transfer: Transfer | None = None
    words: int = 0
    tried: int = -1
    undecided: str = ""

    def payment(self, at: int) -> Payment:
        """As people see it at that moment."""
        words = [word for word in (self.decision, *self.approvals.values()) if word is not None]
        return payment(self.request, words, [self.transfer] if self.transfer else [], at=at)


class Docket:
    """Requests by id, in the order in which they came; those that ended are gone."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.accounts: dict[str, Account] = {}
        self.rules: dict[str, Rules] = {}
        self.stopped = ""
        """Why nothing is spent; empty while it is."""

    def take(self, row: AnyRow) -> None:
        """The ledger's next row."""
        match row:
            case Account():
                self.accounts[row.id] = row
            case Rules():
                self.rules[row.currency] = row
            case Switch():
                self.stopped = row.why or "somebody stopped it" if row.action == "stop" else ""
            case PaymentRequest():
                self.cases[row.id] = Case(row)
            case CfoDecision() | Approval():
                self._hear(row)
            case Transfer():
                self._move(row)
            case _:
                pass

    def undecided(self, at: int) -> Iterator[PaymentRequest]:
        """Nobody has decided these."""
        return (case.request for case in self._alive(at) if case.decision is None and case.tried < case.words)

    def agreed(self, at: int) -> Iterator[Case]:
        """These may be carried out, as far as is known here: the ledger has the last word."""
        for case in self._alive(at):
            if case.decision is None or case.transfer is not None or case.tried == case.words:
                continue
            given = any(each.expires_at > at for each in case.approvals.values())
            if case.decision.verdict == "approved" or given:
                yield case

    def reserved(self) -> Iterator[Case]:
        """Money is set aside for these, and it has neither been posted nor let go."""
        return (case for case in self.cases.values() if case.transfer is not None)

    def metered(self, request: PaymentRequest) -> bool:
        """Whether the payee is paid by use: then what was used is posted by whoever knows it."""
        payee = self.accounts.get(request.credit)
        return payee is not None and payee.kind is AccountKind.METERED

    def ours(self, request: PaymentRequest) -> bool:
        """Whether money of ours goes out, comes in, or from one fund to another."""
        sides = (self.accounts.get(name) for name in (request.debit, request.credit))
        return any(side is not None and side.kind is AccountKind.FUND for side in sides)

    def sweep(self, at: int) -> None:
        """Forget what has expired."""
        for case in list(self.cases.values()):
            ends_us = case.transfer.expires_at if case.transfer else case.request.expires_at
            if 0 < ends_us <= at:
                del self.cases[case.request.id]

    def _alive(self, at: int) -> Iterator[Case]:
        return (case for case in self.cases.values() if case.request.expires_at > at and case.transfer is None)

    def _hear(self, word: CfoDecision | Approval) -> None:
        case = self.cases.get(word.request_id)
        if case is None:
            return
        case.words += 1
        case.undecided = ""
        if isinstance(word, Approval):
            case.approvals[word.approver] = word
        else:
            case.decision = word
        if word.verdict == "refused":
            del self.cases[word.request_id]

    def _move(self, transfer: Transfer) -> None:
        if transfer.kind is TransferKind.PENDING:
            if case := self.cases.get(transfer.request_id):
                case.transfer = transfer
        else:
            self.cases.pop(transfer.request_id, None)
