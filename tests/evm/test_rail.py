"""The whole way: asked for at the CFO's desk, approved by a person, signed by both keys, mined, confirmed, posted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from chimera.core.errors import InputError, SecurityError
from chimera.treasury.desk import Desk
from chimera.treasury.evm import payments
from chimera.treasury.evm.rail import open_rail, read_rails
from chimera.treasury.evm.rules import KeyRole
from chimera.treasury.keys import approve
from chimera.treasury.payment import PaymentState
from chimera.treasury.signer import Proposal
from chimera.treasury.types import Account, AccountKind, Outcome
from tests.evm.house import ETH, PAYEE, WEI, EvmHouse, written
from tests.evm.test_processes import KeyProcess, keys  # noqa: F401 - a fixture
from tests.treasury_desk import CALM


class Cfo:
    """Signs what it is told, of requests that are in the ledger."""

    def __init__(self, house: EvmHouse) -> None:
        self._house = house

    async def decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for proposal in proposals:
            request = await self._house.app.request(proposal.request_id)
            assert request is not None and request.digest() == proposal.request_digest
            outcomes += await self._house.cfo.write([self._house.decision(request, proposal.verdict)])
        return outcomes


def settings(house: EvmHouse, sockets: dict[KeyRole, KeyProcess], folder: Path) -> Path:
    told = {
        "network": house.network.model_dump(mode="json"),
        "node": house.anvil.url,
        "keys": {role.value: str(each.folder / f"{role}.sock") for role, each in sockets.items()},
    }
    folder.mkdir(mode=0o700)
    file = folder / "local.yaml"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(told))
    return file


async def test_a_payment_goes_from_the_desk_to_the_chain_and_back(
    house: EvmHouse,
    keys: dict[KeyRole, KeyProcess],  # noqa: F811
    tmp_path: Path,
) -> None:
    settings(house, keys, tmp_path / "chains")
    [told] = read_rails(tmp_path / "chains")
    desk = Desk(ledger=house.app, signer=Cfo(house), clock=house.bench.clock, policy=CALM)
    rail = open_rail(told, ledger=house.app, outbox=tmp_path / "rail.db", pay=desk.pay, poll_s=0.05)
    desk.rails.append(rail)
    work = asyncio.create_task(desk.run())
    try:
        request = house.ask(ETH)
        written(await house.app.write([Account(id=request.credit, kind=AccountKind.OUTSIDE, currency="ETH")]))
        assert (await desk.pay(request)).state is PaymentState.WAITING
        word = approve(request, approver="ann", key=house.ann_key, at=house.bench.at, expires_at=payments.NEVER)
        written(await house.approver.write([word]))
        for _ in range(200):
            house.anvil.mine(1)
            found = await desk.settled(request.id, 0.1)
            if found.ended:
                break
        assert found.state is PaymentState.PAID and found.moved == ETH
        assert house.anvil.balance(PAYEE) == WEI
        assert (await house.app.balance(payments.gas_fees(house.network))).posted > 0
        assert (await rail.reconcile()).ok
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    house.sound = False  # as its own payer sees it, which has not sent this one


def test_what_a_file_of_a_chain_lacks_is_said(tmp_path: Path) -> None:
    assert read_rails(tmp_path / "none") == ()
    folder = tmp_path / "chains"
    folder.mkdir(mode=0o700)
    file = folder / "polygon.yaml"
    file.touch(mode=0o600)
    file.write_text("network: {chain_id: 137}\n")
    with pytest.raises(InputError, match=r"polygon.yaml: network\.safe"):
        read_rails(folder)
    file.write_text("- 1\n")
    with pytest.raises(InputError, match="a table of settings"):
        read_rails(folder)
    file.chmod(0o644)
    with pytest.raises(SecurityError, match="can be read by others"):
        read_rails(folder)
