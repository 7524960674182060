"""The review queue: what agents want to do and may not without a person, and what people say of it.

Whoever is logged in is the reviewer, whatever their request says; whose word counts is for the review policy to say.
What was said is written down before it is done, with who said it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import JsonValue

from chimera.api.bodies import Page
from chimera.api.guard import Here, Needs, own
from chimera.api.idempotency import OnceRoute
from chimera.api.problems import problem
from chimera.api.queued import (
    ApproveItem,
    EditItem,
    EscalateItem,
    QueueItem,
    QueueItemWhole,
    QueueStats,
    RejectItem,
)
from chimera.api.services import Services
from chimera.core.errors import Forbidden, NotBuilt, NotThere, Overloaded
from chimera.core.hashing import digest
from chimera.review.calibrate import Calibration, calibrate
from chimera.review.outcomes import judged
from chimera.review.payloads import check_json
from chimera.review.queue import Answer, ReviewQueue
from chimera.review.types import Item, Refusal, Refused
from chimera.security.principal import Principal
from chimera.security.roles import Permission

CALIBRATION_S = 60.0
"""A calibration reads all that was ever asked; of several that are wanted, one is made at a time."""

STATUS = {Refusal.NOT_A_REVIEWER: 403, Refusal.OWN: 403, Refusal.NO_GROUP: 400}
"""Any other refusal is 409: it does not fit what the item is by now."""

KIND = {400: "input-error", 403: "forbidden", 409: "input-error"}

router = APIRouter(prefix="/api/queue", tags=["queue"], route_class=OnceRoute)

Reader = Annotated[Principal, Depends(Needs(Permission.REVIEW_READ))]
Decider = Annotated[Principal, Depends(Needs(Permission.QUEUE_DECIDE))]
ItemId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", examples=["0123456789abcdef0123456789abcdef"])]
Filter = Annotated[str | None, Query(max_length=128)]
Said = QueueItem | Response


@router.get("")
async def queue(
    here: Here,
    caller: Reader,
    mine: Annotated[bool, Query(description="Only what the caller may decide")] = False,
    kind: Filter = None,
    group: Filter = None,
    mission: Filter = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=0, le=2**53, description="`next` of the part before")] = 0,
) -> Page:
    """What waits for people, in the order in which it was asked, without the payloads."""
    found = _queue(here)
    wanted = (kind, group, mission)
    told = [
        item
        for item in sorted(await found.waiting(), key=lambda item: item.seqs[0])
        if item.seqs[0] > after
        and all(want in (None, has) for want, has in zip(wanted, _filed(item), strict=True))
        and _sees(here, caller, item)
        and (not mine or _decides(here, caller, item))
    ]
    part = [_shown(here, caller, item).model_dump(mode="json") for item in told[:limit]]
    return Page(items=part, next=str(part[-1]["seq"]) if len(told) > limit else None)


@router.get("/stats")
async def stats(here: Here, caller: Reader) -> QueueStats:
    """How much waits, since when, and of which kinds and groups."""
    found = [item for item in await _queue(here).waiting() if _sees(here, caller, item)]
    return QueueStats.of(found, now=here.clock.now())


@router.get("/calibration")
async def calibration(
    here: Here,
    caller: Reader,
    error: Annotated[float, Query(gt=0.0, lt=0.5, description="Errors wanted in what goes on untold")] = 0.05,
) -> Calibration:
    """How right the confidence was, by what people decided, and thresholds that keep errors below the wanted rate."""
    found = _queue(here)
    if caller.tenant:
        raise NotThere("there is no calibration here that is yours")
    try:
        async with asyncio.timeout(CALIBRATION_S), here.calibrating:
            known = await judged(found)
            return await asyncio.to_thread(calibrate, known, automatic_error=error, person_error=2 * error)
    except TimeoutError:
        raise Overloaded(
            f"no calibration within {CALIBRATION_S:g} s: `chimera review calibrate` has more", 60
        ) from None


@router.get("/{item_id}")
async def item(item_id: ItemId, here: Here, caller: Reader) -> QueueItemWhole:
    """All of one, ended ones too: what is proposed, why it waits, who has changed it, and what people said."""
    found = await _found(here, caller, item_id)
    return QueueItemWhole.of(found, now=here.clock.now(), decides=_decides(here, caller, found))


@router.post("/{item_id}/claim", response_model=QueueItem)
async def claim(item_id: ItemId, here: Here, caller: Decider) -> Said:
    """Take it for a while, or keep it for longer. Of several who want it one gets it; the others are told who."""
    await _decided_by(here, caller, item_id)
    return await _told(here, caller, item_id, await _queue(here).claim(item_id, caller.subject))


@router.post("/{item_id}/release", response_model=QueueItem)
async def release(item_id: ItemId, here: Here, caller: Decider) -> Said:
    """Give back what one has claimed; where one has not, nothing happens."""
    await _decided_by(here, caller, item_id)
    return await _told(here, caller, item_id, await _queue(here).release(item_id, caller.subject))


@router.post("/{item_id}/approve", response_model=QueueItem)
async def approve(item_id: ItemId, body: ApproveItem, here: Here, caller: Decider) -> Said:
    """Agree to the version that was looked at. Nobody approves what they have asked for or made."""
    found = await _decided_by(here, caller, item_id)
    _note(here, caller, found, "approve", version=body.version)
    return await _told(here, caller, item_id, await _queue(here).approve(item_id, caller.subject, body.version))


@router.post("/{item_id}/reject", response_model=QueueItem)
async def reject(item_id: ItemId, body: RejectItem, here: Here, caller: Decider) -> Said:
    """Refuse it for good, and say why."""
    found = await _decided_by(here, caller, item_id)
    _note(here, caller, found, "reject", reason=body.reason)
    return await _told(here, caller, item_id, await _queue(here).reject(item_id, caller.subject, body.reason))


@router.post("/{item_id}/edit", response_model=QueueItem)
async def edit(item_id: ItemId, body: EditItem, here: Here, caller: Decider) -> Said:
    """Change it, and agree to it as changed. Where two have to agree, the other one looks at the new version."""
    found = await _decided_by(here, caller, item_id)
    check_json(body.payload, "the edited payload")
    said_before = found.edits and found.edits[-1].by == caller.subject and found.payload == body.payload
    if body.version != found.version and not said_before:
        why = f"it has been changed: look at it again, and edit version {found.version}"
        return await _told(here, caller, item_id, Refused(reason=Refusal.CHANGED, message=why))
    _note(here, caller, found, "edit", version=body.version, payload=digest(body.payload), reason=body.reason)
    said = await _queue(here).edit(item_id, caller.subject, body.payload, body.reason)
    return await _told(here, caller, item_id, said)


@router.post("/{item_id}/escalate", response_model=QueueItem)
async def escalate(item_id: ItemId, body: EscalateItem, here: Here, caller: Decider) -> Said:
    """Pass it on to another group, which alone decides from then on."""
    found = await _decided_by(here, caller, item_id)
    _note(here, caller, found, "escalate", to=body.to, reason=body.reason)
    said = await _queue(here).escalate(item_id, caller.subject, body.to, body.reason)
    return await _told(here, caller, item_id, said)


# Who sees what, and what they are told.


def _queue(here: Services) -> ReviewQueue:
    if here.queue is None:
        raise NotBuilt("this node has no review queue")
    return here.queue


def _sees(here: Services, caller: Principal, item: Item) -> bool:
    """Who belongs to a tenant sees what its missions ask, and nothing of the node's own or of others."""
    return not caller.tenant or (bool(item.proposal.mission) and own(here, caller, item.proposal.mission))


