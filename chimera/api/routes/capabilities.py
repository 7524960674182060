"""Capabilities for agents and tools: issued out of what the caller may do, and revoked."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from chimera.api.bodies import MadeCapability, NewCapability
from chimera.api.guard import Here, Needs
from chimera.api.idempotency import SecretRoute
from chimera.security.capabilities import contents
from chimera.security.principal import Principal
from chimera.security.roles import Permission

router = APIRouter(prefix="/api/capabilities", tags=["capabilities"], route_class=SecretRoute)

Issuer = Annotated[Principal, Depends(Needs(Permission.CAPABILITY_ISSUE))]
Revoker = Annotated[Principal, Depends(Needs(Permission.CAPABILITY_REVOKE))]


@router.post("", status_code=201)
async def issue(body: NewCapability, here: Here, caller: Issuer) -> MadeCapability:
    """Issue a capability. Its token is in this answer and nowhere else; whoever holds it narrows it without asking."""
    token = await asyncio.to_thread(
        here.security.issue_capability,
        caller,
        body.operations,
        body.resource,
        ttl_s=body.ttl_s,
        subject=body.holder or "",
        caveats=body.caveats.made(),
    )
    said = contents(token)
    return MadeCapability(token=token.text, id=said.revocation_ids[0], expires_at=said.expires_at)


@router.delete("/{revocation_id}", status_code=204)
async def revoke(
    revocation_id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", examples=["0123456789abcdef0123456789abcdef"])],
    here: Here,
    caller: Revoker,
) -> Response:
    """End a capability that one has issued, and all that is derived from it, everywhere within a second.

    With `capability:any` anybody's, and one that was narrowed, by the id of any of its blocks.
    """
    await here.security.revoke_capability(revocation_id, by=caller)
    return Response(status_code=204)
