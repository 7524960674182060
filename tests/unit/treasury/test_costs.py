"""What missions spend on models: reserved before, posted after, and few transfers for many missions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chimera.core.errors import BudgetExceeded, InputError
from chimera.treasury.costs import MODELS, ROLL_S, MissionCosts
from chimera.treasury.types import NANO, Account, AccountKind, Cap, Window
from tests.ledger_house import House
from tests.ledgers_sqlite import SqliteBench
from tests.treasury_desk import AtDesk, working

DAILY = Cap(window=Window.LAST_DAY, limit=10 * NANO)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    bench = SqliteBench(tmp_path / "ledger.db")
    house = await House(bench).begin(caps=(DAILY,))
    await house.owner.write([Account(id=MODELS, kind=AccountKind.METERED)])
    try:
        yield house
    finally:
        await house.audit()
        await bench.close()


@asynccontextmanager
async def spending(house: House, *, close: bool = True) -> AsyncIterator[MissionCosts]:
    async with working(house) as desk:
        costs = MissionCosts(
            payments=AtDesk(house, desk),
            swarm="swarm-1",
            fund="cash",
            clock=house.bench.clock,  # type: ignore[attr-defined]
        )
        await costs.begin()
        yield costs
        if close:
            await costs.close()


async def spent(house: House) -> tuple[int, int]:
    """Posted to the models, and still set aside for them."""
    found = await house.app.balance(MODELS)
    return found.posted, found.pending_in


async def test_a_budget_is_set_aside_before_and_what_was_spent_posted_after(house: House) -> None:
    async with spending(house) as costs:
        await costs.reserve("m1", 2.5, 60)
        await costs.reserve("m1", 2.5, 60)
        assert await spent(house) == (0, 2_500_000_000)
        costs.settle("m1", 0.75)
        costs.settle("m1", 0.75)
    assert await spent(house) == (750_000_000, 0)
    assert await house.used(DAILY) == 750_000_000


async def test_a_mission_that_spent_nothing_leaves_nothing_set_aside(house: House) -> None:
    async with spending(house) as costs:
        await costs.reserve("m1", 2.5, 60)
        costs.settle("m1", 0.0)
    assert await spent(house) == (0, 0)


async def test_more_than_was_set_aside_is_never_posted(house: House) -> None:
    async with spending(house) as costs:
        await costs.reserve("m1", 1.0, 60)
        costs.settle("m1", 3.0)
    assert await spent(house) == (NANO, 0)


async def test_a_hundred_missions_without_budget_are_a_few_transfers(house: House) -> None:
    before = (await house.app.head()).seq
    async with spending(house) as costs:
        await asyncio.gather(*(costs.reserve(f"m{n}", None, 60) for n in range(100)))
        held = (await spent(house))[1]
        assert held == 5 * NANO, "all that they may spend is set aside"
        for n in range(100):
            costs.settle(f"m{n}", 0.01)
    assert await spent(house) == (NANO, 0)
    assert (await house.app.head()).seq - before == 5 * 4, "a request, a decision and two transfers for each of five"


async def test_the_cap_of_the_ledger_ends_what_missions_may_spend(house: House) -> None:
    async with spending(house) as costs:
        await costs.reserve("m1", 9.5, 60)
        with pytest.raises(BudgetExceeded, match="the treasury does not set 1"):
            await costs.reserve("m2", 1.0, 60)
        with pytest.raises(BudgetExceeded):
            await costs.reserve("m3", None, 60)
        costs.settle("m1", 1.0)
        await asyncio.sleep(0.3)
        await costs.reserve("m4", None, 60)
        costs.settle("m4", 0.0)


async def test_a_mission_can_have_a_fund_of_its_own(house: House) -> None:
    await house.app.write([Account(id="mission:m1", kind=AccountKind.FUND)])
    async with spending(house) as costs:
        with pytest.raises(BudgetExceeded, match="the account has less than that"):
            await costs.reserve("m1", 1.0, 60)


async def test_what_a_crash_left_shared_counts_as_spent(house: House) -> None:
    async with spending(house, close=False) as costs:
        await costs.reserve("m1", None, 60)
    async with spending(house) as costs:
        assert await spent(house) == (NANO, 0)
        await costs.resume("m1")
        costs.settle("m1", 0.02)
    assert await spent(house) == (1_020_000_000, 0)


async def test_a_budget_outlives_a_crash(house: House) -> None:
    async with spending(house, close=False) as costs:
        await costs.reserve("m1", 3.0, 60)
    house.bench.advance(1_000_000)
    async with spending(house) as costs:
        await costs.resume("m1")
        assert await spent(house) == (0, 3 * NANO)
        costs.settle("m1", 1.5)
    assert await spent(house) == (1_500_000_000, 0)


async def test_a_shared_reservation_is_posted_after_a_while(house: House) -> None:
    async with spending(house, close=False) as costs:
        await costs.reserve("m1", None, 60)
        house.bench.advance(int(ROLL_S * 1_000_000) + 1_000_000)
        costs.settle("m1", 0.02)
        await asyncio.sleep(0.3)
        assert await spent(house) == (20_000_000, 0)


def test_a_share_has_to_fit() -> None:
    with pytest.raises(InputError):
        MissionCosts(payments=None, swarm="s", fund="f", clock=None, chunk_usd=1, grant_usd=2)  # type: ignore[arg-type]
