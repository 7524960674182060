"""A treasury that is killed, part by part, while it is used; and what must be true of its ledger afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from chimera import Settings
from chimera.actors import cluster
from chimera.actors.cfo import CFO
from chimera.actors.ledger import LEDGER
from chimera.system.kept_vault import KeptVault
from chimera.system.treasury import Treasury, running
from chimera.treasury.rows import AnyRow, parse
from chimera.treasury.types import CfoDecision, PaymentRequest, Transfer, TransferKind
from chimera.treasury.vault.home import init
from tests.cluster.treasury_spender import SpenderActor, Told, spend
from tests.servers import PostgresServer

SETTINGS = """
accounts:
  - {id: cash, kind: fund}
  - {id: bank, kind: outside}
  - {id: acme, kind: outside}
  - {id: model, kind: metered}
  - {id: models, kind: metered}
policy: {ask_at: 1.0, refuse_at: 1.0}
breaker: {spend: {USD: 100000}, refused: 10000, risky: 10000}
"""
"""A house in which risk decides nothing: every payment is legitimate, so none may be lost."""

PARTS = ("cfo", "ledger", "vault")
AFTER_S = 0.3
"""So long after the last death new payments are begun."""
END_S = 90.0
"""By then every request that was filed has come to an end."""

_numbers = count(1)


class House:
    """A treasury that runs in this cluster. `server` is its database's, if it is not a file."""

    def __init__(self, treasury: Treasury, parts: dict[str, Any], server: PostgresServer | None) -> None:
        self.treasury, self.server = treasury, server
        self.vault: KeptVault = parts["vault"]
        self._actors = {"cfo": parts[CFO], "ledger": parts[LEDGER]}
        self.kills: Counter[str] = Counter()

    @property
    def parts(self) -> tuple[str, ...]:
        return (*PARTS, "database") if self.server else PARTS

    async def kill(self, part: str) -> None:
        """With SIGKILL. The database is started again here, as an init system would; who starts the others, we see."""
        match part:
            case "database":
                assert self.server is not None
                self.server.kill()
                await asyncio.to_thread(self.server.start)
            case "vault":
                with contextlib.suppress(ProcessLookupError):  # it has died just now, and is being started again
                    os.kill(self.vault.pid, signal.SIGKILL)
            case _:
                os.kill(await pid_of(self._actors[part]), signal.SIGKILL)
        self.kills[part] += 1


async def pid_of(actor: Any) -> int:
    """The process of an actor; of one that is being started again, of the new one."""
    async with asyncio.timeout(60):
        while True:
            try:
                return int(await actor.__ray_call__.remote(lambda _: os.getpid()))
            except cluster.ACTOR_GONE:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def house(
    local_ray: Settings, server: PostgresServer | None = None, settings: str = SETTINGS
) -> AsyncIterator[House]:
    """A treasury with money in `cash`, on a folder (and in a database) of its own."""
    home = Path(tempfile.mkdtemp(prefix="chv"))
    try:
        url = _new_database(server) if server else ""
        place = await init(home, superuser_url=url)
        kept = next(line for line in place.config.read_text().splitlines() if line.startswith("ledger_url"))
        place.config.write_text(f"{SETTINGS}{kept}\n")
        told = Settings(address=local_ray.address, home=home)
        async with AsyncExitStack() as stack:
            parts = await stack.enter_async_context(running(told))
            treasury = await stack.enter_async_context(Treasury(told))
            await treasury.pay(debit="bank", credit="cash", amount=500, category="fill", requester="ann")
            yield House(treasury, parts, server)
    finally:
        shutil.rmtree(home)


def _new_database(server: PostgresServer) -> str:
    import psycopg

    base, name = server.url().partition("?")[0], f"treasury_{next(_numbers)}"
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return base.removesuffix("postgres") + name


@dataclass(frozen=True)
class Plan:
    """What one run does: who is killed at which moment, in seconds since its start, in order."""

    seed: int
    kills: tuple[tuple[float, str], ...]


