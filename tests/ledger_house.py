"""A house with a treasury: its accounts, the people who have a say, and a book in which the oracle reads along."""

from __future__ import annotations

from itertools import count

from chimera.treasury.book import Book
from chimera.treasury.chain import broken
from chimera.treasury.ledger import Ledger, LedgerRole, Row
from chimera.treasury.rows import AnyRow, parse
from chimera.treasury.types import (
    DEFAULT_CAPS,
    NANO,
    Account,
    AccountKind,
    Approval,
    Cap,
    CfoDecision,
    Outcome,
    PaymentRequest,
    RefusalReason,
    Refused,
    Rules,
    Transfer,
    TransferKind,
)
from tests.ledgers import Bench, sign

NEVER = 2**53
FUNDS = ("cash", "mission-a")
OUTSIDE = ("bank", "acme", "globex")
BEGUN = 100_000 * NANO


class House:
    """`bench` with accounts, rules, caps and money in two funds."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.numbers = count(1)
        self.owner: Ledger
        self.app: Ledger
        self.cfo: Ledger
        self.approver: Ledger

    async def begin(self, *, caps: tuple[Cap, ...] = DEFAULT_CAPS) -> House:
        self.owner = await self.bench.open(LedgerRole.OWNER)
        self.app = await self.bench.open(LedgerRole.APP)
        self.cfo = await self.bench.open(LedgerRole.CFO)
        self.approver = await self.bench.open(LedgerRole.APPROVER)
        for cap in caps:
            await self.owner.set_cap(cap)
        await self.owner.set_rules(Rules())
        await self.owner.write([Account(id="model", kind=AccountKind.METERED)])
        accounts = [Account(id=name, kind=AccountKind.FUND) for name in FUNDS]
        accounts += [Account(id=name, kind=AccountKind.OUTSIDE) for name in OUTSIDE]
        assert not any(map(reason, await self.app.write(accounts)))
        for name in FUNDS:
            assert await self.pay(BEGUN, debit="bank", credit=name) is None
        return self

    def ask(self, amount: int = NANO, debit: str = "cash", credit: str = "acme", **fields: object) -> PaymentRequest:
        told = {
            "category": "any",
            "requester": "worker-1",
            "expires_at": NEVER,
            "id": f"r{next(self.numbers)}",
            **fields,
        }
        return PaymentRequest(debit=debit, credit=credit, amount=amount, **told)

    async def asked(
        self, *words: str, amount: int = NANO, verdict: str = "approved", **fields: object
    ) -> PaymentRequest:
        """A request that is written, with the CFO's word and those of people: `ann`, or `ann!` if she signs."""
        request = self.ask(amount, **fields)
        assert reason(*await self.app.write([request])) is None
        assert reason(*await self.cfo.write([decision(request, verdict)])) is None
        for who in words:
            said = approval(request, who.strip("!"), signed=who.endswith("!"))
            assert reason(*await self.approver.write([said])) is None
        return request

    async def pay(self, amount: int, *words: str, **fields: object) -> RefusalReason | None:
        """Ask, decide, approve and post: why it is refused, if it is."""
        return await self.move(await self.asked(*words, amount=amount, **fields))

    async def move(
        self, request: PaymentRequest, kind: str = "posted", amount: int | None = None, expires_at: int = 0
    ) -> RefusalReason | None:
        return reason(*await self.app.write([transfer(request, kind, amount, expires_at)]))

    async def used(self, cap: Cap) -> int:
        (found,) = [use.used for use in await self.app.caps() if use.cap == cap]
        return found

    async def audit(self) -> Book:
        """Every row holds the hash of the one before, the oracle would have let each in, and comes to the same."""
        rows = []
        while more := await self.app.rows(after=len(rows), limit=500):
            rows += more
        assert broken(rows) is None
        head = await self.app.head()
        assert (head.seq, head.hash) == (len(rows), rows[-1][3])
        book = Book()
        for _, table, columns, _ in rows:
            row, at = parse(table, columns), int(columns["at"])
            assert refuses(book, row, at) is None, (row, refuses(book, row, at))
            book.add(row, at)
        await self.compare(book)
        return book

    async def compare(self, book: Book) -> None:
        """The database's balances and sums are the oracle's, and all accounts come to nothing."""
        for cap in book.caps.values():
            assert await self.used(cap) == book.used(cap, self.bench.at), cap
        posted = 0
        book.sweep(self.bench.at)
        for name in book.kinds:
            found, wanted = await self.app.balance(name), book.totals[name]
            assert (found.posted, found.pending_out, found.pending_in) == (
                wanted.posted,
                wanted.pending_out,
                wanted.pending_in,
            ), name
            posted += found.posted
        assert posted == 0


def reason(outcome: Outcome) -> RefusalReason | None:
    return outcome.reason if isinstance(outcome, Refused) else None


def decision(request: PaymentRequest, verdict: str = "approved", **fields: object) -> CfoDecision:
    told = {
        "request_id": request.id,
        "request_digest": request.digest(),
        "at": 0,
        "key_id": "cfo",
        "risk": 0.1,
        **fields,
    }
    word = CfoDecision(verdict=verdict, **told)
    return word.model_copy(update={"signature": sign(word.payload())})


def approval(request: PaymentRequest, who: str, *, signed: bool = False, **fields: object) -> Approval:
    told = {"request_id": request.id, "request_digest": request.digest(), "verdict": "approved", **fields}
    word = Approval(approver=who, **{"at": 0, "expires_at": NEVER, **told})
    return word.model_copy(update={"signature": sign(word.payload())}) if signed else word


def transfer(
    request: PaymentRequest, kind: str = "posted", amount: int | None = None, expires_at: int = 0, **fields: object
) -> Transfer:
    whole = 0 if kind == "void" else request.amount
    told = {"id": f"{kind}-{request.id}", "request_id": request.id, **fields}
    return Transfer(kind=TransferKind(kind), amount=whole if amount is None else amount, expires_at=expires_at, **told)


def refuses(book: Book, row: AnyRow, at: int) -> RefusalReason | None:
    """What the oracle has against a row that nobody wrote before."""
    refusal = None
    match row:
        case PaymentRequest():
            refusal = book.refuses_request(row, at)
        case CfoDecision() | Approval():
            refusal = book.refuses_word(row, at)
        case Transfer():
            refusal = book.refuses_transfer(row, at)
    return refusal[0] if refusal else None


def owner_of(row: Row) -> str:
    """Which of a house's ledgers writes such a row."""
    return "cfo" if isinstance(row, CfoDecision) else "approver" if isinstance(row, Approval) else "app"
