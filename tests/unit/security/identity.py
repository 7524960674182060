"""What tests of identity share: a manager on a clock that is moved by hand, and the record of what it wrote down.

python identity.py revoke FOLDER TOKEN   ->   a line, "revoked", once it is; then it waits to be killed
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from chimera.core.clock import ManualClock
from chimera.security.manager import SecurityManager
from chimera.security.roles import Role

START_S = 1_800_000_000.0
PASSWORD = "correct horse battery"
USERS = {"ada": Role.ADMIN, "oscar": Role.OPERATOR, "olga": Role.OBSERVER, "paul": Role.API_CLIENT, "node-1": Role.NODE}


class Notes:
    """An audit log that is a list."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str, str, dict[str, JsonValue]]] = []

    def append(self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue]) -> None:
        self.lines.append((actor, action, resource, outcome, dict(detail)))

    def has(self, actor: str, action: str, outcome: str) -> bool:
        return any((line[0], line[1], line[3]) == (actor, action, outcome) for line in self.lines)


@contextmanager
def opened(folder: Path, clock: ManualClock | None = None, **options: Any) -> Iterator[SecurityManager]:
    manager = SecurityManager(folder, clock=clock or ManualClock(START_S), **options)
    try:
        yield manager
    finally:
        manager.close()


async def add_users(manager: SecurityManager, *names: str) -> None:
    """Add those of USERS, all with PASSWORD. One run of argon2 does for all of them."""
    hashed = await manager._passwords.hash(PASSWORD)
    for name in names or USERS:
        await manager.users.create(name, USERS[name], hashed)


def _revoke(folder: Path, token: str) -> None:
    with opened(folder) as manager:
        asyncio.run(manager.revoke(token))
        sys.stdout.write("revoked\n")
        sys.stdout.flush()
        time.sleep(60.0)


if __name__ == "__main__":
    assert sys.argv[1] == "revoke"
    _revoke(Path(sys.argv[2]), sys.argv[3])
