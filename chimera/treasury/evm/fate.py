"""What became of a Safe's transaction, as deep in the chain as we wait for: the one question that payments hang on."""

from __future__ import annotations

from enum import StrEnum

from chimera.core.errors import ChainError
from chimera.treasury.evm import safe
from chimera.treasury.evm.port import Chain
from chimera.treasury.evm.types import Network, SafeTx

REACH = 100
"""Blocks before the one in which something was signed that are looked at, too: a chain may have gone back since."""


class Fate(StrEnum):
    """`open`: it can still be executed. Else its nonce is used up, and it never can: it `paid`; it was executed and
    `failed`, so that nothing was paid; or another took its nonce (`taken`).
    """

    OPEN = "open"
    PAID = "paid"
    FAILED = "failed"
    TAKEN = "taken"


async def fate(chain: Chain, network: Network, tx: SafeTx, *, since: int) -> Fate:
    """Of what was signed when the newest block was `since`. Whoever brought it to the chain, it is the same to us.

    Raises ChainError where the node knows no event of what used the nonce up: it lacks blocks that it says it has.
    """
    deep = (await chain.head()).number - network.confirmations + 1
    if deep < since or await nonce(chain, network, at=deep) <= tx.nonce:
        return Fate.OPEN
    wanted = "0x" + safe.hash_of(tx, safe=network.safe, chain_id=network.chain_id).hex()
    logs = await chain.logs(network.safe, (safe.EXECUTED, safe.FAILED), max(0, since - REACH), deep)
    if not logs:
        raise ChainError(f"the Safe {network.safe} has executed something, and the node has no event of it")
    for log in logs:
        found = safe.executed(log)
        if found is not None and found.tx_hash == wanted:
            return Fate.PAID if found.ok else Fate.FAILED
    return Fate.TAKEN


async def nonce(chain: Chain, network: Network, at: int | None = None) -> int:
    """The Safe's: the one that its next transaction has."""
    return safe.number(await chain.call(network.safe, safe.NONCE_CALL, at=at))
