"""Random rows, words, transfers and jumps of the clock: each outcome and every sum is what the oracle says."""

from __future__ import annotations

import random

import pytest

from chimera.treasury.book import Book
from chimera.treasury.ledger import Row
from chimera.treasury.types import DAY_US, NANO, Cap, PaymentRequest, Refused, Rules, Window
from tests.ledger_house import NEVER, House, approval, decision, owner_of, reason, refuses, transfer
from tests.ledgers import Bench

CAPS = (
    Cap(window=Window.LAST_DAY, limit=300 * NANO),
    Cap(window=Window.WEEK, limit=500 * NANO),
    Cap(window=Window.MONTH, limit=1_200 * NANO),
    Cap(account="mission-a", window=Window.LAST_WEEK, limit=200 * NANO),
    Cap(account="cash", window=Window.DAY, limit=250 * NANO),
)
AMOUNTS = [1, 20 * NANO, 30 * NANO, 50 * NANO, 50 * NANO + 1, 100 * NANO, 200 * NANO, 200 * NANO + 1, 250 * NANO]
LATER = [0, 0, 0, 0, 0, 1, 3_600_000_000, 3_600_000_000, DAY_US // 2, DAY_US - 1, 6 * DAY_US]
STEPS = 60


class Walk:
    """Somebody who tries everything, and the oracle that knows what should come of it."""

    def __init__(self, house: House, book: Book, seed: int) -> None:
        self.house, self.book = house, book
        self.random = random.Random(seed)
        self.requests: list[PaymentRequest] = []
        self.seen: set[str] = set()

    def request(self) -> PaymentRequest:
        pick, now = self.random.choice, self.house.bench.at
        request = self.house.ask(
            pick(AMOUNTS),
            pick(("cash", "mission-a")),
            pick(("acme", "acme", "globex", "model", "cash", "nobody")),
            mission=pick(("", "m1", "m2")),
            expires_at=pick((NEVER, NEVER, now, now + 1, now + DAY_US)),
        )
        self.requests.append(request)
        return request

    def row(self) -> Row:
        """Of any kind, mostly about one of the last requests."""
        pick, now = self.random.choice, self.house.bench.at
        request = pick(self.requests[-6:])
        match self.random.random():
            case roll if roll < 0.2:
                return decision(
                    request, pick(("approved", "approved", "ask", "refused")), at=self.random.getrandbits(40)
                )
            case roll if roll < 0.4:
                who, verdict = pick(("ann", "bob", "worker-1")), pick(("approved",) * 5 + ("refused",))
                until = pick((NEVER, now, now + DAY_US))
                return approval(request, who, signed=pick((True, False)), verdict=verdict, expires_at=until)
            case roll if roll < 0.75:
                until = pick((0, 0, now, now + 1, now + DAY_US))
                return transfer(request, pick(("pending", "posted")), expires_at=until, id=self.name())
            case _:
                moved = self.opened(request)
                amount = pick((moved.amount, moved.amount, moved.amount // 2, 1, 0))
                return transfer(moved, pick(("post", "post", "void")), pick((None, amount)), id=self.name())

    def opened(self, request: PaymentRequest) -> PaymentRequest:
        """One for which money is set aside, if there is any."""
        return self.random.choice([*(each.request for each in self.book.open.values()), request])

    def name(self) -> str:
        return f"t{next(self.house.numbers)}"

    async def write(self, rows: list[Row]) -> None:
        """One batch of rows that one role writes."""
        wanted = []
        at = self.house.bench.at
        for row in rows:
            refusal = refuses(self.book, row, at)
            wanted.append(refusal)
            if refusal is None:
                self.book.add(row, at)
        outcomes = await getattr(self.house, owner_of(rows[0])).write(rows)
        assert [reason(each) for each in outcomes] == wanted, [each for each in outcomes if isinstance(each, Refused)]
        self.seen.update("written" if each is None else each.value for each in wanted)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_random_walk_agrees_with_the_oracle(ledgers: Bench, seed: int) -> None:
    house = await House(ledgers).begin(caps=CAPS)
    await house.owner.set_rules(Rules(ask_over=50 * NANO, dual_over=200 * NANO))
    book = await house.audit()
    walk = Walk(house, book, seed)
    for step in range(STEPS):
        ledgers.advance(walk.random.choice(LATER))
        await walk.write([walk.request() for _ in range(walk.random.randint(1, 4))])
        if walk.random.random() < 0.7:
            likely = [each for each in walk.requests[-4:] if each.id in book.requests]
            await walk.write([decision(each, at=step) for each in likely] or [walk.request()])
            people = [approval(each, who, at=step) for each in likely for who in ("cho", "dan")]
            await walk.write([each for each in people if walk.random.random() < 0.5] or [walk.request()])
        rows = [walk.row() for _ in range(walk.random.randint(3, 8))]
        for role in ("cfo", "approver", "app"):
            if mine := [row for row in rows if owner_of(row) == role]:
                await walk.write(mine)
        if walk.random.random() < 0.05:
            await (house.approver.resume("ann") if book.stopped else house.cfo.stop("why", "cfo"))
            book.stopped = not book.stopped
        await house.compare(book)
    again = await house.audit()
    assert (again.requests, again.moved) == (book.requests, book.moved)
    assert {"written", "cap", "unsigned", "unapproved", "expired", "conflict", "unknown"} <= walk.seen
