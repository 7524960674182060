"""What a key of the chain signs, and what not (pure): only what the ledger holds as decided, and exactly that.

A holder reads the ledger itself. Who asks it may be anybody: a process that was taken over gets what it would get
anyway, a payment that the CFO and a person have agreed to, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.treasury.evm import safe
from chimera.treasury.evm.fate import Fate
from chimera.treasury.evm.fees import in_ledger
from chimera.treasury.evm.payments import gas_fees, gas_fund, gas_id, safe_tx
from chimera.treasury.evm.types import Envelope, Network, SafeTx
from chimera.treasury.types import Approval, CfoDecision, PaymentRequest, Signed, Transfer, TransferKind

MAX_GAS_REQUESTS = 32
MAX_NONCES = 16
"""Of the relayer's, for one payment: more than one are needed only where somebody else used its key, or it reverted."""

Verify = Callable[[Signed], bool]


class KeyRole(StrEnum):
    """Whose key it is. The Safe takes `cfo` and `approver` together; `relayer` pays for the gas, and no more."""

    CFO = "cfo"
    APPROVER = "approver"
    RELAYER = "relayer"


class Evidence(Frozen):
    """What the ledger holds of a request."""

    request: PaymentRequest
    words: tuple[CfoDecision | Approval, ...]
    transfers: tuple[Transfer, ...]

    @property
    def pending(self) -> Transfer | None:
        """What is set aside for it, if that is neither posted nor void."""
        begun = [each for each in self.transfers if each.kind is TransferKind.PENDING]
        return begun[0] if begun and len(self.transfers) == 1 else None

    @property
    def end(self) -> Transfer | None:
        """How what was set aside ended; None while it is, or where nothing was."""
        return next((each for each in self.transfers if each.kind in (TransferKind.POST, TransferKind.VOID)), None)


def refuses_payment(
    network: Network, tx: SafeTx, found: Evidence, *, role: KeyRole, verify: Verify, at: int
) -> str | None:
    """Why this key does not sign that, at the moment `at` (microseconds); None where it does."""
    request = found.request
    if role is KeyRole.RELAYER:
        return "the relayer's key signs no payments"
    if not _agreed(found, verify):
        return "the CFO has not agreed to it"
    if found.pending is None or found.pending.amount != request.amount:
        return "nothing is set aside for it in the ledger, or it has ended"
    if found.pending.expires_at:
        return "what is set aside for it expires, and a signature does not: set it aside without an end"
    try:
        wanted = safe_tx(network, request, tx.nonce)
    except InputError as error:
        return str(error)
    if tx != wanted:
        return _difference(tx, wanted)
    if role is KeyRole.APPROVER and not _approved(network, found, verify, at):
        return "no person has approved it" + (" and signed" if network.signed_approvals else "")
    return None


class End(StrEnum):
    """How a payment that was signed ended in the ledger, beside the chain.

    `sound`: as on the chain. `early`: void, while it can still be paid on the chain. `wrong`: they differ for good.
    """

    SOUND = "sound"
    EARLY = "early"
    WRONG = "wrong"


def end(found: Evidence, fate: Fate) -> End | None:
    """None while what is set aside for it still is. `fate` is the chain's word."""
    if found.end is None:
        return None
    if found.end.kind is TransferKind.POST:
        whole = found.end.amount == found.request.amount
        return End.SOUND if whole and fate in (Fate.PAID, Fate.OPEN) else End.WRONG
    return {Fate.OPEN: End.EARLY, Fate.PAID: End.WRONG}.get(fate, End.SOUND)


def refuses_after(tx: SafeTx, others: Mapping[str, tuple[SafeTx, End | None]]) -> str | None:
    """Why nothing is signed, for what this key has signed for other requests; None where nothing speaks against it.

    Money of a payment that is void is free again in the ledger. Where such a payment can still be executed, only
    another at the same nonce of the Safe is signed: the chain takes one of the two. So whoever can write to the ledger
    and holds signatures gets no more past the caps than one payment that was agreed to, and is seen.
    """
    for request_id, (other, ended) in others.items():
        if ended is End.WRONG:
            return f"{request_id} is not in the ledger what it is on the chain: look into it before more is paid"
        if ended is None and other.nonce == tx.nonce:
            return f"{request_id} is to be paid at the Safe's nonce {tx.nonce}"
        if ended is End.EARLY and other.nonce != tx.nonce:
            return f"{request_id} is void and can still be paid: the next payment takes its nonce, {other.nonce}"
    return None


def refuses_envelope(
    network: Network,
    envelope: Envelope,
    payment: Evidence,
    gas: Sequence[Evidence],
    *,
    verify: Verify,
    nonces: set[int],
) -> str | None:
    """Why the relayer does not sign that; None where it does. `nonces` are those it has signed for this payment."""
    if (envelope.chain_id, envelope.to) != (network.chain_id, network.safe):
        return "it goes to another contract or chain than our Safe's"
    if not envelope.data.startswith("0x" + safe.EXEC.hex()):
        return "it does not carry a transaction of the Safe"
    if not _agreed(payment, verify):
        return "the CFO has not agreed to it"
    if envelope.max_fee > network.max_fee or envelope.gas > network.max_gas or envelope.tip > network.max_tip:
        return "it offers more for gas than the limits allow"
    if len(nonces | {envelope.nonce}) > MAX_NONCES:
        return f"{MAX_NONCES} transactions have been signed for this payment: look into it"
    reserved = 0
    for number, each in enumerate(gas):
        request = each.request
        of_this = request.id in {gas_id(payment.request, which) for which in range(MAX_GAS_REQUESTS)}
        between = (request.debit, request.credit) == (gas_fund(network), gas_fees(network))
        if not of_this or not between or request.id in {other.request.id for other in gas[:number]}:
            return f"{request.id} is not for the gas of this payment"
        if each.pending is None or not _agreed(each, verify):
            return f"nothing is set aside for {request.id}"
        reserved += each.pending.amount
    if in_ledger(envelope.worst) > reserved:
        return f"its gas may cost {in_ledger(envelope.worst)} billionths, and {reserved} are set aside"
    return None


def _agreed(found: Evidence, verify: Verify) -> bool:
    """The CFO's last word is that it may be paid (after a person's, where it asked for one), of this very request."""
    last = next((word for word in reversed(found.words) if isinstance(word, CfoDecision)), None)
    if last is None or last.request_digest != found.request.digest() or not verify(last):
        return False
    return last.verdict == "approved" or (last.verdict == "ask" and bool(_approvals(found)))


def _approvals(found: Evidence) -> list[Approval]:
    digest = found.request.digest()
    said = [word for word in found.words if isinstance(word, Approval) and word.request_digest == digest]
    return [] if any(word.verdict == "refused" for word in said) else said


def _approved(network: Network, found: Evidence, verify: Verify, at: int) -> bool:
    return any(
        word.expires_at > at
        and word.approver != found.request.requester
        and (verify(word) if word.signature or network.signed_approvals else True)
        for word in _approvals(found)
    )


def _difference(tx: SafeTx, wanted: SafeTx) -> str:
    told, right = tx.model_dump(), wanted.model_dump()
    wrong = [name for name in right if told[name] != right[name]]
    return f"it is not the payment of this request: {', '.join(wrong)} would differ"
