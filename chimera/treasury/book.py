"""The rules of the ledger, worked out in memory: what may be written next, and what follows from what was (pure).

The databases enforce the same rules in their own language. This one is told the rows that they hold, from the first on:
a row that it would have refused should not be there, so an audit finds it, and a test finds where the two differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from chimera.treasury.periods import Spent, Sum
from chimera.treasury.rows import AnyRow, Switch
from chimera.treasury.types import (
    Account,
    AccountKind,
    Approval,
    Cap,
    CfoDecision,
    PaymentRequest,
    RefusalReason,
    Rules,
    Transfer,
    TransferKind,
    Window,
)

Refusal = tuple[RefusalReason, str]

SPLIT_WINDOW = Window.LAST_DAY
"""Over which what nobody approved is added up, for each payee and each mission."""


@dataclass
class Pending:
    """Money that is set aside: `spent` where it counts as spending, and in which sums."""

    request: PaymentRequest
    amount: int
    expires_at: int
    spent: Spent | None
    sums: tuple[Sum, ...]


@dataclass
class Totals:
    """Of one account, in billionths."""

    posted: int = 0
    pending_out: int = 0
    pending_in: int = 0


@dataclass
class Said:
    """What was said of a request: the CFO's last word, and every person's."""

    decision: CfoDecision | None = None
    approvals: dict[str, Approval] = field(default_factory=dict)


class Book:
    """What the rows so far make. `at` is never earlier than in a call before."""

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[AccountKind, str]] = {}
        self.totals: defaultdict[str, Totals] = defaultdict(Totals)
        self.requests: dict[str, PaymentRequest] = {}
        self.said: defaultdict[str, Said] = defaultdict(Said)
        self.caps: dict[tuple[str, str, Window], Cap] = {}
        self.rules: dict[str, Rules] = {}
        self.stopped = False
        self.open: dict[str, Pending] = {}
        self.moved: dict[str, Transfer] = {}
        self._sums: dict[tuple[str, str, str, Window], Sum] = {}

    def sweep(self, at: int) -> None:
        """Let go of what was set aside until now or earlier."""
        for request_id in [key for key, each in self.open.items() if 0 < each.expires_at <= at]:
            self._close(request_id, posted=0)

    # What may be written.

    def refuses_request(self, request: PaymentRequest, at: int) -> Refusal | None:
        for account in (request.debit, request.credit):
            if account not in self.kinds:
                return RefusalReason.UNKNOWN, f"there is no account {account}"
            if self.kinds[account][1] != request.currency:
                return RefusalReason.CONFLICT, f"the account {account} is not in {request.currency}"
        if request.debit == request.credit:
            return RefusalReason.CONFLICT, "an account does not pay itself"
        if request.expires_at <= at:
            return RefusalReason.EXPIRED, "the request has expired"
        return None

    def refuses_word(self, word: CfoDecision | Approval, at: int) -> Refusal | None:
        request = self.requests.get(word.request_id)
        if request is None:
            return RefusalReason.UNKNOWN, f"there is no request {word.request_id}"
        if request.digest() != word.request_digest:
            return RefusalReason.CONFLICT, "it speaks of another request: the digest differs"
        if word.request_id in self.moved:
            return RefusalReason.CONFLICT, "the request has been carried out"
        if isinstance(word, Approval):
            if word.approver == request.requester:
                return RefusalReason.FORBIDDEN, "nobody approves what they asked for"
            if word.approver in self.said[word.request_id].approvals:
                return RefusalReason.CONFLICT, f"{word.approver} has answered"
            if word.expires_at <= at:
                return RefusalReason.EXPIRED, "the approval has expired"
        elif not word.signature:
            return RefusalReason.UNSIGNED, "a decision has to be signed"
        return None

    def refuses_transfer(self, transfer: Transfer, at: int) -> Refusal | None:
        self.sweep(at)
        request = self.requests.get(transfer.request_id)
        if request is None:
            return RefusalReason.UNKNOWN, f"there is no request {transfer.request_id}"
        if transfer.kind in (TransferKind.POST, TransferKind.VOID):
            return self._refuses_end(transfer)
        if transfer.request_id in self.moved:
            return RefusalReason.CONFLICT, "the request has been carried out"
        if transfer.amount != request.amount:
            return RefusalReason.CONFLICT, f"the request is over {request.amount}, and not {transfer.amount}"
        if request.expires_at <= at:
            return RefusalReason.EXPIRED, "the request has expired"
        if transfer.kind is TransferKind.PENDING and 0 < transfer.expires_at <= at:
            return RefusalReason.EXPIRED, "it would have expired already"
        return self._unauthorised(request, at) or self._beyond(request, at)

    def _refuses_end(self, transfer: Transfer) -> Refusal | None:
        pending = self.open.get(transfer.request_id)
        if pending is None:
            ended = transfer.request_id in self.moved
            reason = RefusalReason.CONFLICT if ended else RefusalReason.UNKNOWN
            return reason, "nothing is set aside for this request"
        least, most = (1, pending.amount) if transfer.kind is TransferKind.POST else (0, 0)
        if not least <= transfer.amount <= most:
            return RefusalReason.CONFLICT, f"{transfer.amount} is not within {least} and {most}"
        return None

    def _unauthorised(self, request: PaymentRequest, at: int) -> Refusal | None:
        said = self.said[request.id]
        if said.decision is None or said.decision.verdict == "refused" or not said.decision.signature:
            return RefusalReason.UNSIGNED, "the CFO has not agreed"
        leaves_fund = self._leaves_fund(request)
        if self.stopped and leaves_fund:
            return RefusalReason.STOPPED, "all spending is stopped, until a person starts it again"
        if any(each.verdict == "refused" for each in said.approvals.values()):
            return RefusalReason.UNAPPROVED, "a person has refused it"
        approvals = self._approvals(request.id, at)
        if said.decision.verdict == "ask" and not approvals:
            return RefusalReason.UNAPPROVED, "the CFO wants a person to approve it"
        if not leaves_fund:
            return None
        rules = self.rules.get(request.currency)
        if rules is None:
            return RefusalReason.FORBIDDEN, f"there are no rules for {request.currency}"
        if request.amount > rules.dual_over and len(approvals) < 2 and not any(each.signature for each in approvals):
            return RefusalReason.UNAPPROVED, "two keys are needed: two people, or one who signs"
        if not approvals and not self._metered(request):
            beside = max((each.used(at) for each in self._small(request)), default=0)
            if beside + request.amount > rules.ask_over:
                return (
                    RefusalReason.UNAPPROVED,
                    "a person has to approve it: it is above the limit, alone or with others",
                )
        return None

    def _beyond(self, request: PaymentRequest, at: int) -> Refusal | None:
        totals = self.totals[request.debit]
        if self._leaves_fund(request) and request.amount > totals.posted - totals.pending_out:
            return RefusalReason.FUNDS, f"{request.debit} has {totals.posted - totals.pending_out}"
        if not self._is_spend(request):
            return None
        caps = [cap for cap in self.caps.values() if cap.currency == request.currency]
        if not any(cap.account == "*" for cap in caps):
            return RefusalReason.CAP, f"no caps are set for {request.currency}"
        for cap in caps:
            if cap.account in ("*", request.debit):
                used = self._sum("cap", cap.account, cap.currency, cap.window).used(at)
                if used + request.amount > cap.limit:
                    return RefusalReason.CAP, f"{used} of {cap.limit} is used ({cap.account}, {cap.window})"
        return None

    # What was written.

    def add(self, row: AnyRow, at: int) -> None:
        """A row that is in the ledger since `at`, of whatever kind."""
        match row:
            case Account():
                self.add_account(row.id, row.kind, row.currency)
            case PaymentRequest():
                self.add_request(row)
            case CfoDecision() | Approval():
                self.add_word(row)
            case Transfer():
                self.add_transfer(row, at)
            case Cap():
                self.set_cap(row)
            case Rules():
                self.rules[row.currency] = row
            case Switch():
                self.stopped = row.action == "stop"

    def add_account(self, account_id: str, kind: AccountKind, currency: str) -> None:
        self.kinds[account_id] = (kind, currency)

    def add_request(self, request: PaymentRequest) -> None:
        self.requests[request.id] = request

    def add_word(self, word: CfoDecision | Approval) -> None:
        if isinstance(word, Approval):
            self.said[word.request_id].approvals[word.approver] = word
        else:
            self.said[word.request_id].decision = word

    def add_transfer(self, transfer: Transfer, at: int) -> None:
        self.sweep(at)
        if transfer.kind in (TransferKind.POST, TransferKind.VOID):
            self._close(transfer.request_id, posted=transfer.amount)
            return
        request = self.requests[transfer.request_id]
        spent, sums = self._count(request, at)
        self.moved[request.id] = transfer
        self.open[request.id] = Pending(request, request.amount, transfer.expires_at, spent, sums)
        self.totals[request.debit].pending_out += request.amount
        self.totals[request.credit].pending_in += request.amount
        if transfer.kind is TransferKind.POSTED:
            self._close(request.id, posted=request.amount)

    def set_cap(self, cap: Cap) -> None:
        self.caps[cap.account, cap.currency, cap.window] = cap

    def used(self, cap: Cap, at: int) -> int:
        """How much of a cap is used at that moment."""
        self.sweep(at)
        return self._sum("cap", cap.account, cap.currency, cap.window).used(at)

    def _close(self, request_id: str, *, posted: int) -> None:
        pending = self.open.pop(request_id)
        freed = pending.amount - posted
        debit, credit = self.totals[pending.request.debit], self.totals[pending.request.credit]
        debit.pending_out -= pending.amount
        credit.pending_in -= pending.amount
        debit.posted -= posted
        credit.posted += posted
        if pending.spent is not None and freed:
            for each in pending.sums:
                each.release(pending.spent, freed)
            pending.spent.amount -= freed

    def _count(self, request: PaymentRequest, at: int) -> tuple[Spent | None, tuple[Sum, ...]]:
        if not self._leaves_fund(request):
            return None, ()
        spent = Spent(at, request.amount)
        sums: list[Sum] = []
        if self._is_spend(request):
            for name in ("*", request.debit):
                sums += [self._sum("cap", name, request.currency, window) for window in Window]
        if not self._approvals(request.id, at) and not self._metered(request):
            sums += self._small(request)
        for each in sums:
            each.add(spent)
        return spent, tuple(sums)

    def _small(self, request: PaymentRequest) -> Iterator[Sum]:
        """What nobody approved, of the last day: to the same payee, and for the same mission."""
        yield self._sum("payee", request.credit, request.currency, SPLIT_WINDOW)
        if request.mission:
            yield self._sum("mission", request.mission, request.currency, SPLIT_WINDOW)

    def _sum(self, kind: str, name: str, currency: str, window: Window) -> Sum:
        key = (kind, name, currency, window)
        if key not in self._sums:
            self._sums[key] = Sum(window)
        return self._sums[key]

    def _approvals(self, request_id: str, at: int) -> list[Approval]:
        given = self.said[request_id].approvals.values()
        return [each for each in given if each.verdict == "approved" and each.expires_at > at]

    def _leaves_fund(self, request: PaymentRequest) -> bool:
        return self.kinds[request.debit][0] is AccountKind.FUND

    def _is_spend(self, request: PaymentRequest) -> bool:
        return self._leaves_fund(request) and self.kinds[request.credit][0] is not AccountKind.FUND

    def _metered(self, request: PaymentRequest) -> bool:
        return self.kinds[request.credit][0] is AccountKind.METERED
