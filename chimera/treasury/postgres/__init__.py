"""The ledger in PostgreSQL."""

from __future__ import annotations

from chimera.treasury.postgres.ledger import PostgresLedger

__all__ = ["PostgresLedger"]
