"""The treasury: what there is, what was asked for, what waits for a person, and the switch that stops all spending.

Whoever asks is the requester or the approver, whatever their request says; what may be paid, and whose word counts, is
decided by the vault and its ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response
from pydantic import JsonValue, ValidationError

from chimera.api.bodies import NewPayment, Page, PaymentAnswer, StopSpending
from chimera.api.guard import Here, Needs
from chimera.api.idempotency import HEADER, OnceRoute
from chimera.api.money import (
    AccountShown,
    CapShown,
    EntryShown,
    PaymentShown,
    Spending,
    TreasuryStatus,
    in_units,
)
from chimera.api.services import Services
from chimera.core.errors import Forbidden, InputError, LedgerUnavailable, NotBuilt, NotThere
from chimera.security.principal import Principal
from chimera.security.roles import Permission
from chimera.system.treasury import APPROVAL_S, Treasury
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.payment import PaymentState
from chimera.treasury.statement_lines import csv_head, csv_line
from chimera.treasury.types import Approval, PaymentRequest, RefusalReason, Refused, shown

ANSWER_S = 6.0
"""A treasury that has not answered by then is out of reach for now."""
DECIDED_S = 3.0
"""How long a payment is waited for; what is not decided by then is told as it is."""
SETTLED_S = 1.0
"""How long what an answer leads to is waited for."""
STATEMENT_S = 60.0
"""A statement is made of all rows of the ledger, from the first on; of several that are asked for, one at a time."""

router = APIRouter(prefix="/api/treasury", tags=["treasury"], route_class=OnceRoute)

Reader = Annotated[Principal, Depends(Needs(Permission.TREASURY_READ))]
Payer = Annotated[Principal, Depends(Needs(Permission.TREASURY_PAY))]
Approver = Annotated[Principal, Depends(Needs(Permission.TREASURY_APPROVE))]
Stopper = Annotated[Principal, Depends(Needs(Permission.TREASURY_STOP))]
RequestId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-:/]{0,95}$", examples=["pay-0123456789abcdef"])]
Month = Annotated[str, Path(pattern=r"^[0-9]{4}-[0-9]{2}$", examples=["2026-11"])]


@router.get("")
async def treasury(here: Here, caller: Reader) -> TreasuryStatus:
    """Whether anything is spent, the caps and how much of them is used, and up to 500 accounts, our funds first."""
    async with _reached(here, caller) as found:
        return TreasuryStatus(
            stopped=await found.stopped(),
            caps=[CapShown.of(use) for use in await found.caps()],
            accounts=[AccountShown.of(view) for view in await found.accounts()],
        )


@router.get("/payments")
async def payments(
    here: Here,
    caller: Reader,
    state: Annotated[PaymentState | None, Query(description="Only those, as `waiting` for a person")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=0, le=100_000, description="`next` of the part before")] = 0,
) -> Page:
    """Payments that have not come to an end, in the order in which they were asked for."""
    async with _reached(here, caller) as found:
        told = [each for each in await found.in_hand() if state in (None, each.state)]
    part = [PaymentShown.of(each).model_dump(mode="json") for each in told[after : after + limit]]
    return Page(items=part, next=str(after + limit) if len(told) > after + limit else None)


@router.get("/payments/{request_id:path}")
async def payment(request_id: RequestId, here: Here, caller: Reader) -> PaymentShown:
    """What has become of a payment."""
    async with _reached(here, caller) as found:
        return PaymentShown.of(await found.payment(request_id))


@router.post("/payments", status_code=201)
async def pay(body: NewPayment, request: Request, here: Here, caller: Payer) -> PaymentShown:
    """Ask for a payment, and wait a moment for what the CFO says. `waiting`: a person has to approve it."""
    request_id = body.request_id or _id_of(caller, request.headers.get(HEADER))
    async with _reached(here, caller) as found:
        try:
            async with asyncio.timeout(DECIDED_S):
                paid = await found.pay(
                    **body.model_dump(exclude={"request_id"}), request_id=request_id, requester=caller.subject
                )
        except TimeoutError:
            try:
                paid = await found.payment(request_id)
            except NotThere:
                raise LedgerUnavailable(f"{request_id} is not filed yet") from None
    return PaymentShown.of(paid)


@router.post("/payments/{request_id:path}/approve")
async def approve(request_id: RequestId, body: PaymentAnswer, here: Here, caller: Approver) -> PaymentShown:
    """Approve a payment that somebody else has asked for, and wait a moment for what comes of it."""
    return await _answered(here, caller, request_id, body, "approved")


@router.post("/payments/{request_id:path}/refuse")
async def refuse(request_id: RequestId, body: PaymentAnswer, here: Here, caller: Approver) -> PaymentShown:
    """Refuse a payment: it is not made, whoever approves it."""
    return await _answered(here, caller, request_id, body, "refused")


@router.post("/stop")
async def stop(body: StopSpending, here: Here, caller: Stopper) -> Spending:
    """Nothing is spent from now on, until somebody who may approve starts it again."""
    async with _reached(here, caller) as found:
        here.note(caller.subject, "stop spending", "treasury", "asked", why=body.why, key=caller.token_id)
        await found.stop(body.why, caller.subject)
        return Spending(stopped=await found.stopped())


@router.post("/resume")
async def resume(here: Here, caller: Approver) -> Spending:
    """Have payments made again."""
    async with _reached(here, caller) as found:
        if await found.stopped() is not None:
            here.note(caller.subject, "resume spending", "treasury", "asked", key=caller.token_id)
            async with _let_approve():
                await found.resume(caller.subject)
        return Spending(stopped=await found.stopped())


@router.get("/entries")
async def entries(here: Here, caller: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> Page:
    """The last rows of the ledger, the newest first."""
    async with _reached(here, caller) as found:
        told = await found.recent(limit)
    return Page(items=[EntryShown.of(each).model_dump(mode="json") for each in told])


@router.get(
    "/statement/{month}",
    response_model=dict[str, JsonValue],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def statement(
    month: Month, here: Here, caller: Reader, accept: Annotated[str, Header(include_in_schema=False)] = ""
) -> Any:
    """A month of the ledger, UTC. With `Accept: text/csv` its transfers, a line each, instead of its sums."""
    async with _reached(here, caller, STATEMENT_S) as found, here.statements:
        made = await found.statement(month)
    if "text/csv" in accept:
        lines = await asyncio.to_thread(lambda: csv_head() + "".join(map(csv_line, made.transfers)))
        name = f'attachment; filename="treasury-{month}.csv"'
        return Response(lines, media_type="text/csv", headers={"Content-Disposition": name})
    return in_units(made.model_dump(mode="json", exclude={"transfers"}))


# How the treasury is asked.


async def _answered(
    here: Services, caller: Principal, request_id: str, body: PaymentAnswer, verdict: Literal["approved", "refused"]
) -> PaymentShown:
    """The same answer again is fine; it is in the audit log before it is in the ledger."""
    async with _reached(here, caller) as treasury:
        found = await treasury.payment(request_id)
        if any(word.approver == caller.subject and word.verdict == verdict for word in found.approvals):
            return PaymentShown.of(found)
        if found.ended:
            raise InputError(f"{request_id} has come to an end: {found.why}")
        word = _word(found.request, caller.subject, body, verdict, at=int(here.clock.now() * 1_000_000))
        here.note(
            caller.subject,
            "approve payment" if verdict == "approved" else "refuse payment",
            request_id,
            "asked",
            amount=shown(found.request.amount, found.request.currency),
            payee=found.request.credit,
            requester=found.request.requester,
            digest=word.request_digest,
            signed_with=word.key_id if word.signature else "",
            key=caller.token_id,
        )
        async with _let_approve():
            [outcome] = await treasury.ledger(LedgerRole.APPROVER).write([word])
        if isinstance(outcome, Refused):
            unfit = outcome.reason in (RefusalReason.FORBIDDEN, RefusalReason.UNSIGNED)
            raise (Forbidden if unfit else InputError)(f"{request_id}: {outcome.detail}")
        return PaymentShown.of(await treasury.settled(request_id, SETTLED_S))


def _word(
    request: PaymentRequest, approver: str, body: PaymentAnswer, verdict: Literal["approved", "refused"], *, at: int
) -> Approval:
    """As the approver has signed it, or as they say it now. Raises InputError for a name that no ledger holds."""
    told = body.model_dump(exclude_none=True) or {"at": at, "expires_at": at + int(APPROVAL_S * 1_000_000)}
    try:
        return Approval(
            request_id=request.id, request_digest=request.digest(), approver=approver, verdict=verdict, **told
        )
    except ValidationError:
        raise InputError(f"{approver!r:.140} cannot approve: take a name of letters, digits and . _ - : /") from None


@asynccontextmanager
async def _reached(here: Services, caller: Principal, within_s: float = ANSWER_S) -> AsyncIterator[Treasury]:
    """The node's treasury, to be asked `within_s`.

    Raises NotThere for who belongs to a tenant: the node's own money is none of theirs; NotBuilt, LedgerUnavailable.
    """
    if caller.tenant:
        raise NotThere("there is no treasury here that is yours")
    found = here.treasury
    if found is None or not await asyncio.to_thread(found.place.config.is_file):
        raise NotBuilt("this node has no treasury")
    try:
        async with asyncio.timeout(within_s):
            yield found
    except TimeoutError:
        raise LedgerUnavailable(f"no answer within {within_s:g} s") from None


@asynccontextmanager
async def _let_approve() -> AsyncIterator[None]:
    """The vault may keep approvals to another user of the machine than the one that the node runs as."""
    try:
        yield
    except Forbidden:
        raise NotBuilt("nothing is approved over this node: its user may not, as the treasury's settings say") from None


def _id_of(caller: Principal, key: str | None) -> str:
    """A payment's own id. Of an Idempotency-Key, always the same: whoever asks again after a fault pays once."""
    if key is None:
        return f"pay-{secrets.token_hex(8)}"
    who = f"key:{caller.token_id}" if caller.kind == "api_key" else f"{caller.kind}:{caller.subject}"
    return "pay-" + hashlib.sha256("\n".join((who, key)).encode()).hexdigest()[:32]