async def _found(here: Services, caller: Principal, item_id: str) -> Item:
    """Raises NotThere, in the same words for what there is and is not the caller's to see."""
    try:
        found = await _queue(here).item(item_id)
    except NotThere:
        found = None
    if found is None or not _sees(here, caller, found):
        raise NotThere(f"no item {item_id} is in the review queue")
    return found


async def _decided_by(here: Services, caller: Principal, item_id: str) -> Item:
    """The item, if the caller is among those who decide on it. Raises NotThere, Forbidden."""
    found = await _found(here, caller, item_id)
    if caller.kind == "agent":
        raise Forbidden("people decide here, and no agent")
    if not _queue(here).policy.decides(caller.subject, found.group):
        of = f" of {found.group}" if found.group else ""
        raise Forbidden(f"{caller.subject} is no reviewer{of}: the review policy says who is")
    return found


def _decides(here: Services, caller: Principal, item: Item) -> bool:
    own_names = {name.casefold() for name in (item.proposal.asker, *item.proposal.agents)}
    return (
        not item.state.ended
        and caller.kind != "agent"
        and caller.may(Permission.QUEUE_DECIDE)
        and _queue(here).policy.decides(caller.subject, item.group)
        and caller.subject.casefold() not in own_names
    )


def _filed(item: Item) -> tuple[str, str, str]:
    return item.proposal.kind, item.group, item.proposal.mission


def _shown(here: Services, caller: Principal, item: Item) -> QueueItem:
    return QueueItem.of(item, now=here.clock.now(), decides=_decides(here, caller, item))


def _note(here: Services, caller: Principal, item: Item, what: str, **detail: JsonValue) -> None:
    about = {"kind": item.proposal.kind, "summary": item.proposal.summary[:200], "key": caller.token_id}
    here.note(caller.subject, f"{what} item", item.id, "asked", **about, **detail)


async def _told(here: Services, caller: Principal, item_id: str, said: Answer) -> Said:
    """The item as it is now, or a problem with the `reason` of the refusal, and who holds the item."""
    if isinstance(said, Item):
        return _shown(here, caller, said)
    status = STATUS.get(said.reason, 409)
    holder = _shown(here, caller, await _queue(here).item(item_id)).holder
    more = {} if holder is None else {"holder": holder.model_dump()}
    return problem(status, KIND[status], said.message, reason=said.reason.value, **more)
