"""The capabilities of one node: its authority, with keys, revocations, counts of uses and issuers in one folder.

Processes of the machine may share the folder: what one of them revokes, the others refuse within a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import Overloaded
from chimera.security.capabilities import MAX_TTL_S, CapabilityAuthority, CapabilityToken, contents
from chimera.security.capability_keys import KeyFolder
from chimera.security.caveats import Caveat
from chimera.security.revocation_sqlite import SqliteRevocations
from chimera.security.shared_file import SharedFile
from chimera.security.uses import SqliteUses

KEYS, REVOKED, USES, ISSUED = "capability-keys", "capability-revoked.db", "capability-uses.db", "capabilities.db"

MAX_ISSUED = 100_000
MAX_ISSUED_EACH = 10_000
"""Capabilities of one issuer that have not expired."""

APPLICATION_ID = 0x43484350  # "CHCP"

TABLES = (
    "CREATE TABLE issued (id TEXT PRIMARY KEY, issuer TEXT NOT NULL, tenant TEXT NOT NULL, until_s REAL NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX issued_by_issuer ON issued (issuer)",
    "CREATE INDEX issued_by_end ON issued (until_s)",
)


@dataclass(frozen=True, slots=True)
class Issued:
    """Who had a capability issued, and until when (wall seconds) it and all that is derived from it may be valid."""

    issuer: str
    tenant: str
    until: float


class CapabilityHome(CapabilityAuthority):
    """The authority whose files are in `folder`, which is made for its owner alone. Close it, or use `with`.

    Raises SecurityError and StorageError for files that others can read, or that are damaged.
    """

    def __init__(self, folder: Path, *, audience: str = "", clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home_clock = clock
        self._refused = SqliteRevocations(folder / REVOKED, clock=clock)
        self._counted = SqliteUses(folder / USES, clock=clock)
        self._known = SharedFile(folder / ISSUED, APPLICATION_ID, TABLES)
        keys = KeyFolder(folder / KEYS, clock=clock)
        super().__init__(keys, revocations=self._refused, uses=self._counted, audience=audience, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._refused._end()
        self._counted.close()
        self._known.close()

    def issue_for(
        self,
        issuer: str,
        subject: str,
        operations: Iterable[str],
        resource: str,
        *,
        ttl_s: float,
        caveats: Iterable[Caveat] = (),
        tenant: str = "",
    ) -> CapabilityToken:
        """As `issue`, and it is known who may revoke it. Waits for the disk. Raises Overloaded for too many."""
        token = self.issue(subject, operations, resource, ttl_s=ttl_s, caveats=caveats)
        said = contents(token)
        with self._known.transaction() as file:
            file.execute("DELETE FROM issued WHERE until_s <= ?", (self._home_clock.now(),))
            (mine,) = file.execute("SELECT count(*) FROM issued WHERE issuer = ?", (issuer,)).fetchone()
            (every,) = file.execute("SELECT count(*) FROM issued").fetchone()
            if mine >= MAX_ISSUED_EACH or every >= MAX_ISSUED:
                raise Overloaded("too many capabilities have not expired yet: wait, or give them less time", 60.0)
            file.execute(
                "INSERT INTO issued VALUES (?, ?, ?, ?)", (said.revocation_ids[0], issuer, tenant, said.ends_at)
            )
        return token

    def issued(self, revocation_id: str) -> Issued | None:
        """Whose a capability is, by the id of its first block; None where that is not known. Waits for the disk."""
        with self._known.transaction() as file:
            row = file.execute("SELECT issuer, tenant, until_s FROM issued WHERE id = ?", (revocation_id,)).fetchone()
        return None if row is None else Issued(*row)

    def refuse(self, revocation_id: str, until: float | None = None) -> None:
        """Refuse a block, and all that is derived from it, everywhere within a second. Waits for the disk."""
        self._refused.revoke(revocation_id, self._home_clock.now() + MAX_TTL_S if until is None else until)
