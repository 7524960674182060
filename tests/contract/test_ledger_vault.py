"""The ledger behind the vault's sockets is what every ledger has to be: the whole suite, through them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chimera.treasury.ledger import LedgerRole
from chimera.treasury.types import NANO, PaymentRequest, RefusalReason
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.config import read_config
from chimera.treasury.vault.home import init
from chimera.treasury.vault.run import vault
from tests.contract.test_ledger import *  # noqa: F403
from tests.contract.test_ledger_limits import *  # noqa: F403
from tests.contract.test_ledger_walk import *  # noqa: F403
from tests.ledger_house import approval, reason, transfer
from tests.ledgers_vault import SETTINGS, VaultBench, proposal
from tests.servers import PostgresServer


@pytest.fixture
async def ledgers(tmp_path: Path) -> AsyncIterator[VaultBench]:
    bench = VaultBench(tmp_path / "ledger.db")
    yield bench
    await bench.close()


async def test_a_vault_before_postgresql_makes_its_logins_and_pays(postgres_server: PostgresServer) -> None:
    home = Path(tempfile.mkdtemp(prefix="chv"))
    try:
        place = await init(home, superuser_url=postgres_server.new_url("vault"))
        assert place.logins.stat().st_mode & 0o777 == 0o600 and "@" not in place.config.read_text()
        logins = place.logins.read_text()
        await init(home, superuser_url=postgres_server.new_url("vault2"))
        assert place.logins.read_text() == logins, "those that are there stay"
        url = read_config(place.config).ledger_url
        place.config.write_text(f"ledger_url: {url}\n{SETTINGS}")
        async with vault(place):
            app = VaultLedger(path=place.socket(LedgerRole.APP))
            expires_at = time.time_ns() // 1_000 + 3_600_000_000
            fields = {"category": "any", "requester": "worker-1", "expires_at": expires_at}
            requests = [
                PaymentRequest(id="in", debit="bank", credit="cash", amount=50 * NANO, **fields),
                PaymentRequest(id="out", debit="cash", credit="acme", amount=NANO, **fields),
                PaymentRequest(id="dear", debit="cash", credit="acme", amount=51 * NANO, **fields),
            ]
            assert not any(map(reason, await app.write(requests)))
            assert not any(map(reason, await app.decide([proposal(each) for each in requests])))
            outcomes = await app.write([transfer(each) for each in requests])
            assert [reason(each) for each in outcomes] == [None, None, RefusalReason.UNAPPROVED]
            assert (await app.balance("cash")).posted == 49 * NANO
            assert [each.id for each in await app.waiting()] == ["dear"]
            assert reason(*await app.write([approval(requests[2], "ann")])) is RefusalReason.FORBIDDEN
            await app.close()
    finally:
        shutil.rmtree(home)
