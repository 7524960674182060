"""A swarm whose missions are paid for by a treasury: set aside before, posted once after, whoever dies in between."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from chimera.actors import cluster
from chimera.actors.cfo import CFO
from chimera.actors.ledger import ask
from chimera.core.errors import BudgetExceeded, LedgerUnavailable
from chimera.core.types import Budget
from chimera.treasury.costs import MODELS
from chimera.treasury.types import NANO, Account, AccountKind, Cap, Transfer, TransferKind, Window
from tests.actors.in_process import until
from tests.cluster import treasury_chaos as chaos
from tests.cluster.treasury_chaos import House

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

CENT = NANO // 100
POLICY = "tests.cluster.treasury_policies:costs"
SHORT = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(local_ray: Settings) -> AsyncIterator[House]:
    async with chaos.house(local_ray) as house:
        yield house


@asynccontextmanager
async def beginning(house: House, local_ray: Settings) -> AsyncIterator[SwarmCoordinator]:
    """A swarm whose missions `cash` pays for."""
    settings = Settings(address=local_ray.address, cells=1, home=house.treasury.place.home, treasury_fund="cash")
    async with SwarmCoordinator(max_agents=50, settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(policy=POLICY)] * 20)
        yield swarm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def swarm(house: House, local_ray: Settings) -> AsyncIterator[SwarmCoordinator]:
    async with beginning(house, local_ray) as swarm:
        yield swarm


def task(usd: float, seconds: float = 0.0) -> Task:
    return Task(goal="g", replicas=1, inputs={"usd": usd, "seconds": seconds}, deadline_s=60.0)


async def posted(house: House) -> int:
    """What the models got by now, in cents, when nothing is set aside for them any more."""
    ledger = house.treasury.ledger()

    async def nothing_set_aside() -> bool:
        return not (await ledger.balance(MODELS)).pending_in

    await until(nothing_set_aside, SHORT)
    found = (await ledger.balance(MODELS)).posted
    assert found % CENT == 0
    return found // CENT


async def ends(house: House) -> list[str]:
    """The requests whose reservations have ended, one for each time."""
    rows = await chaos.rows(house)
    return [row.request_id for row in rows if isinstance(row, Transfer) and row.kind is TransferKind.POST]


async def test_without_a_treasury_it_is_said_how_to_start_one(local_ray: Settings, home: Path) -> None:
    settings = Settings(address=local_ray.address, cells=1, home=home, treasury_fund="cash")
    before = set(cluster.names())
    with pytest.raises(LedgerUnavailable, match="`chimera treasury run` starts it"):
        async with SwarmCoordinator(max_agents=5, settings=settings):
            pytest.fail("a swarm that cannot pay has started")
    assert not [name for name in set(cluster.names()) - before if name.endswith("/Coordinator")]


async def test_what_missions_spend_is_posted_and_the_rest_is_free(house: House, swarm: SwarmCoordinator) -> None:
    before = await posted(house)
    results = await asyncio.gather(*(swarm.submit_task(task(0.25), budget=Budget(usd=2.0)) for _ in range(8)))
    assert [result.cost_usd for result in results] == [0.25] * 8
    assert await posted(house) == before + 200
    assert (await house.treasury.ledger().balance("cash")).pending_out == 0


async def test_a_mission_that_the_caps_leave_no_money_for_is_refused(house: House, swarm: SwarmCoordinator) -> None:
    before = await posted(house)
    used = next(use.used for use in await house.treasury.caps() if use.cap.window is Window.LAST_DAY)
    await house.treasury.set_cap(Cap(window=Window.LAST_DAY, limit=used + 300 * CENT))
    with pytest.raises(BudgetExceeded, match=r"does not set 4\.00 USD aside"):
        await swarm.submit_task(task(0.25), budget=Budget(usd=4.0))
    assert (await swarm.submit_task(task(0.25), budget=Budget(usd=3.0))).value == 42, "for this there is room"
    assert await posted(house) == before + 25
    await house.treasury.set_cap(Cap(window=Window.LAST_DAY, limit=1_000 * NANO))
    assert (await swarm.submit_task(task(0.25), budget=Budget(usd=4.0))).value == 42
    assert await posted(house) == before + 50


async def test_small_missions_without_a_budget_are_few_rows(house: House, local_ray: Settings) -> None:
    before, rows = await posted(house), (await house.treasury.ledger().head()).seq
    async with beginning(house, local_ray) as swarm:
        results = await asyncio.gather(*(swarm.submit_task(task(0.01)) for _ in range(300)))
        assert {result.value for result in results} == {42}
    assert await posted(house) == before + 300, "when the swarm has ended, to the cent"
    rows = (await house.treasury.ledger().head()).seq - rows
    assert 4 <= rows <= 100, "a dollar is set aside at a time"


async def test_a_coordinator_that_dies_posts_each_mission_once(house: House, swarm: SwarmCoordinator) -> None:
    before = await posted_of(house, swarm)
    started = [await swarm.start_task(task(0.5, seconds=1.0), budget=Budget(usd=2.0)) for _ in range(6)]
    os.kill((await swarm.status()).pid, signal.SIGKILL)
    results = await asyncio.gather(*map(swarm.result, started))
    assert [result.cost_usd for result in results] == [0.5] * 6
    assert await posted_of(house, swarm) == before + 300
    ended = await ends(house)
    assert len(ended) == len(set(ended))


async def test_what_had_ended_and_was_not_posted_yet_is_posted_by_the_next(
    house: House, swarm: SwarmCoordinator
) -> None:
    before = await posted_of(house, swarm)
    started = [await swarm.start_task(task(0.5, seconds=0.5), budget=Budget(usd=2.0)) for _ in range(4)]
    await house.kill("cfo")  # who would post it
    await asyncio.gather(*map(swarm.result, started))
    os.kill((await swarm.status()).pid, signal.SIGKILL)
    assert await posted_of(house, swarm) == before + 200


async def posted_of(house: House, swarm: SwarmCoordinator) -> int:
    """As `posted`, of a swarm that is there."""
    await swarm.status()
    return await posted(house)


async def test_the_audit_of_all_that_finds_nothing(house: House, swarm: SwarmCoordinator) -> None:
    assert (await house.treasury.verify()).ok


async def test_what_a_swarm_knows_of_an_agent_counts_when_it_asks_for_money(house: House) -> None:
    for name in ("payee-1", "payee-2"):
        await house.treasury.add_account(Account(id=name, kind=AccountKind.OUTSIDE))
    await ask(cluster.find(CFO), "repute", "some-swarm", {"shady-1": 0.02})
    pay = house.treasury.pay
    honest = await pay(debit="cash", credit="payee-1", amount="1.00", category="one", requester="honest-1")
    shady = await pay(debit="cash", credit="payee-2", amount="3.00", category="two", requester="shady-1")
    assert honest.decision is not None and shady.decision is not None
    assert honest.decision.risk < 0.5 < shady.decision.risk


async def test_a_swarm_tells_the_cfo_whom_it_does_not_trust(swarm: SwarmCoordinator) -> None:
    handle = cluster.find(CFO)

    async def told() -> bool:
        return swarm.name in await handle.__ray_call__.remote(lambda cfo: list(cfo._reputations))

    await until(told, 60.0)
