"""Payments out of the Safe, from what is set aside in the ledger to what the ledger is told of them.

A payment is planned (it gets a nonce of the Safe), signed by both owners, put into a transaction of the relayer, sent,
and settled when its nonce is used up as deep in the chain as we wait for: never before, as whoever has the signatures
can have it executed until then. Every step is in the outbox first, so a crash between any two pays nothing twice and
loses nothing; whatever else the relayer's account is used for, the Safe takes each nonce once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from chimera.core.errors import ChainError, ChimeraError, InputError, LedgerError, Overloaded
from chimera.core.types import Frozen
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.carrying import Carrying
from chimera.treasury.evm.fate import Fate, fate, nonce
from chimera.treasury.evm.holder import Owner, Relayer
from chimera.treasury.evm.outbox import Agreed, Closed, Outbox, Sent, Settled
from chimera.treasury.evm.port import Chain
from chimera.treasury.evm.reconcile import Reconciliation, pending, reconcile
from chimera.treasury.evm.types import Declined, Hash, Network, SafeSignature, SafeTx, SignedTx
from chimera.treasury.ledger import Ledger
from chimera.treasury.types import Outcome, PaymentRequest, Refused, Transfer, TransferKind

MAX_OPEN = 64
"""Payments that are on their way at once: nodes keep 64 waiting transactions of one account."""
RETRY_AFTER_S = 10.0
POLL_S = 4.0

Authorise = Callable[[PaymentRequest], Awaitable[Outcome]]
"""File a request, have the CFO decide it, and set it aside: what came of it. The same again is the same."""


class Progress(Frozen):
    """Where a payment is. `fate` is None until the ledger was told; `why`: what it waits for, or what went wrong."""

    request_id: str
    signed: bool
    sent: tuple[Hash, ...]
    fate: Fate | None
    closed: bool
    why: str = ""


class EvmPayments:
    """The rail from the ledger to one Safe (see `chimera.treasury.desk.Rail`).

    `ledger` is the application's. `owners` sign in this order: the approver, who is the stricter, first. `authorise`
    sets gas aside. One of these works on an outbox, and no other for the same relayer's account.
    """

    def __init__(
        self,
        *,
        chain: Chain,
        ledger: Ledger,
        owners: Sequence[Owner],
        relayer: Relayer,
        outbox: Outbox,
        network: Network,
        authorise: Authorise,
        poll_s: float = POLL_S,
    ) -> None:
        if chain.chain_id != network.chain_id:
            raise InputError(f"the node is asked for chain {chain.chain_id}, the Safe is on {network.chain_id}")
        self._chain = chain
        self._ledger = ledger
        self._owners = tuple(owners)
        self._outbox = outbox
        self._network = network
        self._poll_s = poll_s
        self._carrying = Carrying(
            chain=chain, relayer=relayer, outbox=outbox, network=network, authorise=authorise, ledger=ledger
        )
        self._one = asyncio.Lock()
        self._looks = 0

    def carries(self, request: PaymentRequest) -> bool:
        """Whether this is a payment out of our Safe."""
        return payments.carries(self._network, request)

    async def carry(self, request: PaymentRequest) -> None:
        """See a payment through, until the ledger knows how it ended. Cancelled, it goes on when it is asked again.

        One that cannot be paid in any way (its payee is no address, say) is void at once.
        """
        try:
            found = await self.pay(request.id)
        except InputError:
            await self._tell(request, Fate.OPEN)
            raise
        while not found.closed:
            looks = self._looks
            await asyncio.sleep(self._poll_s)
            if looks == self._looks:  # else another payment's has just looked, at this one too
                await self.watch()
            sent = self._outbox.find(request.id)
            assert sent is not None
            found = _progress(sent)

    async def pay(self, request_id: str) -> Progress:
        """Take a payment that is set aside on its way; one that is on its way goes on. Where it is now.

        Raises InputError for a request that cannot be paid so, Overloaded, ChainError (the Safe lacks the money, a key
        declines for now, no node answers), LedgerError, StorageError. All of these can be tried again.
        """
        async with self._one:
            sent = self._outbox.find(request_id)
            if sent is None:
                sent = await self._plan(request_id)
            if not sent.closed:
                await self._advance(sent)
            return _progress(sent)

    async def watch(self) -> list[Progress]:
        """Look at all payments on their way, and do what is to be done. What fails is told, and tried next time."""
        async with self._one:
            self._looks += 1
            return [await self._look(sent) for sent in self._outbox.open()]

    async def recover(self) -> list[Progress]:
        """At the start: go on with all that is on its way, and with all that is set aside in the ledger to be."""
        found = await self.watch()
        for request in await pending(self._ledger, self._network):
            if self._outbox.find(request.id) is None:
                try:
                    found.append(await self.pay(request.id))
                except ChimeraError as error:
                    found.append(_unsent(request.id, str(error)))
        return found

    async def reconcile(self) -> Reconciliation:
        """Compare the ledger with the chain, both ways."""
        async with self._one:
            return await reconcile(self._chain, self._ledger, self._outbox, self._network)

    async def _look(self, sent: Sent) -> Progress:
        try:
            await self._advance(sent)
        except ChimeraError as error:
            return _progress(sent, str(error))
        return _progress(sent)

    async def _plan(self, request_id: str) -> Sent:
        request = await self._set_aside(request_id)
        payments.safe_tx(self._network, request, 0)
        waiting = self._outbox.open()
        if len(waiting) >= MAX_OPEN:
            raise Overloaded(f"{len(waiting)} payments are on their way already", RETRY_AFTER_S)
        for earlier in waiting:  # so that no nonce of the Safe is left out: the next would wait for it for ever
            if not earlier.signatures:
                await self._sign(earlier)
        head = await self._chain.head()
        before = await self._signed_before(request_id)
        if before is None:
            taken = [sent.tx.nonce + 1 for sent in self._outbox.open() if sent.fate is None]
            number = max([await nonce(self._chain, self._network), *taken])
            before = SignedTx(tx=payments.safe_tx(self._network, request, number), since=head.number)
            await self._check_funds(before.tx)
        return await self._outbox.plan(request, before.tx, before.since)

    async def _set_aside(self, request_id: str) -> PaymentRequest:
        request = await self._ledger.request(request_id)
        if request is None:
            raise InputError(f"there is no request {request_id}")
        transfers = await self._ledger.transfers(request_id)
        if [each.kind for each in transfers] != [TransferKind.PENDING]:
            raise InputError(f"nothing is set aside for {request_id} in the ledger, or it has ended")
        return request

    async def _signed_before(self, request_id: str) -> SignedTx | None:
        """What the keys remember of it, if our own record was lost: it is the only one that they sign."""
        found = [each for owner in self._owners if (each := await owner.signed(request_id)) is not None]
        if len({each.tx for each in found}) > 1:
            raise LedgerError(f"the keys have signed different transactions for {request_id}: look into it")
        return found[0] if found else None

    async def _check_funds(self, tx: SafeTx) -> None:
        """Before anything is signed: one that fails for want of money costs gas, and has to be asked for anew."""
        ahead = [each.tx for each in self._outbox.open() if each.fate is None and each.tx.to == tx.to]
        if tx.value:
            ahead = [each.tx for each in self._outbox.open() if each.fate is None]
            has, needs = await self._chain.balance(self._network.safe), sum(each.value for each in (*ahead, tx))
        else:
            asked = await self._chain.call(tx.to, safe.balance_call(self._network.safe))
            has, needs = safe.number(asked), sum(safe.transferred(each.data) for each in (*ahead, tx))
        if has < needs:
            what = "wei" if tx.value else f"of the token {tx.to}"
            raise ChainError(f"the Safe {self._network.safe} has {has} {what}, and {needs} are to be paid: fill it")

    async def _advance(self, sent: Sent) -> None:
        if not sent.signatures:
            await self._sign(sent)
        if sent.closed:
            return
        if sent.fate is None:
            found = await fate(self._chain, self._network, sent.tx, since=sent.since)
            if found is Fate.OPEN:
                sent.taken_at = None
                await self._carrying.tend(sent)
            elif found is not Fate.TAKEN or await self._stays_taken(sent):
                await self._settle(sent, found)
        if sent.fate is not None:
            await self._carrying.close(sent)

    async def _sign(self, sent: Sent) -> None:
        """Both owners' signatures. One that declines for good leaves a transaction that nobody can have executed."""
        signatures: list[SafeSignature] = []
        for owner in self._owners:
            told = await owner.sign(sent.request.id, sent.tx)
            if isinstance(told, Declined):
                if not told.final:
                    raise ChainError(f"{sent.request.id} is not signed for now: {told.why}")
                await self._tell(sent.request, Fate.OPEN)
                await self._outbox.record(sent, Closed(why=told.why))
                return
            signatures.append(told)
        await self._outbox.record(sent, Agreed(signatures=tuple(signatures)))

    async def _stays_taken(self, sent: Sent) -> bool:
        """Whether that was so for as many blocks again: a node that lacks events would say the same, for a while."""
        height = (await self._chain.head()).number
        if sent.taken_at is None:
            sent.taken_at = height
            sent.waits_for = "another transaction seems to have taken its nonce of the Safe"
        return height - sent.taken_at >= self._network.confirmations

    async def _settle(self, sent: Sent, found: Fate) -> None:
        """The ledger is told, then the outbox: after a crash between the two the ledger has it already."""
        why = await self._tell(sent.request, found)
        await self._outbox.record(sent, Settled(fate=found, why=why))

    async def _tell(self, request: PaymentRequest, found: Fate) -> str:
        """Posted if it was paid, and void if not: what the ledger has against that; empty if nothing."""
        paid = found is Fate.PAID
        transfer = Transfer(
            id=f"{request.id[:80]}/end",
            kind=TransferKind.POST if paid else TransferKind.VOID,
            request_id=request.id,
            amount=request.amount if paid else 0,
        )
        [outcome] = await self._ledger.write([transfer])
        return outcome.detail if isinstance(outcome, Refused) else ""


def _progress(sent: Sent, why: str = "") -> Progress:
    return Progress(
        request_id=sent.request.id,
        signed=bool(sent.signatures),
        sent=tuple(each.sealed.hash for each in sent.carriers),
        fate=sent.fate,
        closed=sent.closed is not None,
        why=why or sent.why or sent.waits_for,
    )


def _unsent(request_id: str, why: str) -> Progress:
    return Progress(request_id=request_id, signed=False, sent=(), fate=None, closed=False, why=why)
