"""Who may issue a capability, for what, and who may revoke it. `SecurityManager` asks here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import JsonValue

from chimera.core.errors import InputError, NotThere
from chimera.security.caveats import Caveat, ForTenant
from chimera.security.principal import Principal
from chimera.security.roles import Permission

if TYPE_CHECKING:
    from chimera.security.capabilities import CapabilityToken
    from chimera.security.capability_home import CapabilityHome
    from chimera.security.manager import SecurityManager


def issue(
    security: SecurityManager,
    home: CapabilityHome | None,
    by: Principal,
    operations: str | Iterable[str],
    resource: str,
    *,
    ttl_s: float,
    subject: str,
    caveats: Iterable[Caveat],
) -> CapabilityToken:
    """See `SecurityManager.issue_capability`."""
    asked = (operations,) if isinstance(operations, str) else tuple(operations)
    security.check(by, Permission.CAPABILITY_ISSUE, resource)
    for permission in Permission:
        if permission in asked:
            security.check(by, permission, resource)
    narrowed = (*caveats, ForTenant(by.tenant)) if by.tenant else tuple(caveats)
    token = _of(home).issue_for(
        by.subject, subject or by.subject, asked, resource, ttl_s=ttl_s, caveats=narrowed, tenant=by.tenant
    )
    about: dict[str, JsonValue] = {"subject": subject or by.subject, "operations": list(asked)}
    security.audit(by.subject, Permission.CAPABILITY_ISSUE, resource, "ok", about)
    return token


async def revoke(security: SecurityManager, home: CapabilityHome | None, revocation_id: str, by: Principal) -> None:
    """See `SecurityManager.revoke_capability`."""
    resource = f"capabilities/{revocation_id}"
    security.check(by, Permission.CAPABILITY_REVOKE, resource)
    known = await asyncio.to_thread(_of(home).issued, revocation_id)
    mine = known is not None and known.issuer == by.subject
    within = not by.tenant or (known is not None and known.tenant == by.tenant)
    if not mine and not (by.may(Permission.CAPABILITY_ANY) and within):
        raise NotThere("there is no such capability of yours")
    await asyncio.to_thread(_of(home).refuse, revocation_id, None if known is None else known.until)
    security.audit(by.subject, Permission.CAPABILITY_REVOKE, resource, "ok")


def _of(home: CapabilityHome | None) -> CapabilityHome:
    if home is None:
        raise InputError("no capabilities are issued here: give this SecurityManager a CapabilityHome")
    return home
