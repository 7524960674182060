"""What this installation publishes and how it does: figures and items, to look at. Nothing is changed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Depends, Query

from chimera.api.bodies import Page
from chimera.api.guard import Guarded, Here, Needs
from chimera.api.services import Services
from chimera.core.errors import NotBuilt, NotThere, Overloaded
from chimera.core.types import Frozen
from chimera.security.principal import Principal
from chimera.security.roles import Permission
from chimera.system.content_parts import Places
from chimera.system.content_report import ContentReport, Standing, report, standings

T = TypeVar("T")

ANSWER_S: Final = 30.0
"""Figures are made of every item there ever was; of several that are asked for, one at a time."""

MAX_WORDS: Final = 500

router = APIRouter(prefix="/api/content", tags=["content"], route_class=Guarded)

Reader = Annotated[Principal, Depends(Needs(Permission.CONTENT_READ))]
Campaign = Annotated[str, Query(max_length=128, description="Of that campaign alone")]


class ContentItem(Frozen):
    """One thing to say, where it stands and why. Times are seconds since the epoch, 0 is never.

    `words` is how it begins, or its topic while nothing is written. `person`: somebody had to decide on it, and
    `changed` says that they edited or refused it. `references` are what the platform calls its parts.
    """

    id: str
    campaign: str
    account: str
    kind: str
    state: str
    reason: str
    words: str
    confidence: float
    cost_usd: float
    person: bool
    changed: bool
    made_s: float
    due_s: float
    sent_s: float
    references: tuple[str, ...]

    @classmethod
    def of(cls, found: Standing) -> ContentItem:
        piece, entry = found.piece, found.entry
        topic = piece.brief.topic if piece.brief else ""
        words = piece.post.parts[0] if piece.post and piece.post.parts else topic
        return cls(
            **piece.model_dump(include=set(cls.model_fields) - {"words", "state", "due_s", "sent_s", "references"}),
            state=found.state,
            words=words[:MAX_WORDS],
            due_s=entry.due_s if entry else 0.0,
            sent_s=entry.sent_s if entry else 0.0,
            references=entry.references if entry else (),
        )


@router.get("/report")
async def figures(here: Here, caller: Reader, campaign: Campaign = "") -> ContentReport:
    """How it does, each figure with its 95 % interval: needed no person, interventions, errors, cost and more."""
    return await _read(here, caller, lambda home: report(home, campaign=campaign, clock=here.clock))


@router.get("/items")
async def items(
    here: Here,
    caller: Reader,
    campaign: Campaign = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=0, le=10_000, description="`next` of the part before")] = 0,
) -> Page:
    """What was made, the newest first: where each item stands, what it cost, and what a person said of it."""
    most = after + limit + 1
    found = await _read(here, caller, lambda home: standings(home, campaign=campaign, limit=most, clock=here.clock))
    part = [ContentItem.of(each).model_dump(mode="json") for each in found[after : after + limit]]
    return Page(items=part, next=str(after + limit) if len(found) > after + limit else None)


async def _read(here: Services, caller: Principal, read: Callable[[Path], T]) -> T:
    """Raises NotThere for who belongs to a tenant: the accounts are the node's own; NotBuilt, Overloaded."""
    if caller.tenant:
        raise NotThere("there is no content here that is yours")
    home = here.content
    if home is None or not await asyncio.to_thread(Places(home=home).record.exists):
        raise NotBuilt("nothing was made here yet: `chimera content run` makes something")
    try:
        async with asyncio.timeout(ANSWER_S), here.reporting:
            return await asyncio.to_thread(read, home)
    except TimeoutError:
        raise Overloaded(f"no answer within {ANSWER_S:g} s", retry_after_s=ANSWER_S) from None
