"""kill -9 of the CFO, the ledger actor, the vault or PostgreSQL while they are paid through: no payment is lost,
doubled or half done, and the audit passes (a few runs here; fifty on each database by `make soak`)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chimera import Settings
from chimera.actors import cluster
from chimera.actors.cfo import CFO
from chimera.core.errors import LedgerUnavailable
from chimera.system.treasury import Treasury, running
from chimera.treasury.payment import PaymentState
from chimera.treasury.rows import AnyRow
from chimera.treasury.types import CfoDecision, PaymentRequest, Transfer, TransferKind
from chimera.treasury.vault.home import init
from tests.actors.in_process import until
from tests.cluster import treasury_chaos as chaos
from tests.cluster.treasury_spender import Told
from tests.conftest import ROOT
from tests.servers import PostgresServer

pytestmark = pytest.mark.cluster

log = logging.getLogger(__name__)

RUNS_OF_ONE = 10
"""Then another treasury is begun: the ledger is to stay short, as it is audited after each run."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def killed(local_ray: Settings, seeds: range, server: PostgresServer | None) -> Counter[str]:
    """How often each part was killed, and what was paid, in runs after each of which nothing is wrong."""
    counts: Counter[str] = Counter()
    others = chaos.spenders(2)
    try:
        for begin in range(0, len(seeds), RUNS_OF_ONE):
            async with chaos.house(local_ray, server) as house:
                for seed in seeds[begin : begin + RUNS_OF_ONE]:
                    planned = chaos.plan(seed, house.parts)
                    told = await chaos.run(house, planned, others)
                    assert await chaos.faults(house, told) == [], planned
                    counts += Counter({name: len(getattr(told, name)) for name in ("filed", "paid", "settled")})
                    counts += Counter(runs=1, errors=told.errors, repeats=told.repeats)
                    log.info("%s: so far %s", planned, dict(counts + house.kills))
                counts += house.kills
    finally:
        for each in others:
            cluster.kill(each)
    assert min(counts["paid"], counts["settled"], counts["repeats"]) > 0
    return counts


@pytest.mark.timeout(180)
async def test_a_killed_treasury_loses_and_doubles_nothing(local_ray: Settings) -> None:
    counts = await killed(local_ray, range(2), None)
    assert all(counts[part] for part in chaos.PARTS)


@pytest.mark.timeout(180)
async def test_a_killed_postgresql_loses_and_doubles_nothing(local_ray: Settings, server: PostgresServer) -> None:
    counts = await killed(local_ray, range(3, 5), server)
    assert counts["database"]


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_fifty_runs(local_ray: Settings) -> None:
    counts = await killed(local_ray, range(50), None)
    assert min(counts[part] for part in chaos.PARTS) > 10


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_fifty_runs_on_postgresql(local_ray: Settings, server: PostgresServer) -> None:
    counts = await killed(local_ray, range(50), server)
    assert min(counts[part] for part in (*chaos.PARTS, "database")) > 10


@pytest.mark.timeout(120)
async def test_a_killed_runner_takes_its_vault_along_and_another_goes_on(local_ray: Settings) -> None:
    short = Path(tempfile.mkdtemp(prefix="chv"))  # sockets have at most 107 characters
    settings = Settings(address=local_ray.address, home=short)
    try:
        place = await init(short)
        place.config.write_text(chaos.SETTINGS)
        runner = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chimera", "treasury", "run", "--address", local_ray.address),
            env={**os.environ, "CHIMERA_HOME": str(short)}, cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert runner.stderr is not None
        while b"the treasury runs" not in (line := await runner.stderr.readline()):
            assert line, "it has not started"
        vault = int((place.vault / "vault.lock").read_text())
        with pytest.raises(LedgerUnavailable, match=f"another vault .pid {vault}. serves"):
            async with running(settings):
                pass
        runner.kill()
        await runner.wait()
        await until(lambda: not lives(vault) and cluster.find(CFO) is None, 60)
        async with running(settings), Treasury(settings) as treasury:
            found = await treasury.pay(debit="bank", credit="cash", amount=1, category="fill", requester="ann")
            assert found.state is PaymentState.PAID
    finally:
        shutil.rmtree(short)


ASKED = PaymentRequest(id="r", debit="cash", credit="acme", amount=5, category="c", requester="w", expires_at=9)
AGREED = CfoDecision(request_id="r", request_digest=ASKED.digest(), at=1, verdict="approved", risk=0.0)
MOVED = Transfer(id="t", kind=TransferKind.PENDING, request_id="r", amount=5)
POSTED = Transfer(id="p", kind=TransferKind.POST, request_id="r", amount=3)


def test_what_is_lost_doubled_changed_or_not_agreed_to_is_seen() -> None:
    told = Told(filed={"r": 5}, reserved={"r": 5}, settled={"r": 3})
    assert chaos.disagreements([ASKED, AGREED, MOVED, POSTED], told) == []
    other = MOVED.model_copy(update={"amount": 4})
    wrong: list[list[AnyRow]] = [
        [ASKED, AGREED],
        [ASKED, AGREED, MOVED],
        [ASKED, AGREED, MOVED, MOVED, POSTED],
        [ASKED, AGREED, MOVED, POSTED, POSTED],
        [ASKED, AGREED, other, POSTED],
        [ASKED, MOVED, POSTED],
    ]
    for rows in wrong:
        assert chaos.disagreements(rows, told), rows
    assert chaos.disagreements(
        [ASKED, AGREED, MOVED, POSTED], Told(filed={"r": 5}, reserved={"r": 4}, settled={"r": 3})
    )
