"""What waits for a person: patches that a node which mends itself will not apply unless somebody agrees.

An approval runs code on the node. It is written down before it is left for the node, with who gave it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from chimera.api.bodies import Page
from chimera.api.guard import Here, Needs
from chimera.api.idempotency import OnceRoute
from chimera.api.services import Services
from chimera.core.errors import NotBuilt, NotThere
from chimera.security.principal import Principal
from chimera.security.roles import Permission
from chimera.system.reviews import Answer, Review, Reviews, Waiting

router = APIRouter(prefix="/api/reviews", tags=["reviews"], route_class=OnceRoute)

Reader = Annotated[Principal, Depends(Needs(Permission.REVIEW_READ))]
Decider = Annotated[Principal, Depends(Needs(Permission.REVIEW_DECIDE))]
ReviewId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", examples=["0123456789abcdef0123456789abcdef"])]


@router.get("")
async def reviews(
    here: Here,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=0, le=10_000, description="`next` of the part before")] = 0,
) -> Page:
    """What waits for a person, the longest first. With `answer`, the node has yet to take it up."""
    queue = _queue(here)
    found = [] if caller.tenant else await asyncio.to_thread(queue.waiting)
    part = [each.model_dump(mode="json") for each in found[after : after + limit]]
    return Page(items=part, next=str(after + limit) if len(found) > after + limit else None)


@router.get("/{review_id}")
async def review(review_id: ReviewId, here: Here, caller: Reader) -> Review:
    """All of one: what went wrong, the diff of each file, what the tests said, and how far it is to be trusted."""
    return await asyncio.to_thread(_of_the_node(here, caller, review_id).read, review_id)


@router.post("/{review_id}/approve", status_code=202)
async def approve(review_id: ReviewId, here: Here, caller: Decider) -> Waiting:
    """Let the node apply a patch. It is watched as any other, and undone if it does not help."""
    return await _answered(here, caller, review_id, "approve")


@router.post("/{review_id}/refuse", status_code=202)
async def refuse(review_id: ReviewId, here: Here, caller: Decider) -> Waiting:
    """Have the node forget a patch, and remember that it was refused."""
    return await _answered(here, caller, review_id, "refuse")


async def _answered(here: Services, caller: Principal, review_id: str, answer: Answer) -> Waiting:
    queue = _of_the_node(here, caller, review_id)
    found = await asyncio.to_thread(queue.read, review_id)
    here.note(
        caller.subject,
        f"{answer} {found.kind}",
        review_id,
        "asked",
        module=found.module,
        files=list(found.files),
        summary=found.summary[:200],
        confidence=found.confidence,
        key=caller.token_id,
    )
    return await asyncio.to_thread(queue.answer, review_id, answer)


def _of_the_node(here: Services, caller: Principal, review_id: str) -> Reviews:
    """Raises NotBuilt, and NotThere for who belongs to a tenant: the node's own code is none of theirs."""
    queue = _queue(here)
    if caller.tenant:
        raise NotThere(f"no review {review_id} waits: it has been answered, or there never was one")
    return queue


def _queue(here: Services) -> Reviews:
    if here.reviews is None:
        raise NotBuilt("this node has nothing that waits for a person")
    return here.reviews
