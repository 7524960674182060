"""The CFO's desk over a real ledger: what is decided, moved, refused and taken up again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chimera.core.errors import InputError
from chimera.treasury.payment import PaymentState
from chimera.treasury.types import DAY_US, NANO, Account, AccountKind, PaymentRequest, Transfer, TransferKind
from tests.ledger_house import House, approval, decision
from tests.ledgers_sqlite import SqliteBench
from tests.treasury_desk import HouseSigner, paid, working


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    bench = SqliteBench(tmp_path / "ledger.db")
    house = await House(bench).begin()
    try:
        yield house
    finally:
        await house.audit()
        await bench.close()


def soon(house: House, amount: int = NANO, **fields: object) -> PaymentRequest:
    return house.ask(amount, **{"expires_at": house.bench.at + 3_600_000_000, **fields})


async def test_a_small_payment_is_decided_and_paid(house: House) -> None:
    async with working(house) as desk:
        request = soon(house, 12 * NANO)
        found = await paid(desk, request)
        assert found.state is PaymentState.PAID and found.moved == 12 * NANO
        assert found.decision is not None and found.decision.verdict == "approved"
        again = await paid(desk, request)
        assert again == found
    assert (await house.app.balance("acme")).posted == 12 * NANO


async def test_many_at_once_share_decisions_and_none_is_lost(house: House) -> None:
    async with working(house) as desk:
        requests = [soon(house, NANO // 10, credit=("acme", "globex")[n % 2], requester=f"w{n}") for n in range(60)]
        found = await asyncio.gather(*(paid(desk, request) for request in requests))
    assert {each.state for each in found} == {PaymentState.PAID}


async def test_above_the_limit_a_person_is_asked_and_the_payment_goes_on_by_itself(house: House) -> None:
    async with working(house) as desk:
        request = soon(house, 80 * NANO)
        found = await paid(desk, request)
        assert found.state is PaymentState.WAITING
        assert [each.id for each in await house.app.waiting()] == [request.id]
        await house.approver.write([approval(request, "ann")])
        assert (await desk.settled(request.id, 10)).state is PaymentState.PAID


async def test_a_person_refuses(house: House) -> None:
    async with working(house) as desk:
        request = soon(house, 80 * NANO)
        await paid(desk, request)
        await house.approver.write([approval(request, "ann", verdict="refused")])
        found = await desk.settled(request.id, 10)
        assert found.state is PaymentState.REFUSED and "ann" in found.why


async def test_a_large_one_waits_for_the_second_key(house: House) -> None:
    async with working(house) as desk:
        request = soon(house, 600 * NANO)
        await paid(desk, request)
        await house.approver.write([approval(request, "ann")])
        desk.nudge()
        assert (await desk.settled(request.id, 0.6)).state is PaymentState.WAITING
        await house.approver.write([approval(request, "bob")])
        assert (await desk.settled(request.id, 10)).state is PaymentState.PAID


async def test_what_the_ledger_refuses_is_the_cfos_last_word(house: House) -> None:
    async with working(house) as desk:
        request = soon(house, 2_000 * NANO)
        await paid(desk, request)
        await house.approver.write([approval(request, "ann"), approval(request, "bob")])
        found = await desk.settled(request.id, 10)
        assert found.state is PaymentState.REFUSED and "more would be spent than may be" in found.why
        house.bench.advance(2 * DAY_US)  # there would be room now, but it was refused
        desk.nudge()
        await asyncio.sleep(0.5)
        assert not await house.app.transfers(request.id)


async def test_split_payments_end_with_a_person(house: House) -> None:
    async with working(house) as desk:
        states = []
        for _ in range(4):
            states.append((await paid(desk, soon(house, 20 * NANO))).state)
            house.bench.advance(600_000_000)
        assert PaymentState.WAITING in states
        assert (await house.app.balance("acme")).posted <= 50 * NANO


async def test_what_is_paid_by_use_is_reserved_until_it_is_settled(house: House) -> None:
    async with working(house) as desk:
        request = soon(house, 5 * NANO, credit="model")
        assert (await paid(desk, request)).state is PaymentState.RESERVED
        assert [each.id for each in await desk.reserved("r")] == [request.id]
        await desk.settle(request.id, 2 * NANO)
        await desk.settle(request.id, 2 * NANO)
        found = await desk.settled(request.id, 5)
        assert found.state is PaymentState.PAID and found.moved == 2 * NANO
    assert (await house.app.balance("cash")).pending_out == 0


async def test_a_desk_that_died_is_followed_by_one_that_goes_on(house: House) -> None:
    """Each step a crash could leave behind: filed, decided, approved."""
    filed, decided, approved = soon(house, NANO), soon(house, NANO), soon(house, 70 * NANO)
    await house.app.write([filed, decided, approved])
    await house.cfo.write([decision(decided), decision(approved, "ask")])
    await house.approver.write([approval(approved, "ann")])
    async with working(house) as desk:
        for request in (filed, decided, approved):
            assert (await desk.settled(request.id, 10)).state is PaymentState.PAID


async def test_a_payment_to_an_address_is_only_posted_by_what_carries_it(house: House) -> None:
    carried: list[str] = []

    class Slow:
        def carries(self, request: PaymentRequest) -> bool:
            return request.credit.startswith("evm:")

        async def carry(self, request: PaymentRequest) -> None:
            carried.append(request.id)
            if len(carried) == 1:
                raise InputError("not this time")
            posted = Transfer(id=f"mined-{request.id}", kind=TransferKind.POST, request_id=request.id, amount=NANO)
            await house.app.write([posted])

    await house.app.write([Account(id="evm:1:0xabc", kind=AccountKind.OUTSIDE)])
    request = soon(house, NANO, credit="evm:1:0xabc")
    async with working(house) as desk:
        assert (await paid(desk, request)).state is PaymentState.RESERVED
        desk.nudge()
        assert (await desk.settled(request.id, 0.5)).state is PaymentState.RESERVED
    async with working(house, rails=[Slow()]) as desk:
        assert (await desk.settled(request.id, 10)).state is PaymentState.PAID
    assert len(carried) == 2


async def test_what_cannot_be_filed_is_an_error_that_says_why(house: House) -> None:
    async with working(house) as desk:
        with pytest.raises(InputError, match="no such credit account"):
            await paid(desk, soon(house, NANO, credit="nobody"))
        with pytest.raises(InputError, match="there is no request"):
            await desk.payment("r-none")


async def test_a_stop_ends_what_is_asked_for_meanwhile(house: House) -> None:
    await house.cfo.stop("an anomaly", "cfo")
    async with working(house) as desk:
        found = await paid(desk, soon(house))
        assert found.state is PaymentState.REFUSED and "stopped" in found.why
        await house.approver.resume("ann")
        assert (await paid(desk, soon(house))).state is PaymentState.PAID


async def test_what_the_signer_will_not_decide_expires(house: House) -> None:
    class Mute(HouseSigner):
        async def decide(self, proposals):  # type: ignore[no-untyped-def]
            self.asked += proposals
            from chimera.treasury.types import RefusalReason, Refused

            return [Refused(id=each.request_id, reason=RefusalReason.UNKNOWN, detail="no") for each in proposals]

    from chimera.treasury.desk import Desk

    signer = Mute(house)
    desk = Desk(ledger=house.app, signer=signer, clock=house.bench.clock)  # type: ignore[attr-defined]
    request = soon(house)
    await house.app.write([request])
    for _ in range(5):
        await desk.step()
    assert len(signer.asked) == 1
    house.bench.advance(DAY_US)
    await desk.step()
    assert (await desk.payment(request.id)).state is PaymentState.EXPIRED
