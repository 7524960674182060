"""A key of the chain, and what it signs: it reads the ledger, remembers, and only then signs.

It lives in a process of its own (`keyholder.py`). What it does not sign it says so; what is raised is a fault, after
which asking again is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from chimera.core.clock import Clock
from chimera.core.errors import Overloaded
from chimera.treasury.evm import safe
from chimera.treasury.evm.fate import Fate, fate
from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.evm.memory import Memory
from chimera.treasury.evm.port import Chain
from chimera.treasury.evm.rules import (
    MAX_GAS_REQUESTS,
    End,
    Evidence,
    KeyRole,
    Verify,
    end,
    refuses_after,
    refuses_envelope,
    refuses_payment,
)
from chimera.treasury.evm.types import Declined, Envelope, Network, SafeSignature, SafeTx, Sealed, SignedTx
from chimera.treasury.ledger import Stop
from chimera.treasury.types import Approval, CfoDecision, PaymentRequest, Transfer, TransferKind

MAX_OPEN = 256
"""Payments that one key has signed and that have not ended."""
RETRY_AFTER_S = 5.0
STOPPED = "all spending is stopped, until a person starts it again"


class LedgerView(Protocol):
    """What is read of the ledger: every `Ledger` has it, and so has the vault's client."""

    async def request(self, request_id: str) -> PaymentRequest | None: ...

    async def decisions(self, request_id: str) -> list[CfoDecision | Approval]: ...

    async def transfers(self, request_id: str) -> list[Transfer]: ...

    async def stopped(self) -> Stop | None: ...


class Owner(Protocol):
    """One of the two keys of the Safe, wherever it is."""

    async def sign(self, request_id: str, tx: SafeTx) -> SafeSignature | Declined: ...

    async def signed(self, request_id: str) -> SignedTx | None:
        """What it has signed for this request, if it has."""
        ...


class Relayer(Protocol):
    """The key that pays for the gas, wherever it is."""

    async def seal(self, request_id: str, gas: Sequence[str], envelope: Envelope) -> Sealed | Declined:
        """`gas` are the requests under which its cost is set aside."""
        ...


class KeyHolder:
    """`key`, as `role`. `ledger` is read for each signature, `chain` where a payment was let go of after it was signed.

    `verify` says whether the CFO's or a person's signature is good. Raises LedgerError, ChainError, StorageError and
    Overloaded; nothing was signed then.
    """

    def __init__(
        self,
        *,
        role: KeyRole,
        key: EvmKey,
        network: Network,
        ledger: LedgerView,
        chain: Chain,
        memory: Memory,
        verify: Verify,
        clock: Clock,
    ) -> None:
        self.role = role
        self.address = key.address
        self._key = key
        self._network = network
        self._ledger = ledger
        self._chain = chain
        self._memory = memory
        self._verify = verify
        self._clock = clock
        self._one = asyncio.Lock()

    async def sign(self, request_id: str, tx: SafeTx) -> SafeSignature | Declined:
        """The owner's signature over this payment. The same again gives the same; another for this request, nothing."""
        async with self._one:
            before = self._memory.signed(request_id)
            if before is None:
                if declined := await self._refuses(request_id, tx):
                    return declined
                self._memory.remember(request_id, tx, (await self._chain.head()).number)
            elif before.tx != tx:
                return Declined(request_id=request_id, why="another transaction was signed for this request")
            return self._key.sign(safe.hash_of(tx, safe=self._network.safe, chain_id=self._network.chain_id))

    async def signed(self, request_id: str) -> SignedTx | None:
        return self._memory.signed(request_id)

    async def seal(self, request_id: str, gas: Sequence[str], envelope: Envelope) -> Sealed | Declined:
        """The relayer's: a payment on its way, with its gas set aside in the ledger."""
        async with self._one:
            if self.role is not KeyRole.RELAYER:
                return Declined(request_id=request_id, why="only the relayer's key pays for gas")
            if len(gas) > MAX_GAS_REQUESTS:
                return Declined(request_id=request_id, why=f"gas is set aside by {MAX_GAS_REQUESTS} requests at most")
            if await self._ledger.stopped():
                return Declined(request_id=request_id, why=STOPPED, final=False)
            payment, reserved = await self._read(request_id), [await self._read(each) for each in gas]
            nonces = self._memory.nonces(request_id)
            known = [each for each in reserved if each is not None]
            if payment is None or len(known) < len(reserved):
                return Declined(request_id=request_id, why="there is no such request in the ledger")
            refused = refuses_envelope(self._network, envelope, payment, known, verify=self._verify, nonces=nonces)
            if refused:
                return Declined(request_id=request_id, why=refused[:1_000])
            self._memory.remember_nonce(request_id, envelope.nonce)
            return self._key.seal(envelope)

    async def _refuses(self, request_id: str, tx: SafeTx) -> Declined | None:
        found = await self._read(request_id)
        if found is None:
            return Declined(request_id=request_id, why="there is no such request in the ledger")
        if await self._ledger.stopped():
            return Declined(request_id=request_id, why=STOPPED, final=False)
        at = int(self._clock.now() * 1_000_000)
        why = refuses_payment(self._network, tx, found, role=self.role, verify=self._verify, at=at)
        if why:
            return Declined(request_id=request_id, why=why[:1_000])
        why = refuses_after(tx, await self._others())
        return Declined(request_id=request_id, why=why[:1_000], final=False) if why else None

    async def _others(self) -> dict[str, tuple[SafeTx, End | None]]:
        """What this key has signed for other requests, and how that ended where it has."""
        others: dict[str, tuple[SafeTx, End | None]] = {}
        for request_id, before in self._memory.open().items():
            ended = await self._end(request_id, before)
            if ended is End.SOUND:
                self._memory.close_request(request_id)
            else:
                others[request_id] = before.tx, ended
        if len(others) >= MAX_OPEN:
            raise Overloaded(f"{len(others)} payments are signed and have not ended", RETRY_AFTER_S)
        return others

    async def _end(self, request_id: str, before: SignedTx) -> End | None:
        found = await self._read(request_id)
        if found is None:
            return End.WRONG
        if found.end is None:
            return None
        posted = found.end.kind is TransferKind.POST
        told = Fate.PAID if posted else await fate(self._chain, self._network, before.tx, since=before.since)
        return end(found, told)

    async def _read(self, request_id: str) -> Evidence | None:
        request = await self._ledger.request(request_id)
        if request is None:
            return None
        words = tuple(await self._ledger.decisions(request_id))
        return Evidence(request=request, words=words, transfers=tuple(await self._ledger.transfers(request_id)))
