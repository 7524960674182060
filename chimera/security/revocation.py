"""What is revoked before its end: looked up in memory, kept in a file or a Redis, known everywhere within a second.

A verifier that cannot learn of revocations any more does not go on as if there were none: what it knows is older than
`stale_after_s`, so all counts as revoked, or asking raises. An id is forgotten after `until`, when what it names has
expired anyway; a table that is full refuses more, and forgets none.
"""

from __future__ import annotations

import asyncio
import math
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from chimera.core.clock import Clock
from chimera.core.errors import InputError, SecurityError

MAX_REVOKED = 100_000
STALE_AFTER_S = 5.0
SWEEP_S = 60.0
LEEWAY_S = 300.0
"""Entries are kept for so long after `until`, for machines whose clocks are behind, and clocks that are put back."""

Stale = Literal["revoked", "raise"]
"""What `is_revoked` does when what it knows is too old: say True, or raise SecurityError."""

_ID = re.compile(r"[A-Za-z0-9_.:=\-]{1,128}")


class Known:
    """The ids that this process knows, bounded. Threads may share it: each change is of one entry, or a new dict."""

    def __init__(self, clock: Clock, max_revoked: int) -> None:
        if max_revoked < 1:
            raise InputError(f"a table of {max_revoked} revocations: give at least 1")
        self._clock = clock
        self._max = max_revoked
        self._until: dict[str, float] = {}
        self._swept_at_s = clock.monotonic()

    def has(self, revoked_id: str) -> bool:
        until = self._until.get(revoked_id)
        return until is not None and until > self._clock.now()

    def add(self, revoked_id: str, until: float) -> None:
        """Raises SecurityError when it is full."""
        if revoked_id not in self._until and len(self._until) >= self._max:
            self.sweep()
            if len(self._until) >= self._max:
                raise full(self._max)
        self._until[revoked_id] = max(until, self._until.get(revoked_id, 0.0))

    def sweep_at_times(self) -> None:
        if self._clock.monotonic() - self._swept_at_s >= SWEEP_S:
            self.sweep()

    def sweep(self) -> None:
        self._swept_at_s = self._clock.monotonic()
        now_s = self._clock.now() - LEEWAY_S
        for revoked_id in [revoked_id for revoked_id, until in list(self._until.items()) if until <= now_s]:
            self._until.pop(revoked_id, None)

    def items(self) -> list[tuple[str, float]]:
        return list(self._until.items())

    def __len__(self) -> int:
        return len(self._until)


class Revocations(ABC):
    """Ids that are revoked: of blocks of capabilities, of tokens (`jti`), of keys. Any thread may ask.

    An adapter keeps `_known` as it should be, and says by `_fresh_at_s` (monotonic) when it last was.
    """

    def __init__(self, *, clock: Clock, max_revoked: int, stale_after_s: float, stale: Stale) -> None:
        if not 0.5 <= stale_after_s <= 3_600.0 or stale not in ("revoked", "raise"):
            raise InputError(f"{stale_after_s=}, {stale=}: give 0.5 to 3600 s, and `revoked` or `raise`")
        self._clock = clock
        self._max = max_revoked
        self._known = Known(clock, max_revoked)
        self._stale_after_s = stale_after_s
        self._stale = stale
        self._fresh_at_s = -math.inf

    def is_revoked(self, id: str) -> bool:
        """Whether it is, from memory. When that is too old: True, or SecurityError, as `stale` says."""
        self._look()
        if self._known.has(id):
            return True
        if self.fresh:
            return False
        if self._stale == "raise":
            raise SecurityError(f"revocations have not been heard of for {self._stale_after_s:g} s: mend their store")
        return True

    @property
    def fresh(self) -> bool:
        """Whether what is known is of the last `stale_after_s`."""
        return self._clock.monotonic() - self._fresh_at_s <= self._stale_after_s

    def revoke(self, id: str, until: float) -> None:
        """Revoke for good: `until` (wall seconds) is not before what it names expires. Durable when it returns.

        It waits for the disk or the server (milliseconds): call it in a thread where nothing may wait.
        Raises InputError, SecurityError when the table is full, StorageError when it could not be stored: then it
        counts here, and nowhere else is sure of it. Ask again.
        """
        if not _ID.fullmatch(id):
            raise InputError("what is revoked has an id of 1 to 128 letters, digits and _.:=-")
        if not math.isfinite(until):
            raise InputError("say until when it is revoked: when it would expire, in seconds since the epoch")
        if until <= self._clock.now():
            return
        self._known.add(id, until)
        self._store(id, until)

    async def ready(self, timeout_s: float = 5.0) -> bool:
        """Wait until it is known what is revoked; false if that took too long, and all counts as revoked still."""
        for _ in range(math.ceil(timeout_s / 0.01)):
            self._look()
            if self.fresh:
                return True
            await asyncio.sleep(0.01)
        return False

    async def close(self) -> None:
        """Hear of no more: once it is stale, all counts as revoked."""
        await asyncio.to_thread(self._end)

    @abstractmethod
    def _look(self) -> None:
        """Read what is new, where that is the asker's part. Raises nothing."""

    @abstractmethod
    def _store(self, revoked_id: str, until: float) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...


class MemoryRevocations(Revocations):
    """For one process, and gone with it."""

    def __init__(self, *, clock: Clock, max_revoked: int = MAX_REVOKED) -> None:
        super().__init__(clock=clock, max_revoked=max_revoked, stale_after_s=STALE_AFTER_S, stale="revoked")
        self._fresh_at_s = math.inf

    def _look(self) -> None:
        self._known.sweep_at_times()

    def _store(self, revoked_id: str, until: float) -> None: ...

    def _end(self) -> None: ...


def open_revocations(
    url: str,
    *,
    clock: Clock,
    max_revoked: int = MAX_REVOKED,
    stale_after_s: float = STALE_AFTER_S,
    stale: Stale = "revoked",
) -> Revocations:
    """Those at `url`: `sqlite:///PATH` for a machine, `redis://` or `rediss://` for a cluster, `memory://`.

    Raises InputError for another URL, StorageError for a file that cannot be used.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        return MemoryRevocations(clock=clock, max_revoked=max_revoked)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from chimera.security.revocation_sqlite import SqliteRevocations

        return SqliteRevocations(
            Path(unquote(rest[1:])), clock=clock, max_revoked=max_revoked, stale_after_s=stale_after_s, stale=stale
        )
    if scheme in ("redis", "rediss"):
        from chimera.security.revocation_redis import RedisRevocations

        return RedisRevocations(url, clock=clock, max_revoked=max_revoked, stale_after_s=stale_after_s, stale=stale)
    raise InputError("revocations are at sqlite:///PATH, redis://HOST, rediss://HOST or memory://")


def full(most: int) -> SecurityError:
    return SecurityError(
        f"{most} revocations are in force already: rotate the root key, which ends all that it has signed, or let"
        " tokens live less long"
    )
