"""Whether the ledger and the chain say the same: every payment that one has, the other has, of the same amount."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from chimera.core.types import Frozen
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.fate import REACH
from chimera.treasury.evm.fees import in_ledger
from chimera.treasury.evm.outbox import Outbox, Sent
from chimera.treasury.evm.port import Chain
from chimera.treasury.evm.types import GWEI, Network
from chimera.treasury.ledger import MAX_BATCH, Ledger
from chimera.treasury.rows import AnyRow, parse
from chimera.treasury.types import PaymentRequest, Transfer, TransferKind

MAX_FINDINGS = 1_000


class Reconciliation(Frozen):
    """`paid` payments are the same on both sides; `findings` are what is not, for people to look into.

    `safe_wei` is what the Safe has of the chain's coin, `fund` what the ledger says that it has, in billionths: less
    where somebody sent money to the Safe that nobody has entered.
    """

    paid: int
    safe_wei: int
    fund: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


@dataclass
class Entered:
    """A payment of the Safe as the ledger has it."""

    request: PaymentRequest
    begun: bool = False
    end: Transfer | None = None


async def entered(ledger: Ledger, network: Network) -> dict[str, Entered]:
    """All payments out of the Safe in the ledger, and all of its gas, by request."""
    found: dict[str, Entered] = {}
    async for row in _rows(ledger):
        if isinstance(row, PaymentRequest):
            if payments.carries(network, row) or row.debit == payments.gas_fund(network):
                found[row.id] = Entered(row)
        elif isinstance(row, Transfer) and row.request_id in found:
            if row.kind in (TransferKind.POST, TransferKind.VOID, TransferKind.POSTED):
                found[row.request_id].end = row
            found[row.request_id].begun = True
    return found


async def pending(ledger: Ledger, network: Network) -> list[PaymentRequest]:
    """Payments out of the Safe that are set aside in the ledger, and have not ended."""
    found = await entered(ledger, network)
    return [
        each.request
        for each in found.values()
        if each.begun and each.end is None and payments.carries(network, each.request)
    ]


async def reconcile(chain: Chain, ledger: Ledger, outbox: Outbox, network: Network) -> Reconciliation:
    """The ledger beside the chain, as deep as payments are waited for; what is still on its way is left out."""
    book = await entered(ledger, network)
    known = {key: sent for key in book if (sent := outbox.find(key)) is not None}
    deep = (await chain.head()).number - network.confirmations + 1
    since = max(0, min((sent.since for sent in known.values()), default=deep) - REACH)
    done: dict[str, bool] = {}
    if deep >= since:
        for log in await chain.logs(network.safe, (safe.EXECUTED, safe.FAILED), since, deep):
            if (found := safe.executed(log)) is not None:
                done[found.tx_hash] = found.ok
    paid, findings = compare(network, book, known, done)
    findings += await _gas(chain, book, known)
    has = await chain.balance(network.safe)
    balance = await ledger.balance(payments.fund_account(network))
    if has < balance.available * GWEI:
        findings.append(f"the ledger has {balance.available} billionths in the Safe, and the chain has {has} wei")
    return Reconciliation(paid=paid, safe_wei=has, fund=balance.posted, findings=tuple(findings[:MAX_FINDINGS]))


def compare(
    network: Network, book: Mapping[str, Entered], known: Mapping[str, Sent], done: Mapping[str, bool]
) -> tuple[int, list[str]]:
    """How many payments agree, and what does not. `done`: the Safe's executions, and whether each paid (pure)."""
    findings: list[str] = []
    paid = 0
    ours: set[str] = set()
    for request_id, each in book.items():
        if not payments.carries(network, each.request):
            continue
        sent = known.get(request_id)
        tx_hash = _hash(network, sent) if sent else ""
        ours.add(tx_hash)
        on_chain = done.get(tx_hash)
        posted = each.end is not None and each.end.kind is not TransferKind.VOID
        if posted and sent is None:
            findings.append(f"{request_id} is posted, and nothing is known of how it was paid")
        elif posted and not on_chain:
            findings.append(f"{request_id} is posted, and the chain has not paid it")
        elif on_chain and each.end is not None and not posted:
            findings.append(f"{request_id} is void, and the chain has paid it")
        elif on_chain and posted and each.end is not None and each.end.amount != each.request.amount:
            findings.append(f"{request_id} is posted over {each.end.amount}, and {each.request.amount} were paid")
        elif posted:
            paid += 1
    findings += [f"the Safe has executed {key}, which is no payment of the ledger" for key in done if key not in ours]
    return paid, findings


async def _gas(chain: Chain, book: Mapping[str, Entered], known: Mapping[str, Sent]) -> list[str]:
    """What was entered for gas beside what the chain took, for the payments that are closed."""
    findings = []
    for request_id, sent in known.items():
        if sent.closed is None or not sent.carriers:
            continue
        found = [await chain.receipt(each.sealed.hash) for each in sent.carriers]
        cost = sum(each.cost for each in found if each is not None)
        ends = [book[key].end for key in sent.gas if key in book]
        posted = sum(end.amount for end in ends if end is not None)
        if in_ledger(cost) != posted:
            findings.append(f"the gas of {request_id} cost {cost} wei, and {posted} billionths are entered")
    return findings


async def _rows(ledger: Ledger) -> AsyncIterator[AnyRow]:
    last = 0
    while page := await ledger.rows(after=last, limit=MAX_BATCH):
        for seq, table, told, _ in page:
            last = seq
            if table in ("request", "transfer"):
                yield parse(table, told)


def _hash(network: Network, sent: Sent) -> str:
    return "0x" + safe.hash_of(sent.tx, safe=network.safe, chain_id=network.chain_id).hex()
