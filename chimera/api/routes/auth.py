"""Logging in, tokens and API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from chimera.api.bodies import Login, MadeKey, NewKey, Page, Refresh, Token, Tokens, Who
from chimera.api.guard import LOGIN, PUBLIC, Guarded, Here, Needs
from chimera.api.idempotency import SecretRoute
from chimera.api.services import Services
from chimera.core.errors import Forbidden
from chimera.security.api_keys import MAX_RATE
from chimera.security.manager import TokenPair
from chimera.security.principal import Principal
from chimera.security.roles import Permission

router = APIRouter(prefix="/api", tags=["identity"], route_class=Guarded)
jwks = APIRouter(tags=["identity"], route_class=Guarded)
keys = APIRouter(prefix="/api/keys", tags=["API keys"], route_class=SecretRoute)

USUAL_RATE = 50
"""Requests a second of a key, unless another rate is asked for."""


@router.post("/auth/login", dependencies=[Depends(LOGIN)])
async def login(body: Login, here: Here) -> Tokens:
    """Tokens for a user's password. A wrong name, a wrong password and a locked user are answered alike."""
    pair = await here.security.authenticate(body.user, body.password, new_password=body.new_password)
    return _tokens(pair)


@router.post("/auth/token/verify", dependencies=[Depends(PUBLIC)])
async def verify(body: Token, here: Here) -> Who:
    """Whom a token stands for, and what they may do."""
    return who(here.security.verify(body.token))


@router.post("/auth/refresh", dependencies=[Depends(PUBLIC)])
async def refresh(body: Refresh, here: Here) -> Tokens:
    """New tokens for a refresh token, which is used up. One that is used twice ends all that came of it."""
    return _tokens(await here.security.refresh(body.refresh_token))


@router.post("/auth/logout", status_code=204, dependencies=[Depends(PUBLIC)])
async def log_out(body: Token, here: Here) -> Response:
    """End the session that a token is of, an access or a refresh token: all of its tokens, everywhere and at once.

    An API key has no session; it is revoked.
    """
    await here.security.log_out(body.token)
    return Response(status_code=204)


@keys.post("/create", status_code=201)
async def create_key(
    body: NewKey, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.KEYS_CREATE))]
) -> MadeKey:
    """Make an API key. Its secret is in this answer and nowhere else."""
    most = _most_a_second(here, caller)
    if body.rate_limit is not None and body.rate_limit > most:
        raise Forbidden(f"a key of yours may ask {most} times a second at most: ask an administrator for more")
    secret, key = await here.security.create_api_key(
        body.user or caller.subject,
        body.role,
        body.rate_limit or min(USUAL_RATE, most),
        scopes=body.scopes,
        lifetime_s=body.expires_in_s,
        label=body.label,
        by=caller,
    )
    return MadeKey(secret=secret, id=key.id)


@keys.get("")
async def list_keys(
    here: Here,
    caller: Annotated[Principal, Depends(Needs(Permission.KEYS_READ))],
    user: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    after: Annotated[str, Query(max_length=128)] = "",
) -> Page:
    """One's own keys; an admin's list has everybody's. Secrets are not in it."""
    found = here.security.list_keys(caller, user_id=user, after=after, limit=limit + 1)
    items = [key.model_dump(mode="json") for key in found[:limit]]
    return Page(items=items, next=found[limit - 1].id if len(found) > limit else None)


@keys.delete("/{key_id}", status_code=204)
async def revoke_key(
    key_id: Annotated[str, Path(pattern=r"^[a-z0-9]{1,64}$", examples=["aaaaaaaaaaaaaaaa"])],
    here: Here,
    caller: Annotated[Principal, Depends(Needs(Permission.KEYS_REVOKE))],
) -> Response:
    """End a key, and those that were made with it, everywhere and at once."""
    await here.security.revoke_key(key_id, by=caller)
    return Response(status_code=204)


@jwks.get("/.well-known/jwks.json", dependencies=[Depends(PUBLIC)])
async def public_keys(here: Here) -> dict[str, list[dict[str, str]]]:
    """The public keys that this node's tokens can be verified with."""
    return here.security.jwks()


def _most_a_second(here: Services, caller: Principal) -> int:
    """No way around one's own limit leads over a new key."""
    if caller.rate_limit is not None:
        return caller.rate_limit
    return MAX_RATE if caller.may(Permission.KEYS_ANY) else here.settings.key_rate


def who(principal: Principal) -> Who:
    return Who(
        subject=principal.subject,
        role=principal.role,
        kind=principal.kind,
        permissions=sorted(principal.permissions),
        expires_at=principal.expires_at,
    )


def _tokens(pair: TokenPair) -> Tokens:
    return Tokens(access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in)
