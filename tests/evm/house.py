"""A house that pays on a local chain: a Safe of two keys, a ledger with ETH, the CFO and a person with keys."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_utils.address import to_checksum_address

from chimera.treasury.audit import examine
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.holder import KeyHolder, Owner, Relayer
from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.evm.memory import Memory
from chimera.treasury.evm.outbox import Outbox
from chimera.treasury.evm.payer import EvmPayments
from chimera.treasury.evm.port import Chain, Log
from chimera.treasury.evm.rpc import RpcChain
from chimera.treasury.evm.rules import KeyRole
from chimera.treasury.evm.types import Network
from chimera.treasury.keys import FileKey, Keyring, approve, signed
from chimera.treasury.ledger import Ledger, LedgerRole
from chimera.treasury.types import (
    NANO,
    Account,
    AccountKind,
    Balance,
    Cap,
    CfoDecision,
    Outcome,
    PaymentRequest,
    Refused,
    Rules,
    Transfer,
    TransferKind,
    Window,
)
from tests.evm.anvil import Anvil
from tests.ledgers_sqlite import SqliteBench

ETH = NANO
"""Billionths, as the ledger counts."""
WEI = 10**18
PAYEE = "0x00000000000000000000000000000000DeaDBeef"
REFUSES = "0x5f5ffd"
"""A contract that takes no money: it reverts whatever it is sent."""


class EvmHouse:
    """`anvil` with a Safe that has 10 ETH, and the ledger that says so. `begin` makes it."""

    def __init__(self, anvil: Anvil, folder: Path) -> None:
        self.anvil = anvil
        self.folder = folder
        self.bench = SqliteBench(folder / "ledger.db")
        self.numbers = count(1)
        self.cfo_key = FileKey("cfo-1", Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
        self.ann_key = FileKey("ann-1", Ed25519PrivateKey.from_private_bytes(b"\2" * 32))
        self.keyring = Keyring(cfo={"cfo-1": self.cfo_key.public}, people={"ann": {"ann-1": self.ann_key.public}})
        self.keys = {role: EvmKey(bytes([n]) * 32) for n, role in enumerate(KeyRole, 11)}
        self.holders: dict[KeyRole, KeyHolder] = {}
        self.network: Network
        self.app: Ledger
        self.cfo: Ledger
        self.approver: Ledger
        self.chain: Chain
        self.payer: EvmPayments
        self.outbox: Outbox
        self.sound = True
        """Whether ledger and chain agree at the end; a test that breaks that says so."""
        self._close: list[Any] = []

    async def begin(self, **told: Any) -> EvmHouse:
        """The contracts, the ledger, and a payer. `told` are fields of the network."""
        self.build(**told)
        await self.open()
        await self.furnish()
        self.start()
        return self

    def build(self, *, version: str = "", **told: Any) -> None:
        """The contracts on the chain."""
        anvil = self.anvil
        singleton = anvil.deploy("Safe.sol/Safe")
        factory = anvil.deploy("proxies/SafeProxyFactory.sol/SafeProxyFactory")
        owners = [self.keys[KeyRole.CFO].address, self.keys[KeyRole.APPROVER].address]
        made = anvil.execute(safe.creation(singleton, safe.setup(owners, 2), 7), factory)
        at = safe.created([log_of(log) for log in made["logs"]], to_checksum_address(factory))
        assert at is not None
        relayer = self.keys[KeyRole.RELAYER].address
        anvil.give(at, 10 * WEI)
        anvil.give(relayer, WEI)
        fields = {"confirmations": 3, "stuck_blocks": 2, **told}
        self.network = Network(chain_id=anvil.chain_id, safe=at, relayer=relayer, **fields)

    async def open(self) -> None:
        """The ledger's connections."""
        self.owner = await self.bench.open(LedgerRole.OWNER, self.keyring.verify)
        self.app = await self.bench.open(LedgerRole.APP, self.keyring.verify)
        self.cfo = await self.bench.open(LedgerRole.CFO, self.keyring.verify)
        self.approver = await self.bench.open(LedgerRole.APPROVER, self.keyring.verify)
        self.chain = RpcChain(url=self.anvil.url, chain_id=self.network.chain_id)
        self._close.append(self.chain)

    async def furnish(self, currency: str = "ETH") -> None:
        """Accounts, caps, rules, and what the Safe has of a currency; of the coin, what the relayer has, too."""
        for window in (Window.LAST_DAY, Window.LAST_MONTH):
            await self.owner.set_cap(Cap(window=window, limit=8 * ETH, currency=currency))
        await self.owner.set_rules(Rules(currency=currency, ask_over=ETH // 100, dual_over=5 * ETH))
        funds = [payments.fund_account(self.network, currency)]
        if currency == self.network.coin:
            funds.append(payments.gas_fund(self.network))
            gas = Account(id=payments.gas_fees(self.network), kind=AccountKind.METERED, currency=currency)
            written(await self.owner.write([gas]))
        rows = [Account(id=name, kind=AccountKind.FUND, currency=currency) for name in funds]
        rows.append(Account(id=f"bank-{currency}", kind=AccountKind.OUTSIDE, currency=currency))
        written(await self.app.write(rows))
        for name, amount in zip(funds, (10 * ETH, ETH), strict=False):
            deposit = self.ask(amount, debit=f"bank-{currency}", credit=name, currency=currency)
            written(await self.app.write([deposit]))
            written(await self.cfo.write([self.decision(deposit)]))
            written(await self.app.write([moved(deposit, TransferKind.POSTED)]))

    def start(self, chain: Chain | None = None, **told: Any) -> None:
        """Keys and a payer, in this process."""
        for role in KeyRole:
            memory = Memory(self.folder / f"{role}.db")
            self._close.append(memory)
            self.holders[role] = KeyHolder(
                role=role,
                key=self.keys[role],
                network=self.network,
                ledger=self.app,
                chain=self.chain,
                memory=memory,
                verify=self.keyring.verify,
                clock=self.bench.clock,
            )
        self.outbox = Outbox(self.folder / "outbox.db")
        self._close.append(self.outbox)
        owners: list[Owner] = [self.holders[KeyRole.APPROVER], self.holders[KeyRole.CFO]]
        relayer: Relayer = self.holders[KeyRole.RELAYER]
        fields = {"owners": owners, "relayer": relayer, "outbox": self.outbox, "authorise": self.authorise, **told}
        self.payer = EvmPayments(
            chain=chain or self.chain, ledger=self.app, network=self.network, poll_s=0.01, **fields
        )

    async def close(self) -> None:
        for each in reversed(self._close):
            closing = each.close()
            if closing is not None:
                await closing
        await self.bench.close()

    def ask(self, amount: int = ETH, to: str = PAYEE, **fields: Any) -> PaymentRequest:
        """A request that nobody has seen yet."""
        currency = fields.get("currency", "ETH")
        accounts = {}
        if "debit" not in fields:
            accounts["debit"] = payments.fund_account(self.network, currency)
            accounts["credit"] = payments.payee_account(self.network, to, currency)
        told = {"id": f"r{next(self.numbers)}", "category": "any", "requester": "worker-1", **accounts, **fields}
        return PaymentRequest(amount=amount, expires_at=payments.NEVER, **{"currency": "ETH", **told})

    def decision(self, request: PaymentRequest, verdict: str = "approved") -> CfoDecision:
        told = {"request_id": request.id, "request_digest": request.digest(), "at": self.bench.at, "risk": 0.1}
        return signed(CfoDecision.model_validate({**told, "verdict": verdict}), self.cfo_key)

    async def filed(self, amount: int = ETH, **fields: Any) -> PaymentRequest:
        """A request that is in the ledger, and nobody has said anything of."""
        request = self.ask(amount, **fields)
        account = Account(id=request.credit, kind=AccountKind.OUTSIDE, currency=request.currency)
        written(await self.app.write([account, request]))
        return request

    async def asked(self, amount: int = ETH, *, approved: bool = True, **fields: Any) -> PaymentRequest:
        """A request that the CFO has agreed to, and (unless told otherwise) Ann."""
        request = await self.filed(amount, **fields)
        written(await self.cfo.write([self.decision(request)]))
        if approved:
            word = approve(request, approver="ann", key=self.ann_key, at=self.bench.at, expires_at=payments.NEVER)
            written(await self.approver.write([word]))
        return request

    async def reserved(self, amount: int = ETH, **fields: Any) -> PaymentRequest:
        """One that is set aside, too."""
        request = await self.asked(amount, **fields)
        written(await self.app.write([moved(request)]))
        return request

    async def let_go(self, request: PaymentRequest) -> None:
        """The application says that it is not to be paid after all."""
        written(await self.app.write([Transfer(id="let-go", kind=TransferKind.VOID, request_id=request.id, amount=0)]))

    async def authorise(self, request: PaymentRequest) -> Outcome:
        """What the CFO's desk does: file it, decide it, set it aside."""
        written(await self.app.write([request]))
        written(await self.cfo.write([self.decision(request)]))
        [outcome] = await self.app.write([moved(request)])
        return outcome

    async def mined(self, blocks: int = 1) -> None:
        """So many blocks, and a look at what is on its way."""
        self.anvil.mine(blocks)
        await self.payer.watch()

    async def balance(self, account: str) -> Balance:
        return await self.app.balance(account)

    async def end(self, request: PaymentRequest) -> TransferKind | None:
        """How it ended in the ledger."""
        kinds = [each.kind for each in await self.app.transfers(request.id)]
        return kinds[1] if len(kinds) == 2 else None

    async def audit(self) -> None:
        """The ledger's own rows are sound, and say what the chain says."""
        rows, page = [], await self.app.rows()
        while page:
            rows += page
            page = await self.app.rows(after=rows[-1][0])
        balances = [await self.app.balance(str(told["id"])) for _, table, told, _ in rows if table == "account"]
        report = examine(
            rows,
            balances,
            await self.app.caps(),
            at=self.bench.at,
            head=await self.app.head(),
            verify=self.keyring.verify,
        )
        assert report.ok, report.findings
        found = await self.payer.reconcile()
        assert found.ok is self.sound, found.findings


def moved(request: PaymentRequest, kind: TransferKind = TransferKind.PENDING) -> Transfer:
    return Transfer(id=f"{request.id}/begin", kind=kind, request_id=request.id, amount=request.amount)


def written(outcomes: list[Outcome]) -> None:
    refused = [each for each in outcomes if isinstance(each, Refused)]
    assert not refused, refused


def log_of(told: dict[str, Any]) -> Log:
    """An event as the node tells it in JSON."""
    return Log(
        address=to_checksum_address(told["address"]),
        topics=tuple(told["topics"]),
        data=told["data"],
        block=int(told["blockNumber"], 16),
        tx_hash=told["transactionHash"],
    )
