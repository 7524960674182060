"""An audit while others write: it finds nothing where nothing was done, and says whether it could compare the sums."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from chimera.core.clock import ManualClock
from chimera.treasury import auditing
from chimera.treasury.auditing import LedgerAudit, audit_ledger
from chimera.treasury.ledger import Head, Ledger
from chimera.treasury.types import NANO, Balance, CapUse
from tests.ledger_house import House
from tests.ledgers import verify


async def audit(house: House, ledger: Any = None) -> LedgerAudit:
    clock = ManualClock(house.bench.at / 1e6)
    return await audit_ledger(ledger or house.approver, verify=verify, clock=clock)


async def test_it_is_right_while_others_write(house: House) -> None:
    """Through the approver's connection, so that it takes turns with the application's."""
    stopping = asyncio.Event()

    async def spend() -> None:
        while not stopping.is_set():
            request = await house.asked(amount=1_000)
            assert await house.move(request, "pending") is None
            assert await house.move(request, "post", 400) is None

    spending = [asyncio.create_task(spend()) for _ in range(4)]
    reports = [await audit(house) for _ in range(3)]
    stopping.set()
    await asyncio.gather(*spending)
    reports.append(await audit(house))
    assert [report.findings for report in reports] == [()] * 4
    assert reports[0].rows < reports[-1].rows == (await house.app.head()).seq
    assert reports[-1].compared


class Moving:
    """A ledger in which somebody writes whenever one looks at its head, `times` times."""

    def __init__(self, house: House, times: int) -> None:
        self.house, self.left = house, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.house.approver, name)

    async def head(self) -> Head:
        if self.left:
            self.left -= 1
            assert await self.house.pay(1_000) is None
        return await self.house.approver.head()


async def test_sums_are_compared_once_nobody_writes(house: House) -> None:
    report = await audit(house, Moving(house, 7))
    assert report.ok and report.compared and report.head == await house.app.head()


async def test_where_it_never_stops_it_says_that_sums_were_not_compared(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "TRIES", 4)
    report = await audit(house, Moving(house, 10**6))
    assert report.ok and not report.compared and report.rows > 0


class Lying:
    """A ledger that says something else than it holds."""

    def __init__(self, ledger: Ledger, **lies: Callable[[Any], Any]) -> None:
        self.ledger, self.lies = ledger, lies

    def __getattr__(self, name: str) -> Any:
        ask = getattr(self.ledger, name)
        if name not in self.lies:
            return ask

        async def lie(*args: Any, **kwargs: Any) -> Any:
            return self.lies[name](await ask(*args, **kwargs))

        return lie


def richer(balance: Balance) -> Balance:
    return balance.model_copy(update={"posted": balance.posted + 5 * (balance.account == "cash")})


def less(caps: list[CapUse]) -> list[CapUse]:
    return [caps[0].model_copy(update={"used": caps[0].used - 1}), *caps[1:]]


def earlier(page: list[Any]) -> Callable[[Head], Head]:
    return lambda head: Head(seq=page[-2][0], hash=page[-2][3])


async def test_sums_that_do_not_follow_from_the_rows_are_found(house: House) -> None:
    assert await house.pay(3 * NANO) is None
    rows = await house.app.rows()
    lies: dict[str, tuple[Callable[[Any], Any], str]] = {
        "balance": (richer, "the balance of cash"),
        "caps": (less, "of the cap"),
        "head": (earlier(rows), "rows go on after"),
        "rows": (lambda page: [row for row in page if row[0] != rows[-1][0]], "the database says that the rows end"),
    }
    for name, (lie, said) in lies.items():
        report = await audit(house, Lying(house.approver, **{name: lie}))
        assert any(said in finding.what for finding in report.findings), (name, report)
        assert report.compared
    assert (await audit(house)).ok


async def test_a_row_that_is_not_what_it_was_is_found_once(house: House) -> None:
    assert await house.pay(3 * NANO) is None

    def changed(page: list[Any]) -> list[Any]:
        return [
            (seq, table, {**told, "amount": 1} if table == "request" else told, hash_)
            for seq, table, told, hash_ in page
        ]

    report = await audit(house, Lying(house.approver, rows=changed))
    found = [finding.what for finding in report.findings]
    assert any("is not what it was" in what for what in found)
    assert len(found) == len(set(found))


async def test_a_sum_that_was_wrong_for_a_moment_alone_is_no_fault(house: House) -> None:
    """As where a spend leaves its window between two questions."""
    looks = count()
    report = await audit(house, Lying(house.approver, caps=lambda caps: less(caps) if next(looks) == 0 else caps))
    assert report.ok and report.compared
