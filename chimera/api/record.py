"""The node's audit log as the API keeps it: one writer at a time, handed on when a gateway is replaced."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import AuditBusy, Overloaded
from chimera.security.audit import AuditLog
from chimera.security.audit_entry import signing_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_WAITING = 10_000
RETRY_S = 0.1

KEY = "audit.pem"


class Record:
    """An audit log that may still be another process's: what is appended meanwhile waits, and is written in order.

    Waiting entries say in `waited_s` how long they did. Thread-safe.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey, *, clock: Clock | None = None) -> None:
        """Raises AuditError for a log that cannot be used."""
        self._folder, self._key, self._clock = folder, key, clock or SystemClock()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, tuple[str, str, str, str, Mapping[str, JsonValue]]]] = deque()
        self._log: AuditLog | None = None
        self._try()

    @classmethod
    def kept_in(cls, home: Path, name: str = "audit") -> Record:
        """That of a node, signed with the key in `home`/security, which is made at the first use."""
        return cls(home / name, signing_key(home / "security" / KEY))

    def append(self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue]) -> None:
        """Raises AuditError, and Overloaded: then it must not be done."""
        with self._lock:
            if self._log is not None:
                self._log.append(actor, action, resource, outcome, detail)
            elif len(self._waiting) >= MAX_WAITING:
                raise Overloaded("the audit log is another process's, and too much waits for it: try again", 1.0)
            else:
                self._waiting.append((self._clock.monotonic(), (actor, action, resource, outcome, detail)))

    def query(self, **conditions: Any) -> Sequence[Any]:
        """As AuditLog.query. Nothing, while another process has the log."""
        with self._lock:
            log = self._log
        return log.query(**conditions) if log is not None else ()

    async def taken(self) -> None:
        """Wait until the log is this process's, and what waited is in it."""
        while not await asyncio.to_thread(self._try):  # noqa: ASYNC110 - another process has it, and tells nobody
            await asyncio.sleep(RETRY_S)

    def close(self) -> None:
        """Write what waits, if the log can be had, and let another process have it. Blocks."""
        self._try()
        if self._log is not None:
            self._log.close()

    def _try(self) -> bool:
        with self._lock:
            if self._log is not None:
                return True
            try:
                log = AuditLog(self._folder, self._key, clock=self._clock)
            except AuditBusy:
                return False
            now = self._clock.monotonic()
            while self._waiting:
                at, (actor, action, resource, outcome, detail) = self._waiting.popleft()
                log.append(actor, action, resource, outcome, {**detail, "waited_s": round(now - at, 3)})
            self._log = log
            return True
