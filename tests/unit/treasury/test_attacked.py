"""What somebody tries who wants money moved that nobody agreed to: at the vault's sockets, and with missions' costs."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chimera.core.errors import BudgetExceeded, InputError
from chimera.treasury.costs import MODELS, MissionCosts
from chimera.treasury.desk import Desk
from chimera.treasury.evm.rail import set_aside
from chimera.treasury.payment import entry_id
from chimera.treasury.types import DAY_US, NANO, Account, AccountKind, Cap, PaymentRequest, RefusalReason, Window
from chimera.treasury.vault import wire
from chimera.treasury.vault.config import VaultConfig, read_config
from chimera.treasury.vault.home import init
from chimera.treasury.vault.server import MAX_CALLS
from tests.ledger_house import House, reason
from tests.ledgers_sqlite import SqliteBench
from tests.ledgers_vault import inside
from tests.treasury_desk import AtDesk, paid, working

SWARM = "swarm-1"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    bench = SqliteBench(tmp_path / "ledger.db")
    house = await House(bench).begin(caps=(Cap(window=Window.LAST_DAY, limit=10 * NANO),))
    await house.owner.write([Account(id=MODELS, kind=AccountKind.METERED)])
    yield house
    await house.audit()
    await bench.close()


def costs_at(house: House, payments: AtDesk) -> MissionCosts:
    return MissionCosts(payments=payments, swarm=SWARM, fund="cash", clock=house.bench.clock)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "currency"), [(AccountKind.OUTSIDE, "USD"), (AccountKind.FUND, "EUR")])
async def test_an_account_named_after_a_mission_pays_for_it_only_if_it_is_a_fund(
    house: House, kind: AccountKind, currency: str
) -> None:
    """Else the caps would not see what the mission spends, or it would have nothing at all."""
    await house.app.write([Account(id=f"mission:{name}", kind=kind, currency=currency) for name in ("m1", "m2")])
    async with working(house) as desk:
        costs = costs_at(house, AtDesk(house, desk))
        with pytest.raises(BudgetExceeded):
            await costs.reserve("m1", 11.0, 60)
        await costs.reserve("m2", 9.0, 60)
        assert (await house.app.balance("cash")).pending_out == 9 * NANO


async def test_a_mission_does_not_spend_under_a_request_that_another_has_filed_in_its_name(house: House) -> None:
    name = entry_id("m1", f"costs/{SWARM}")
    async with working(house) as desk:
        squatter = house.ask(1, id=name, debit="bank", credit=MODELS, requester="agent-7")
        await paid(desk, squatter)
        with pytest.raises(BudgetExceeded, match="and another request"):
            await costs_at(house, AtDesk(house, desk)).reserve("m1", 9.0, 60)


async def test_what_was_spent_of_a_reservation_that_another_has_let_go_is_told(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes transfers can end anybody's reservation. Its money is free again, and what was spent is owed."""
    async with working(house) as desk:
        costs = costs_at(house, AtDesk(house, desk))
        await costs.reserve("m1", 9.0, 60)
        [request] = await desk.reserved(f"costs/{SWARM}/")
        assert await house.move(request, "void") is None
        costs.settle("m1", 5.0)
        await costs.close()
    assert "5.00 USD were spent and are not in the ledger" in caplog.text


async def test_gas_that_another_has_filed_in_its_name_is_refused_and_no_fault(house: House) -> None:
    """A fault would be tried again for ever, and hold all payments of the Safe; a refusal is asked for anew."""
    gas = house.ask(NANO, id="gas-0", credit=MODELS, requester="evm")
    async with working(house) as desk:
        await paid(desk, gas.model_copy(update={"requester": "agent-7", "amount": 1}))
        assert reason(await set_aside(desk.pay, gas)) is RefusalReason.CONFLICT
        assert reason(await set_aside(desk.pay, gas.model_copy(update={"id": "gas-1"}))) is None


async def test_the_vault_agrees_to_nothing_between_strangers() -> None:
    """An account that was made as an outside one, under a fund's name, would else pay without caps."""
    async with inside() as vault:
        await vault.app.write([Account(id="safe:1:0xab", kind=AccountKind.OUTSIDE)])
        for debit, credit in (("safe:1:0xab", "acme"), ("bank", "model"), ("model", "globex")):
            request = await vault.filed(900 * NANO, debit=debit, credit=credit)
            await vault.decide(request)
            assert await vault.said(request) == ["refused"]
            assert await vault.pay(request) is RefusalReason.UNSIGNED
        income, inner = await vault.filed(debit="bank", credit="cash"), await vault.filed(debit="cash", credit="model")
        for request in (income, inner):
            assert reason(await vault.decide(request)) is None and await vault.said(request) == ["approved"]


async def test_what_cannot_be_decided_is_told_at_once_and_why() -> None:
    """No rules for a currency: whoever asks does not wait a minute, to be told to ask again."""
    async with inside() as vault:
        euros = [Account(id=name, kind=AccountKind.FUND, currency="EUR") for name in ("euro-1", "euro-2")]
        await vault.app.write(euros)
        desk = Desk(ledger=vault.app, signer=vault.app, clock=vault.clock)
        work = asyncio.create_task(desk.run())
        told = {"id": "e1", "category": "any", "requester": "ops", "currency": "EUR", "amount": NANO}
        request = PaymentRequest(debit="euro-1", credit="euro-2", expires_at=vault.clock.at + DAY_US, **told)
        with pytest.raises(InputError, match="no rules for EUR"):
            await asyncio.wait_for(desk.pay(request), 20)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a vault for another user")
async def test_everybody_goes_by_the_settings_of_a_vault_that_is_anothers(tmp_path: Path) -> None:
    """Who may connect reads them as well, and believes what only root can have written."""
    place = await init(tmp_path, user="nobody")
    for again in ("", "nobody"):
        assert (place.config.stat().st_uid, place.vault.stat().st_uid) == (0, pwd.getpwnam("nobody").pw_uid)
        assert read_config(place.config) == VaultConfig()
        await init(tmp_path, user=again)


async def test_who_takes_no_answers_does_not_have_the_vault_keep_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection asks for all rows, 32 times, and reads nothing: of many such ones the vault would be killed."""
    made: list[int] = []
    answering = wire.answering

    def counted(*told: Any) -> bytes:
        frame = answering(*told)
        made.append(len(frame))
        return frame

    async with inside() as vault:
        accounts = [Account(id=f"a{i}", kind=AccountKind.OUTSIDE, title="x" * 1_000) for i in range(900)]
        await vault.app.write(accounts)
        monkeypatch.setattr(wire, "answering", counted)
        calls = b"".join(wire.framed(wire.asking(i, "rows", (0, 1_000))) for i in range(MAX_CALLS))
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(vault.app.path))
            deaf.sendall(calls)
            for _ in range(100):
                await vault.app.head()
            assert len([size for size in made if size > 1_000_000]) == 1
