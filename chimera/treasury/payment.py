"""A payment, as people see it: a request, what was said of it, what was moved, and so what state it is in (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from chimera.core.types import Frozen
from chimera.treasury.types import (
    Approval,
    CfoDecision,
    PaymentRequest,
    Transfer,
    TransferKind,
)


class PaymentState(StrEnum):
    """`filed`: the CFO has not looked at it; `waiting`: for a person; `agreed`: it is about to be carried out;
    `reserved`: the money is set aside. Ends: `paid`, `void` (set aside, and let go), `refused`, `expired`.
    """

    FILED = "filed"
    WAITING = "waiting"
    AGREED = "agreed"
    RESERVED = "reserved"
    PAID = "paid"
    VOID = "void"
    REFUSED = "refused"
    EXPIRED = "expired"


ENDS = frozenset({PaymentState.PAID, PaymentState.VOID, PaymentState.REFUSED, PaymentState.EXPIRED})


class Payment(Frozen):
    """`moved` is what was paid, in billionths; `why` is a line for people."""

    request: PaymentRequest
    state: PaymentState
    decision: CfoDecision | None = None
    approvals: tuple[Approval, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    moved: int = 0
    why: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDS


def entry_id(request_id: str, what: str) -> str:
    """The id of a request's own transfer: whoever makes it, twice or after a crash, makes the same."""
    return f"{what}/{hashlib.sha256(request_id.encode()).hexdigest()[:40]}"


def on_rail(account_id: str) -> bool:
    """Whether this account is an address on a blockchain: then a transfer is posted only when it was seen there."""
    return account_id.startswith("evm:")


def payment(
    request: PaymentRequest,
    words: Sequence[CfoDecision | Approval],
    transfers: Sequence[Transfer],
    *,
    at: int,
) -> Payment:
    """What has become of a request by the moment `at`; `words` and `transfers` are all of it, the first first."""
    decision = next((word for word in reversed(words) if isinstance(word, CfoDecision)), None)
    approvals = tuple(word for word in words if isinstance(word, Approval))
    state, moved, why = _state(request, decision, approvals, transfers, at)
    return Payment(
        request=request,
        state=state,
        decision=decision,
        approvals=approvals,
        transfers=tuple(transfers),
        moved=moved,
        why=why,
    )


def _state(
    request: PaymentRequest,
    decision: CfoDecision | None,
    approvals: Sequence[Approval],
    transfers: Sequence[Transfer],
    at: int,
) -> tuple[PaymentState, int, str]:
    if transfers:
        return _moved(transfers, at)
    if decision is not None and decision.verdict == "refused":
        return PaymentState.REFUSED, 0, f"the CFO has refused it: {_reasons(decision)}"
    for word in approvals:
        if word.verdict == "refused":
            return PaymentState.REFUSED, 0, f"{word.approver} has refused it"
    if request.expires_at <= at:
        return PaymentState.EXPIRED, 0, "it has expired: file it again under another id"
    if decision is None:
        return PaymentState.FILED, 0, "the CFO has not looked at it yet"
    if decision.verdict == "ask":
        good = [word for word in approvals if word.expires_at > at]
        said = f"approved by {', '.join(word.approver for word in good)}; " if good else ""
        return PaymentState.WAITING, 0, f"{said}a person has to approve it: {_reasons(decision)}"
    return PaymentState.AGREED, 0, "the CFO has agreed"


def _moved(transfers: Sequence[Transfer], at: int) -> tuple[PaymentState, int, str]:
    last = transfers[-1]
    match last.kind:
        case TransferKind.POSTED | TransferKind.POST:
            return PaymentState.PAID, last.amount, "it is paid"
        case TransferKind.VOID:
            return PaymentState.VOID, 0, "it was set aside, and let go"
        case _ if 0 < last.expires_at <= at:
            return PaymentState.VOID, 0, "it was set aside, and nobody carried it out in time"
        case _:
            return PaymentState.RESERVED, 0, "the money is set aside"


def _reasons(decision: CfoDecision) -> str:
    """The heaviest reasons first."""
    told = sorted(decision.factors, key=lambda each: -each.value * each.weight)
    return "; ".join(each.why or each.name for each in told[:3]) or f"risk {decision.risk:.2f}"
