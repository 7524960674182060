"""The ledger actor: the treasury's ledger for a whole cluster, over one connection to the vault on the head node.

It holds no key and no login, and keeps nothing: one that died is started again by Ray, and what it was asked to write
is written once, however often it is asked. What may be written is decided behind the vault's socket.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from chimera.actors import cluster
from chimera.core.errors import LedgerUnavailable
from chimera.treasury.calls import LedgerCalls
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.vault.client import VaultLedger

LEDGER = "treasury/Ledger"

RETRY_S = 30.0
"""How long an actor that died may take to come back."""

ASKED = frozenset(
    "write account request decisions transfers balance waiting caps set_cap set_rules stop resume stopped head rows"
    " decide".split()
)


class LedgerActor:
    """`socket` is the vault's, and says what may be asked over it (docs/treasury.md)."""

    def __init__(self, *, socket: Path) -> None:
        self._ledger = VaultLedger(path=socket, role=LedgerRole.APP)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """One of the methods of the ledger's and the signer's port."""
        if method not in ASKED:
            raise AttributeError(f"a ledger has no {method}")
        return await getattr(self._ledger, method)(*arguments)


class ActorLedger(LedgerCalls):
    """The ledger's port, and the signer's, over the actor `handle`; from any process of the cluster."""

    role = LedgerRole.APP

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def close(self) -> None:
        """The actor goes on: others use it."""

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """Asked again of an actor that died: whatever it is asked twice, it does once."""
        return await ask(self._handle, "ask", method, *arguments)


async def ask(handle: Any, method: str, *arguments: Any) -> Any:
    """A call of an actor of the treasury, repeated while it comes back. Raises LedgerUnavailable if it does not.

    The time that an actor has to come back counts from when it was first missed: a call may have been long before.
    """
    loop = asyncio.get_running_loop()
    until_s, pause_s = 0.0, 0.05
    while True:
        try:
            return await getattr(handle, method).remote(*arguments)
        except cluster.ACTOR_GONE as error:
            until_s = until_s or loop.time() + RETRY_S
            if loop.time() > until_s:
                raise LedgerUnavailable(f"the treasury's actor does not come back: {cluster.unwrap(error)}") from None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)
        except Exception as error:
            raise cluster.unwrap(error) from None
