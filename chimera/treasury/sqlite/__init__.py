"""The ledger in one SQLite file, the embedded default."""

from __future__ import annotations

from chimera.treasury.sqlite.ledger import SqliteLedger

__all__ = ["SqliteLedger"]
