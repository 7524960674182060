"""Duels that were held on this machine: what came of each, and how its interval narrowed."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from chimera.api.bodies import Page
from chimera.api.guard import Guarded, Here, Needs
from chimera.api.services import Services
from chimera.core.errors import NotBuilt
from chimera.security.principal import Principal
from chimera.security.roles import Permission
from chimera.system.duels import ENV_ID, ID, DuelRecord, Duels

router = APIRouter(prefix="/api/arena", tags=["arena"], route_class=Guarded)

Reader = Annotated[Principal, Depends(Needs(Permission.ARENA_READ))]


class DuelPage(Page):
    """`damaged` are the ids of records that cannot be read, and were skipped on the way."""

    damaged: list[str] = Field(default_factory=list)


class DuelCourse(DuelRecord):
    """`share` is the contender's of the decisive samples; `samples` are all, ties among them."""

    samples: int
    share: float | None


@router.get("/duels")
async def duels(
    here: Here,
    caller: Reader,
    env: Annotated[str, Query(pattern=ENV_ID, description="only of this environment")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str, Query(pattern=ID, description="`next` of the part before")] = "",
) -> DuelPage:
    """Duels on record, the one that began last first, without their courses."""
    part = await asyncio.to_thread(kept(here).part, limit, after=after or None, env_id=env or None)
    items = [_told(each, but={"course"}) for each in part.found]
    return DuelPage(items=items, next=part.found[-1].id if part.more else None, damaged=list(part.damaged))


@router.get("/duels/{duel_id}")
async def duel(
    duel_id: Annotated[str, Path(pattern=ID, examples=["1767225600000-0a1b2c00"])], here: Here, caller: Reader
) -> DuelCourse:
    """One duel: its rule, the ratio to beat, and its course, which is how it stood as its samples came."""
    return DuelCourse(**_told(await asyncio.to_thread(kept(here).get, duel_id)))


def kept(here: Services) -> Duels:
    """Raises NotBuilt where the node has no record of duels."""
    if here.duels is None:
        raise NotBuilt("this node keeps no record of duels")
    return here.duels


def _told(record: DuelRecord, but: set[str] | None = None) -> dict[str, Any]:
    decisive = record.wins + record.losses
    return {
        **record.model_dump(mode="json", exclude=but),
        "samples": decisive + record.ties,
        "share": record.wins / decisive if decisive else None,
    }
