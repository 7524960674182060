"""The review queue of a node: opened, looked after, and bridged to the missions that wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pydantic import TypeAdapter, ValidationError

from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.types import Name
from chimera.review.policy import ReviewPolicy
from chimera.review.policy_file import load_policy
from chimera.review.queue import ReviewQueue
from chimera.security.roles import Role
from chimera.security.users import Users
from chimera.system.held_missions import HeldMissions
from chimera.system.review import POLICY_FILE, open_desk, read_policy

log = logging.getLogger(__name__)

AGAIN_S = 5.0
MAX_USERS = 1_000
"""Of those that are looked through for administrators."""

_NAME = TypeAdapter(Name)


@asynccontextmanager
async def reviewing(swarm: SwarmCoordinator, settings: Settings, users: Users) -> AsyncIterator[ReviewQueue]:
    """The installation's own queue. While it is open, what is due expires, people are told, and held missions go on.

    Raises InputError for a policy that cannot be used, StorageError.
    """
    policy = await asyncio.to_thread(node_policy, settings, users)
    async with open_desk(settings, policy=policy) as desk:
        notifiers = desk.notifiers()
        bridge = HeldMissions(swarm=swarm, queue=desk.queue)
        work = [
            asyncio.create_task(_kept_up("the review queue", lambda: desk.run(notifiers))),
            asyncio.create_task(_kept_up("the bridge to held missions", bridge.run)),
        ]
        try:
            yield desk.queue
        finally:
            for each in work:
                each.cancel()
            await asyncio.wait(work)


def node_policy(settings: Settings, users: Users) -> ReviewPolicy:
    """The home's policy. Where it names no reviewers, the node's administrators are added to the OS user who runs it.

    Raises InputError.
    """
    policy = read_policy(settings)
    path = settings.home / POLICY_FILE
    if path.exists() and load_policy(path).reviewers:
        return policy
    known = {name.casefold() for name in policy.reviewers}
    admins = [
        user.name
        for user in users.list(limit=MAX_USERS)
        if user.role is Role.ADMIN and not user.tenant and not user.disabled and user.name not in known
    ]
    return policy.model_copy(update={"reviewers": {**policy.reviewers, **{name: () for name in admins if _fits(name)}}})


def _fits(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:  # users may have an @ in their names
        return False
    return True


async def _kept_up(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Work until cancelled. A fault that nobody expected is logged, and it begins anew."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s: a fault; it is begun anew", what)
        await asyncio.sleep(AGAIN_S)
