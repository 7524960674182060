"""`chimera users` and `chimera keys`: over the node's own files, as whoever has them. Each change is in the audit log.

The API's gateway writes HOME/audit while it runs; what is done here is in HOME/audit-local.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.core.config import Settings
from chimera.core.errors import AuditBusy, InputError, MissingExtra
from chimera.security.api_keys import APIKey
from chimera.security.manager import LOCAL, SecurityManager
from chimera.security.passwords import one_time_password
from chimera.security.roles import Role, parse_scopes
from chimera.security.users import User

DONE = 0

BUSY_S = 10.0
"""How long another such command may have the audit log."""

PAGE = 1_000


def execute(work: Callable[[SecurityManager], Awaitable[None]], *, as_json: bool = False) -> int:
    """Do this, and return the exit code."""
    return command.run(_execute(work), as_json=as_json)


async def _execute(work: Callable[[SecurityManager], Awaitable[None]]) -> int:
    async with local_security(read_settings()) as security:
        await work(security)
    return DONE


@asynccontextmanager
async def local_security(settings: Settings) -> AsyncIterator[SecurityManager]:
    """The security of the node whose folder is here. Raises AuditBusy, MissingExtra."""
    try:
        from chimera.api.record import Record
        from chimera.api.serving import SECURITY
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastapi", "api") from error
    record = await asyncio.to_thread(Record.kept_in, settings.home, "audit-local")
    try:
        try:
            await asyncio.wait_for(record.taken(), BUSY_S)
        except TimeoutError:
            raise AuditBusy(f"another command writes {settings.home / 'audit-local'}: try again") from None
        security = await asyncio.to_thread(SecurityManager, settings.home / SECURITY, audit=record)
        try:
            yield security
        finally:
            security.close()
    finally:
        await asyncio.to_thread(record.close)


async def add(security: SecurityManager, name: str, role: str, *, as_json: bool) -> None:
    await security.create_user(name, one_time_password(), _role(role), by=LOCAL)
    await reset(security, name, as_json=as_json)


async def reset(security: SecurityManager, name: str, *, as_json: bool) -> None:
    password = await security.reset_password(name, by=LOCAL)
    if as_json:
        render.line(render.to_line({"user": name, "one_time_password": password}))
        return
    render.say(f"user {name}, one-time password ", (password, "bold"))
    render.note("good for a day: it is changed at the first login")


async def set_role(security: SecurityManager, name: str, role: str) -> None:
    await security.set_role(name, _role(role), by=LOCAL)
    render.note(f"{name} is {role} now, and has to log in again")


async def disable(security: SecurityManager, name: str, *, disabled: bool) -> None:
    await security.disable_user(name, by=LOCAL, disabled=disabled)
    render.note(f"{name} is let in " + ("no more" if disabled else "again"))


async def show_users(security: SecurityManager, *, as_json: bool) -> None:
    found: list[User] = []
    while part := security.users.list(after=found[-1].name if found else "", limit=PAGE):
        found += part
    if as_json:
        for user in found:
            told = asdict(user)
            del told["password_hash"]
            render.line(render.to_line(told))
        return
    rows = [
        (user.name, user.role.value, "disabled" if user.disabled else "one-time" if user.one_time_until else "")
        for user in found
    ]
    command.table(("user", "role", ""), rows)


async def create_key(
    security: SecurityManager,
    user: str,
    role: str,
    *,
    scopes: list[str] | None,
    rate_limit: int,
    days: float | None,
    label: str,
    as_json: bool,
) -> None:
    secret, key = await security.create_api_key(
        user,
        _role(role),
        rate_limit,
        by=LOCAL,
        scopes=parse_scopes(scopes) if scopes else None,
        lifetime_s=days * 86_400 if days is not None else None,
        label=label,
    )
    if as_json:
        render.line(render.to_line({"id": key.id, "secret": secret}))
        return
    render.say((secret, "bold"))
    render.note(f"key {key.id} of {key.user}: it is not shown again")


async def show_keys(security: SecurityManager, user: str, *, as_json: bool) -> None:
    found: list[APIKey] = []
    while part := security.list_keys(LOCAL, user_id=user, after=found[-1].id if found else "", limit=100):
        found += part
    if as_json:
        for key in found:
            render.line(render.to_line(key.model_dump(mode="json")))
        return
    rows = [(key.id, key.user, key.role.value, "revoked" if key.revoked_at else "", key.label) for key in found]
    command.table(("key", "user", "role", "", "for"), rows)


async def revoke_key(security: SecurityManager, key_id: str) -> None:
    ids = await security.revoke_key(key_id, by=LOCAL)
    render.note(f"revoked: {', '.join(ids)}")


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        raise InputError(f"{name!a:.60} is no role: use {', '.join(Role)}") from None