def plan(seed: int, parts: tuple[str, ...], within_s: float = 2.0) -> Plan:
    """The run of this seed: one to three deaths, the first one of each part in turn."""
    chance = random.Random(f"treasury {seed}")
    victims = [parts[seed % len(parts)], *chance.choices(parts, k=chance.randint(0, 2))]
    return Plan(seed, tuple(zip(sorted(chance.uniform(0.05, within_s) for _ in victims), victims, strict=True)))


async def run(house: House, plan: Plan, spenders: list[Any]) -> Told:
    """Spenders here and in `spenders`' processes pay, while parts are killed as planned: what they were told."""
    name, begun_s = f"s{plan.seed}", time.time()
    until_s = begun_s + plan.kills[-1][0] + AFTER_S
    spending = [
        asyncio.create_task(spend(f"{name}-here", plan.seed, 4, until_s)),
        *(asyncio.ensure_future(_spend(each, f"{name}-{i}", plan.seed, until_s)) for i, each in enumerate(spenders)),
    ]
    for at_s, part in plan.kills:
        await asyncio.sleep(max(0.0, begun_s + at_s - time.time()))
        await house.kill(part)
    told = Told()
    for each in await asyncio.gather(*spending):
        told.add(each)
    return told


async def _spend(actor: Any, name: str, seed: int, until_s: float) -> Told:
    found: Told = await actor.spend.remote(name, seed, 2, until_s)
    return found


def spenders(number: int) -> list[Any]:
    """Processes of the cluster's that spend; end them with `cluster.kill`."""
    return [cluster.spawn(SpenderActor, name=f"spender-{next(_numbers)}", lasting=False) for _ in range(number)]


async def faults(house: House, told: Told) -> list[str]:
    """What is wrong with the ledger after a run, by what spenders were told of it; empty where nothing is."""
    found = list(told.faults)
    if late := await _late(house):
        found.append(f"these came to no end: {late}")
    report = await house.treasury.verify()
    found += [str(each) for each in report.findings]
    if not report.compared:
        found.append("the audit has compared no sums")
    total = sum(each.balance.posted for each in await house.treasury.accounts())
    if total:
        found.append(f"all accounts come to {total}")
    return found + disagreements(await rows(house), told)


async def _late(house: House) -> list[str]:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + END_S
    while left := [each.request.id for each in await house.treasury.in_hand()]:
        if loop.time() > until_s:
            break
        await asyncio.sleep(0.1)
    return left


async def rows(house: House) -> list[AnyRow]:
    """The whole ledger."""
    ledger, found, after = house.treasury.ledger(), [], 0
    while page := await ledger.rows(after):
        found += [parse(table, columns) for _, table, columns, _ in page]
        after = page[-1][0]
    return found


def disagreements(rows: list[AnyRow], told: Told) -> list[str]:
    """Where the ledger's rows are not what spenders were told, or what no payment may be (pure)."""
    requests: dict[str, PaymentRequest] = {}
    agreed: set[str] = set()
    begun: dict[str, list[Transfer]] = defaultdict(list)
    ended: dict[str, list[Transfer]] = defaultdict(list)
    found = []
    for row in rows:
        match row:
            case PaymentRequest():
                requests[row.id] = row
            case CfoDecision():
                agreed |= {row.request_id} if row.verdict == "approved" else set()
            case Transfer():
                if row.request_id not in requests or row.request_id not in agreed:
                    found.append(f"{row.id} moves what nobody asked for, or agreed to")
                kinds = begun if row.kind in (TransferKind.PENDING, TransferKind.POSTED) else ended
                kinds[row.request_id].append(row)
    for request_id, amount in told.filed.items():
        first, last = begun[request_id], ended[request_id]
        settled = told.settled.get(request_id)
        if [each.amount for each in first] != [amount] or requests[request_id].amount != amount:
            found.append(f"{request_id} over {amount} was begun as {first}")
        elif [each.amount for each in last] != ([] if settled is None else [settled]):
            found.append(f"{request_id}, settled with {settled}, was ended as {last}")
        elif {told.paid.get(request_id, amount), told.reserved.get(request_id, amount)} != {amount}:
            found.append(f"{request_id} over {amount}: another amount was told")
    return found
