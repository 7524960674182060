"""The relayer's transactions: what carries a signed payment to the chain, and what its gas costs.

The relayer's nonces have no gaps: a new one is the next after all that are on their way, and what a node has forgotten
is sent again until its nonce is used up. One that waits for too long is sent anew at the same nonce, for more. Where
the nonce was used up by something else, or the transaction reverted, the same payment goes into another: that is safe,
since the Safe executes it once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from chimera.core.errors import ChainError, Overloaded
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.fate import nonce
from chimera.treasury.evm.fees import Offer, in_ledger, offer, raised, with_margin
from chimera.treasury.evm.holder import Relayer
from chimera.treasury.evm.outbox import Carried, Closed, GasAnswered, GasAsked, Outbox, Sent
from chimera.treasury.evm.port import Block, Chain, Receipt
from chimera.treasury.evm.rules import MAX_GAS_REQUESTS
from chimera.treasury.evm.types import Declined, Envelope, Network
from chimera.treasury.ledger import Ledger
from chimera.treasury.types import Outcome, PaymentRequest, Transfer, TransferKind, Written

OVERHEAD_GAS = 120_000
"""What a Safe of two owners takes besides the payment itself, where no node can be asked yet."""


class Carrying:
    """See `EvmPayments`, which has one, and asks it one thing at a time."""

    def __init__(
        self,
        *,
        chain: Chain,
        ledger: Ledger,
        relayer: Relayer,
        outbox: Outbox,
        network: Network,
        authorise: Callable[[PaymentRequest], Awaitable[Outcome]],
    ) -> None:
        self._chain = chain
        self._ledger = ledger
        self._relayer = relayer
        self._outbox = outbox
        self._network = network
        self._authorise = authorise

    async def tend(self, sent: Sent) -> None:
        """Do what a payment needs that is signed and not executed, as deep as we look."""
        sent.waits_for = ""
        head = await self._chain.head()
        used = await self._chain.nonce(self._network.relayer)
        await self._send_again(sent, used)
        if await nonce(self._chain, self._network) > sent.tx.nonce:
            sent.waits_for = "it is in a block, and waits for more to follow"
            return
        waiting = [each for each in sent.carriers if each.envelope.nonce >= used]
        if not waiting:
            await self._carry(sent, head, self._next_nonce(used))
            return
        last = min(waiting, key=lambda each: (each.envelope.nonce, -each.at, -each.envelope.max_fee))
        if last.envelope.nonce == used and head.number - last.at >= self._network.stuck_blocks:
            await self._carry(sent, head, used, instead_of=last.envelope)

    async def close(self, sent: Sent) -> None:
        """Enter what its gas cost, once all nonces of the relayer that it had are used up as deep as we wait for."""
        deep = (await self._chain.head()).number - self._network.confirmations + 1
        used = await self._chain.nonce(self._network.relayer, at=deep) if deep >= 0 else 0
        if any(each.envelope.nonce >= used for each in sent.carriers):
            await self._send_again(sent, await self._chain.nonce(self._network.relayer))
            return
        cost = sum(receipt.cost for receipt in await self._receipts(sent))
        left, ends = in_ledger(cost), []
        for key, asked in sent.gas.items():
            if not await self._is_pending(key):
                continue
            amount = min(left, asked.request.amount)
            kind = TransferKind.POST if amount else TransferKind.VOID
            ends.append(Transfer(id=f"{key}/end", kind=kind, request_id=key, amount=amount))
            left -= amount
        if ends:
            await self._ledger.write(ends)
        await self._outbox.record(sent, Closed(cost=cost))

    async def _send_again(self, sent: Sent, used: int) -> None:
        """What can still be mined and the node does not have: of those with one nonce, the last.

        A node that does not take it (it offers too little by now, say) is no reason not to offer more.
        """
        newest = {each.envelope.nonce: each for each in sent.carriers if each.envelope.nonce >= used}
        for each in newest.values():
            if not await self._chain.known(each.sealed.hash):
                try:
                    await self._chain.send(each.sealed.raw)
                except ChainError as error:
                    sent.waits_for = str(error)

    async def _carry(self, sent: Sent, head: Block, at: int, *, instead_of: Envelope | None = None) -> None:
        limits = {"max_fee": self._network.max_fee, "max_tip": self._network.max_tip}
        terms = offer(head.base_fee, await self._chain.tip(), **limits)
        if instead_of is not None:
            more = raised(Offer(max_fee=instead_of.max_fee, tip=instead_of.tip), terms, **limits)
            if more is None:
                sent.waits_for = "it offers all that the limits allow, and waits for gas to become cheaper"
                return
            terms = more
        data = safe.execution(sent.tx, sent.signatures)
        gas = instead_of.gas if instead_of else await self._gas(sent, data)
        envelope = Envelope(
            chain_id=self._network.chain_id,
            nonce=at,
            to=self._network.safe,
            data=data,
            gas=gas,
            max_fee=terms.max_fee,
            tip=terms.tip,
        )
        burnt = sum(receipt.cost for receipt in await self._receipts(sent))
        if not await self._reserve(sent, in_ledger(burnt + envelope.worst), head):
            return
        has = await self._chain.balance(self._network.relayer)
        if has < envelope.worst:
            raise ChainError(f"the relayer {self._network.relayer} has {has} wei, and gas may cost {envelope.worst}")
        granted = [key for key, yes in sent.granted.items() if yes]
        sealed = await self._relayer.seal(sent.request.id, granted, envelope)
        if isinstance(sealed, Declined):
            raise ChainError(f"the relayer's key does not sign for {sent.request.id}: {sealed.why}")
        await self._outbox.record(sent, Carried(envelope=envelope, sealed=sealed, at=head.number))
        await self._chain.send(sealed.raw)

    async def _gas(self, sent: Sent, data: str) -> int:
        """What to allow. A payment behind another cannot be estimated yet."""
        estimate = await self._chain.estimate(self._network.relayer, self._network.safe, data)
        if estimate is None:
            if await nonce(self._chain, self._network) == sent.tx.nonce:
                raise ChainError(
                    f"the Safe {self._network.safe} would not execute {sent.request.id}: are the two keys its owners,"
                    " and does it ask for two of them?"
                )
            estimate = OVERHEAD_GAS + sent.tx.safe_tx_gas
        return with_margin(estimate, most=self._network.max_gas)

    async def _reserve(self, sent: Sent, needed: int, head: Block) -> bool:
        """Whether so many billionths are set aside for gas. What is asked for beyond it spares asking at each rise."""
        if not sent.gas:
            await self._find_asked(sent, head)
        for key, asked in sent.gas.items():
            if key not in sent.granted:  # a crash came before the answer
                await self._ask(sent, asked.request)
        if sent.reserved >= needed:
            return True
        last = max((asked.at for key, asked in sent.gas.items() if not sent.granted[key]), default=None)
        if last is not None and head.number - last < self._network.stuck_blocks:
            sent.waits_for = "its gas was not agreed to, and is asked for again later"
            return False
        if len(sent.gas) >= MAX_GAS_REQUESTS:
            raise Overloaded(f"gas for {sent.request.id} was asked for {len(sent.gas)} times: look into it", 60.0)
        amount = needed - sent.reserved + needed // 2
        request = payments.gas_request(self._network, sent.request, len(sent.gas), amount)
        await self._outbox.record(sent, GasAsked(request=request, at=head.number))
        await self._ask(sent, request)
        if sent.reserved < needed:
            sent.waits_for = "its gas was not agreed to, and is asked for again later"
        return sent.reserved >= needed

    async def _find_asked(self, sent: Sent, head: Block) -> None:
        """Gas that an outbox which was lost has asked for."""
        for number in range(MAX_GAS_REQUESTS):
            request = await self._ledger.request(payments.gas_id(sent.request, number))
            if request is None:
                return
            await self._outbox.record(sent, GasAsked(request=request, at=head.number))
            ours = request == payments.gas_request(self._network, sent.request, number, request.amount)
            granted = ours and await self._is_pending(request.id)  # anybody can file another under such an id
            await self._outbox.record(sent, GasAnswered(id=request.id, granted=granted))

    async def _ask(self, sent: Sent, request: PaymentRequest) -> None:
        granted = isinstance(await self._authorise(request), Written)
        await self._outbox.record(sent, GasAnswered(id=request.id, granted=granted))

    async def _is_pending(self, request_id: str) -> bool:
        return [each.kind for each in await self._ledger.transfers(request_id)] == [TransferKind.PENDING]

    def _next_nonce(self, used: int) -> int:
        ahead = [each.envelope.nonce + 1 for sent in self._outbox.open() for each in sent.carriers]
        return max([used, *ahead])

    async def _receipts(self, sent: Sent) -> list[Receipt]:
        found = [await self._chain.receipt(each.sealed.hash) for each in sent.carriers]
        return [each for each in found if each is not None]
