"""Many who spend at once, and a server that is killed: no cap is passed, nothing is lost, doubled or half done."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chimera.treasury.ledger import Ledger, LedgerRole
from chimera.treasury.periods import EPOCH
from chimera.treasury.types import (
    DAY_US,
    NANO,
    Account,
    AccountKind,
    Cap,
    Rules,
    Transfer,
    Window,
    Written,
)
from tests.ledger_house import House, decision, transfer
from tests.ledger_spenders import SPENDERS
from tests.ledgers import PostgresBench
from tests.servers import PostgresServer

PROCESSES = 8
ROOT = Path(__file__).parent.parent.parent


def rush(bench: PostgresBench, name: str, share: int) -> Counter[str]:
    """What came of all requests of 8 processes with 8 spenders each."""
    urls = [bench.url(LedgerRole.APP), bench.url(LedgerRole.CFO)]
    command = [sys.executable, "-m", "tests.ledger_spenders", *urls]
    processes = [
        subprocess.Popen([*command, f"{name}-{i}", str(share)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for i in range(PROCESSES)
    ]
    found: Counter[str] = Counter()
    for process in processes:
        told, _ = process.communicate(timeout=110)
        found.update(json.loads(told))
    return found


async def opened(bench: PostgresBench, limits: dict[Window, int]) -> House:
    """A house with a second currency, in which nothing is scarce."""
    house = await House(bench).begin(caps=tuple(Cap(window=window, limit=limit) for window, limit in limits.items()))
    await house.owner.set_cap(Cap(currency="EUR", window=Window.LAST_DAY, limit=NANO))
    await house.owner.set_rules(Rules(currency="EUR"))
    await house.owner.write([Account(id="paris", kind=AccountKind.METERED, currency="EUR")])
    await house.app.write([Account(id="euros", kind=AccountKind.FUND, currency="EUR")])
    assert await house.pay(NANO, debit="paris", credit="euros", currency="EUR") is None
    return house


async def test_64_spenders_in_8_processes_get_what_the_cap_leaves_and_no_billionth_more(
    postgres_server: PostgresServer,
) -> None:
    bench = await PostgresBench(postgres_server, stands=False).begin()
    house = await opened(bench, {Window.LAST_DAY: 100})
    found = rush(bench, "one", 4)
    each = 4 * PROCESSES * SPENDERS
    assert found == {"USD written": 100, "USD cap": each - 100, "EUR written": each}
    assert (await house.app.balance("model")).posted == 100
    await house.audit()  # at every row, and not only at the last
    await bench.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_caps_hold_for_a_minute_across_midnights_and_the_ends_of_weeks_and_months(
    postgres_server: PostgresServer,
) -> None:
    bench = await PostgresBench(postgres_server).begin()
    share, each, day = 10, 10 * PROCESSES * SPENDERS, 400
    limits = {Window.DAY: day, Window.WEEK: 2 * day + 1, Window.MONTH: 4 * day}
    house = await opened(bench, limits)
    until, step = time.monotonic() + 60.0, 0
    for date in ("9-21", "9-22", "9-23", "9-28", "9-29", "9-30", "10-1", "10-5", "10-6"):
        month, number = map(int, date.split("-"))
        at = (datetime(2026, month, number, tzinfo=UTC) - EPOCH).total_seconds() * 1_000_000
        bench.advance(max(0, int(at) - bench.at))
        left = min(use.cap.limit - use.used for use in await house.app.caps() if use.cap.currency == "USD")
        found = await asyncio.to_thread(rush, bench, f"d{step}", share)
        assert found["USD written"] == min(left, each) and found["EUR written"] == each, (date, found)
        step += 1
    while time.monotonic() < until:
        bench.advance(DAY_US)
        found = await asyncio.to_thread(rush, bench, f"d{step}", share)
        assert found["EUR written"] == each
        step += 1
    await house.audit()
    await bench.close()


Told = list[tuple[Transfer, Written]]


async def lives(house: House, ledger: Ledger, name: str, told: Told, over: asyncio.Event) -> None:
    """Sets money aside, posts half of it, and again, until it is over; `told` is what it was told is written."""
    number = 0
    while not over.is_set():
        number += 1
        request = house.ask(10, credit="model", id=f"{name}-{number}")
        for writer, row in ((ledger, request), (house.cfo, decision(request))):
            (outcome,) = await writer.write([row])
            assert isinstance(outcome, Written)
        for row in (transfer(request, "pending"), transfer(request, "post", 5)):
            (outcome,) = await ledger.write([row])
            assert isinstance(outcome, Written), outcome
            told.append((row, outcome))


async def reached(told: Told, enough: int, tasks: list[asyncio.Task[None]]) -> None:
    """Until so much was told, or somebody fails."""
    for _ in range(60_000):
        if len(told) >= enough or any(task.done() for task in tasks):
            return
        await asyncio.sleep(0.001)
    raise AssertionError("nothing is written any more")


async def begun(server: PostgresServer) -> tuple[PostgresBench, House, list[Ledger]]:
    bench = await PostgresBench(server).begin()
    house = await House(bench).begin()
    ledgers = [await bench.open(LedgerRole.APP) for _ in range(4)]
    for ledger in [*ledgers, house.cfo, house.approver, house.owner]:
        await ledger.head()
    return bench, house, ledgers


async def killed(seed: int, times: int) -> None:
    """The server is killed `times` times while four spend, and started again."""
    server, chance = PostgresServer(), random.Random(seed)
    server.start()
    try:
        bench, house, ledgers = await begun(server)
        told: Told = []
        over = asyncio.Event()
        lives_on = [asyncio.create_task(lives(house, each, f"s{i}", told, over)) for i, each in enumerate(ledgers)]
        for _ in range(times):
            enough = len(told) + chance.randint(5, 40)
            await reached(told, enough, lives_on)
            await asyncio.sleep(chance.random() / 100)
            server.kill()
            await asyncio.to_thread(server.start)
        enough = len(told) + 10
        await reached(told, enough, lives_on)
        over.set()
        await asyncio.gather(*lives_on)
        book = await house.audit()
        rows = {seq: hash_ for seq, _, _, hash_ in await all_rows(house)}
        assert len(told) == 2 * len({row.request_id for row, _ in told}) and not book.open
        assert all(rows[outcome.seq] == outcome.hash for _, outcome in told)
        paid = (await house.app.balance("model")).posted
        assert paid == 5 * len({row.request_id for row, _ in told})
        await bench.close()
    finally:
        server.stop()


async def all_rows(house: House) -> list[tuple[int, str, dict[str, str | int], str]]:
    rows = await house.app.rows()
    while page := await house.app.rows(after=len(rows)):
        rows += page
    return rows


async def test_a_server_that_is_killed_loses_doubles_and_halves_nothing() -> None:
    await killed(1, 2)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 12))
async def test_a_server_that_is_killed_many_times_loses_doubles_and_halves_nothing(seed: int) -> None:
    await killed(seed, 5)
