"""The port to a blockchain: what a node is asked, and told. Nothing here signs.

Every method raises ChainError where no node answers, or it refuses. What was being sent then may have arrived or not:
sending the same again is safe.
"""

from __future__ import annotations

from typing import Protocol

from chimera.core.types import Frozen
from chimera.treasury.evm.types import Address, Data, Hash

MAX_LOGS = 10_000


class Block(Frozen):
    """`base_fee` in wei, for each unit of gas."""

    number: int
    hash: Hash
    base_fee: int


class Log(Frozen):
    """An event of the contract at `address`."""

    address: Address
    topics: tuple[Hash, ...]
    data: Data
    block: int
    tx_hash: Hash


class Receipt(Frozen):
    """A transaction that is in a block of the chain. `cost` is what its gas cost, in wei."""

    tx_hash: Hash
    block: int
    block_hash: Hash
    ok: bool
    cost: int
    logs: tuple[Log, ...] = ()


class Chain(Protocol):
    """`at` is a block's number; without it, the newest."""

    chain_id: int

    async def head(self) -> Block:
        """The newest block."""
        ...

    async def nonce(self, address: str, at: int | None = None) -> int:
        """How many transactions of this account are in blocks."""
        ...

    async def balance(self, address: str, at: int | None = None) -> int:
        """In wei."""
        ...

    async def tip(self) -> int:
        """What the node would offer to a block's maker, in wei for each unit of gas."""
        ...

    async def estimate(self, sender: str, to: str, data: str) -> int | None:
        """The gas that this call takes; None if it would revert."""
        ...

    async def call(self, to: str, data: str, at: int | None = None) -> bytes:
        """What a contract answers; nothing is changed."""
        ...

    async def send(self, raw: str) -> str:
        """Hand a signed transaction to the node: its hash. One that the node has already is sent, too.

        Asks first whether the node is of the chain that is meant.
        """
        ...

    async def known(self, tx_hash: str) -> bool:
        """Whether the node has this transaction, waiting or in a block."""
        ...

    async def receipt(self, tx_hash: str) -> Receipt | None:
        """None while it is in no block."""
        ...

    async def logs(self, address: str, topics: tuple[str, ...], since: int, until: int) -> list[Log]:
        """The events of a contract with any of these first topics, in these blocks, the first first."""
        ...
