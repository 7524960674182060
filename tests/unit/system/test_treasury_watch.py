"""An anomaly in what the treasury spends stops it; one that is none of its own, or the other way, does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from chimera.core.config import Settings
from chimera.core.watching import AnomalyDetected, AnomalyKind
from chimera.system.treasury import Treasury
from chimera.system.treasury_watch import heed, treasury_readings
from chimera.treasury.types import Account, AccountKind
from chimera.treasury.vault.home import VaultHome, init
from chimera.treasury.vault.run import vault


def anomaly(metric: str, value: float, expected: float) -> AnomalyDetected:
    return AnomalyDetected(
        metric=metric, timestamp=1.0, value=value, kind=AnomalyKind.SPIKE, score=9.0, since=1.0, expected=expected
    )


@pytest.fixture
async def treasury(short_tmp: Path):  # type: ignore[no-untyped-def]
    home = short_tmp / "watched"
    await init(home)
    async with vault(VaultHome.at(home)), Treasury(Settings(home=home)) as treasury:
        yield treasury


async def test_what_is_spent_is_read_and_an_anomaly_in_it_stops_all_spending(treasury: Treasury) -> None:
    for name, kind in (("cash", AccountKind.FUND), ("bank", AccountKind.OUTSIDE), ("acme", AccountKind.OUTSIDE)):
        await treasury.add_account(Account(id=name, kind=kind))
    told = {"category": "any", "requester": "ops"}
    await treasury.pay(debit="bank", credit="cash", amount="100", **told)
    await treasury.pay(debit="cash", credit="acme", amount="2.50", **told)
    found = {each.metric: each.value for each in await treasury_readings(treasury, 5.0)}
    assert found["treasury_used_last_day_usd"] == 2.5 and found["treasury_in_hand"] == 0.0

    harmless = [anomaly("swarm_agents", 9.0, 1.0), anomaly("treasury_in_hand", 0.0, 5.0)]
    assert await heed(treasury, harmless) == "" and await treasury.stopped() is None

    assert "was 900" in await heed(treasury, [*harmless, anomaly("treasury_used_last_day_usd", 900.0, 3.0)])
    stop = await treasury.stopped()
    assert stop is not None and stop.by == "anomaly-watch"
    assert (await treasury.pay(debit="cash", credit="acme", amount="1", **told)).state == "refused"
    assert await heed(treasury, [anomaly("treasury_in_hand", 90.0, 3.0)]) == "", "it is stopped already"
