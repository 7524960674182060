"""Money as the ledger knows it: accounts, requests, decisions, approvals, transfers, and what came of them.

Amounts are integers, in billionths of a unit of their currency (`NANO`): a call of a model costs less than a cent.
Times are whole microseconds since the epoch, UTC: what is hashed and signed has one spelling.
"""

from __future__ import annotations

import hashlib
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from chimera.core.errors import InputError
from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen, Share

NANO = 1_000_000_000
"""Of these make one unit of a currency."""

MAX_AMOUNT = 10**18
"""A billion units: sums of them stay within 64 bits, as the database checks."""

DAY_US = 86_400_000_000

Amount = Annotated[int, Field(strict=True, gt=0, le=MAX_AMOUNT)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3,8}$")]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-:/]{0,95}$")]
"""A name that is safe in SQL, in a file, on a line of its own, and in what is signed."""
Micros = Annotated[int, Field(strict=True, ge=0, le=2**53)]
"""Microseconds since the epoch, UTC."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(max_length=1_000, pattern=r"^[^\x00-\x1f\x7f\u2028\u2029]*$")]
"""Text of one line, for people."""
Signature = Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")]
"""Ed25519 (RFC 8032), in hex; empty where nothing was signed."""


class AccountKind(StrEnum):
    """`fund`: money that is ours, and never below zero; a mission's budget is one. `outside`: everybody else.

    `metered` are those outside who are paid by use, as a model's provider: what a mission may spend on them is decided
    when its fund is filled, and not at each call. Only the owner of the ledger says who is one.
    """

    FUND = "fund"
    OUTSIDE = "outside"
    METERED = "metered"


class Account(Frozen):
    """Where money lies. It never changes, and is never removed."""

    id: Id
    kind: AccountKind
    currency: Currency = "USD"
    title: Line = ""


class PaymentRequest(Frozen):
    """What somebody wants to be moved. From a fund to the outside it is a spend, and counts towards the caps.

    Sent again with the same `id` it is the same request; with other fields it is refused.
    """

    id: Id
    debit: Id
    credit: Id
    amount: Amount
    currency: Currency = "USD"
    category: Id
    requester: Id
    mission: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-:/\[\]]{0,128}$")] = ""
    reason: Line = ""
    expires_at: Micros

    def digest(self) -> str:
        """SHA-256, in hex, of its canonical JSON: what decisions and approvals speak of."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


class Factor(Frozen):
    """One reason for a risk: its `name`, its `weight` in the score, what it was at, and a line for people."""

    name: Id
    value: Share
    weight: Share
    why: Line = ""


class Signed(Frozen):
    """What somebody says of a request, under their key. `signature` is over `payload()`."""

    request_id: Id
    request_digest: Digest
    at: Micros
    key_id: Id = "none"
    signature: Signature = ""

    def payload(self) -> bytes:
        """What is signed: all but the signature, in canonical JSON, with what kind of thing it is."""
        told: dict[str, JsonValue] = self.model_dump(mode="json", exclude={"signature"})
        return canonical_json({"chimera": type(self).__name__, **told}).encode()


class CfoDecision(Signed):
    """The CFO's word. Without `approved` and a valid signature nothing moves. `ask`: a person has to approve first."""

    verdict: Literal["approved", "ask", "refused"]
    risk: Share
    factors: Annotated[tuple[Factor, ...], Field(max_length=32)] = ()


class Approval(Signed):
    """A person's word. It holds until `expires_at`."""

    approver: Id
    verdict: Literal["approved", "refused"]
    expires_at: Micros


class TransferKind(StrEnum):
    """`pending` sets money aside, `post` moves (some of) it, `void` lets it go; `posted` moves it at once."""

    PENDING = "pending"
    POSTED = "posted"
    POST = "post"
    VOID = "void"


class Transfer(Frozen):
    """One entry: from the debit to the credit account of its request. `id` is its idempotency key.

    A `pending` or `posted` one is all of its request, and the only one. `post` and `void` name the `pending` one; what
    is not posted of it is free again. A pending one that is neither until `expires_at` counts as void from then on.
    """

    id: Id
    kind: TransferKind
    request_id: Id
    amount: Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]
    expires_at: Micros = 0


class RefusalReason(StrEnum):
    """Why something is not in the ledger."""

    CAP = "cap"
    FUNDS = "funds"
    UNSIGNED = "unsigned"
    UNAPPROVED = "unapproved"
    EXPIRED = "expired"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"
    STOPPED = "stopped"
    FORBIDDEN = "forbidden"


class Written(Frozen):
    """It is in the ledger, durably, as row `seq`. `again`: it was there already, the same."""

    id: str
    seq: int
    hash: Digest
    again: bool = False


class Refused(Frozen):
    """It is not in the ledger, and why."""

    id: str
    reason: RefusalReason
    detail: str


Outcome = Written | Refused


class Balance(Frozen):
    """Of an account: what was moved in less what was moved out; what is set aside to go out, and to come in."""

    account: str
    posted: int
    pending_out: int
    pending_in: int

    @property
    def available(self) -> int:
        """What may still be set aside or moved out."""
        return self.posted - self.pending_out


class Window(StrEnum):
    """Over what a cap sums: the last 24 hours, 7 or 30 days; or a day, an ISO week or a month of UTC's calendar."""

    LAST_DAY = "last_day"
    LAST_WEEK = "last_week"
    LAST_MONTH = "last_month"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Cap(Frozen):
    """The most that may be spent in a window, pending included. `account` "*" is all funds of the currency."""

    account: Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.\-:/]{0,95})$")] = "*"
    currency: Currency = "USD"
    window: Window
    limit: Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]


class CapUse(Frozen):
    """A cap, and how much of it is used at this moment."""

    cap: Cap
    used: int


class Rules(Frozen):
    """What holds for every spend: above `ask_over` a person approves, above `dual_over` two keys do."""

    currency: Currency = "USD"
    ask_over: int = 50 * NANO
    dual_over: int = 500 * NANO


DEFAULT_CAPS = tuple(
    Cap(window=window, limit=dollars * NANO)
    for window, dollars in ((Window.LAST_DAY, 1_000), (Window.LAST_WEEK, 5_000), (Window.LAST_MONTH, 20_000))
)


def nano(amount: str | int | Decimal) -> int:
    """Billionths, of an amount in whole units: "12.50" is 12_500_000_000. Raises InputError for what is no such."""
    try:
        with localcontext(Context(prec=28, traps=[Inexact, InvalidOperation, Overflow])):
            exact = Decimal(amount) * NANO
            if isinstance(amount, float) or exact != exact.to_integral_value() or abs(exact) > MAX_AMOUNT:
                raise InvalidOperation
    except (ArithmeticError, TypeError, ValueError):
        raise InputError(
            f"{amount!r:.60} is no amount: write 12.50, below a billion, with at most nine digits after the point"
        ) from None
    return int(exact)


def shown(amount: int, currency: str = "USD") -> str:
    """An amount for people: `12.50 USD`, with as many digits as it has and at least two."""
    whole, part = divmod(abs(amount), NANO)
    digits = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole:,}.{digits} {currency}"
