"""What an authorised payment costs beside a bare insert of one row, with the same database and the same durability.

    python -m bench.treasury [--seconds 10] [--rounds 3] [--only postgres|sqlite] [--quick] [--json]

An authorisation is a request, the CFO's signed decision on it (Ed25519), and a pending transfer: three rows, each put
to the ledger's rules and chained, each durable before the next is written. 64 spenders want them at the same time; what
waits while a transaction is under way shares the next one, as in the treasury.

PostgreSQL, with fsync and synchronous_commit, is beside `pgbench -n -c 16 -j 2` inserting into one table; SQLite
(WAL, synchronous=FULL) beside one connection inserting into one table, and beside 64. Runs alternate; a ratio is the
median over rounds, each against the run just before. How often the disk confirms a write is beside them: the slower it
is, the more of an insert is waiting, and the nearer the two come. The exit code is 1 where a ratio (to pgbench, to one
SQLite connection) is below 0.5, p99 is 150 ms or more, or anything was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chimera.core.stats import percentile
from chimera.treasury.keys import Keyring
from chimera.treasury.ledger import MAX_BATCH, Ledger, LedgerRole, Row
from chimera.treasury.types import (
    DEFAULT_CAPS,
    NANO,
    Account,
    AccountKind,
    CfoDecision,
    Factor,
    Outcome,
    PaymentRequest,
    Refused,
    Rules,
    Signed,
    Transfer,
    TransferKind,
)
from chimera.treasury.vault.shared import Shared
from tests.servers import ESCAPED_PASSWORD, PASSWORD, PostgresServer, find

SPENDERS = 64
CLIENTS = 16
PAYEES = 20
AMOUNT = 1_000
"""Billionths. All of a run stays far below every cap and limit."""

LEAST_RATIO = 0.5
MOST_P99_MS = 150.0

HOUR_US = 3_600_000_000
TABLE = (
    "CREATE TABLE single (id {serial} PRIMARY KEY, payee text NOT NULL, amount bigint NOT NULL, reason text NOT NULL)"
)
INSERT = "INSERT INTO single (payee, amount, reason) VALUES ('payee-7', 1000, 'a call of a model, for one task');"
FACTORS = tuple(
    Factor(name=name, value=0.1, weight=0.2, why="nothing out of the ordinary")
    for name in ("amount", "payee", "velocity", "time", "category")
)


Write = Callable[[Sequence[Row]], Awaitable[list[Outcome]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What 64 spenders did: authorisations a second, milliseconds for each, and how many were refused."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int


class Spenders:
    """Authorise payments through `app` and `cfo`, each as fast as its own are answered."""

    def __init__(self, *, app: Write, cfo: Write, key: Ed25519PrivateKey) -> None:
        self._app, self._cfo, self._key = app, cfo, key
        self._numbers = count(1)

    async def run(self, seconds: float) -> Run:
        took_s: list[float] = []
        refused = 0
        started = time.monotonic()

        async def spend() -> None:
            nonlocal refused
            while (began := time.monotonic()) < started + seconds:
                refused += await self._authorise(next(self._numbers))
                took_s.append(time.monotonic() - began)

        await asyncio.gather(*(spend() for _ in range(SPENDERS)))
        elapsed_s = time.monotonic() - started
        return Run(
            per_s=(len(took_s) - refused) / elapsed_s,
            p50_ms=percentile(took_s, 0.5) * 1e3,
            p99_ms=percentile(took_s, 0.99) * 1e3,
            refused=refused,
        )

    async def _authorise(self, number: int) -> bool:
        """Whether any of it was refused."""
        now = time.time_ns() // 1_000
        request = PaymentRequest(
            id=f"r{number}",
            debit="cash",
            credit=f"payee-{number % PAYEES}",
            amount=AMOUNT,
            category="model-calls",
            requester=f"worker-{number % SPENDERS}",
            mission=f"mission-{number % PAYEES}",
            reason="a call of a model, for one task",
            expires_at=now + HOUR_US,
        )
        outcomes = await self._app([request])
        word = CfoDecision(
            request_id=request.id,
            request_digest=request.digest(),
            at=now,
            key_id="cfo",
            verdict="approved",
            risk=0.1,
            factors=FACTORS,
        )
        outcomes += await self._cfo([word.model_copy(update={"signature": self._key.sign(word.payload()).hex()})])
        transfer = Transfer(
            id=f"t{number}",
            kind=TransferKind.PENDING,
            request_id=request.id,
            amount=AMOUNT,
            expires_at=now + HOUR_US,
        )
        outcomes += await self._app([transfer])
        return any(isinstance(outcome, Refused) for outcome in outcomes)


def verifier(key: Ed25519PrivateKey) -> Callable[[Signed], bool]:
    """As in the vault: what was found good once, when it was written, is known when a transfer relies on it."""
    return Keyring(cfo={"cfo": key.public_key().public_bytes_raw()}).verify


async def furnish(owner: Ledger, app: Ledger, cfo: Ledger, key: Ed25519PrivateKey) -> None:
    """Caps, rules, payees, and money in the fund that all spend from."""
    for cap in DEFAULT_CAPS:
        await owner.set_cap(cap)
    await owner.set_rules(Rules())
    payees = [Account(id=f"payee-{number}", kind=AccountKind.OUTSIDE) for number in range(PAYEES)]
    bank, cash = Account(id="bank", kind=AccountKind.OUTSIDE), Account(id="cash", kind=AccountKind.FUND)
    filling = PaymentRequest(
        id="filling",
        debit="bank",
        credit="cash",
        amount=1_000 * NANO,
        category="filling",
        requester="owner",
        expires_at=2**53,
    )
    word = CfoDecision(
        request_id="filling", request_digest=filling.digest(), at=0, key_id="cfo", verdict="approved", risk=0.0
    )
    signed = word.model_copy(update={"signature": key.sign(word.payload()).hex()})
    moved = Transfer(id="filling", kind=TransferKind.POSTED, request_id="filling", amount=filling.amount)
    outcomes = await app.write([bank, cash, *payees, filling])
    outcomes += await cfo.write([signed])
    outcomes += await app.write([moved])
    if refused := [outcome for outcome in outcomes if isinstance(outcome, Refused)]:
        raise SystemExit(f"the ledger cannot be furnished: {refused[0]}")


class DurableServer(PostgresServer):
    """As the tests have it, but what is committed survives a power cut."""

    def command(self) -> list[str]:
        return [*super().command(), "-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "max_connections=100"]

    def bare_inserts_per_s(self, seconds: float, clients: int = CLIENTS) -> float:
        """What pgbench reports."""
        script = self.folder / "single_insert.sql"
        script.write_text(INSERT + "\n")
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "chimera"]
        command = [find("pgbench", self._binaries), *address, "-n", "-c", str(clients), "-j", str(min(2, clients))]
        done = subprocess.run(
            [*command, "-T", str(max(1, round(seconds))), "-f", str(script), "postgres"],
            env={**os.environ, "PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise SystemExit(f"pgbench failed: {done.stderr[-500:]}")
        return float(found[1])


@contextmanager
def durable_server() -> Iterator[DurableServer]:
    server = DurableServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def postgres(seconds: float, rounds: int) -> dict[str, object]:
    import psycopg

    from chimera.treasury.postgres import PostgresLedger

    key = Ed25519PrivateKey.generate()
    verify = verifier(key)
    with durable_server() as server:
        url = server.url().partition("?")[0]
        owner = PostgresLedger(url=url, role=LedgerRole.OWNER, verify=verify)
        await owner.head()  # which makes the tables
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE.format(serial="bigserial").encode())
            for role in ("app", "cfo"):
                login = f"CREATE ROLE bench_{role} LOGIN PASSWORD '{PASSWORD}' IN ROLE chimera_treasury_{role}"
                connection.execute(login.encode())
        address = f"{ESCAPED_PASSWORD}@127.0.0.1:{server.port}/postgres"
        app, cfo = (
            PostgresLedger(url=f"postgresql://bench_{role}:{address}", role=role, verify=verify)
            for role in (LedgerRole.APP, LedgerRole.CFO)
        )
        await furnish(owner, app, cfo, key)
        together = [Shared(ledger.write, most=MAX_BATCH) for ledger in (app, cfo)]
        spenders = Spenders(app=together[0].ask, cfo=together[1].ask, key=key)
        alone = await asyncio.to_thread(server.bare_inserts_per_s, seconds, 1)
        syncs = await asyncio.to_thread(syncs_per_s, server.folder, min(seconds, 3.0))
        bare: list[float] = []
        runs: list[Run] = []
        for _ in range(rounds):
            bare.append(await asyncio.to_thread(server.bare_inserts_per_s, seconds))
            runs.append(await spenders.run(seconds))
        for ledger in (app, cfo, owner):
            await ledger.close()
    beside = {"pgbench_1_client_per_s": round(alone, 1), "disk_syncs_per_s": round(syncs, 1)}
    return {**summary("pgbench_per_s", bare, runs), **beside}


def syncs_per_s(folder: Path, seconds: float) -> float:
    """How often the disk confirms a page of 8 kB, one after another: what durability costs here."""
    done = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            os.pwrite(file.fileno(), bytes(8_192), 0)
            os.fdatasync(file.fileno())
            done += 1
    return done / seconds


async def sqlite(seconds: float, rounds: int) -> dict[str, object]:
    from chimera.treasury.sqlite import SqliteLedger

    key = Ed25519PrivateKey.generate()
    verify = verifier(key)
    with tempfile.TemporaryDirectory() as folder:
        owner, app, cfo = (
            SqliteLedger(path=Path(folder, "ledger.db"), role=role, verify=verify)
            for role in (LedgerRole.OWNER, LedgerRole.APP, LedgerRole.CFO)
        )
        await furnish(owner, app, cfo, key)
        spenders = Spenders(app=app.write, cfo=cfo.write, key=key)  # this ledger groups what waits by itself
        alone: list[float] = []
        many: list[float] = []
        runs: list[Run] = []
        for _ in range(rounds):
            many.append(await asyncio.to_thread(bare_inserts_per_s, Path(folder, "bare.db"), SPENDERS, seconds))
            alone.append(await asyncio.to_thread(bare_inserts_per_s, Path(folder, "bare.db"), 1, seconds))
            runs.append(await spenders.run(seconds))
        for ledger in (app, cfo, owner):
            await ledger.close()
    return {
        **summary("one_connection_per_s", alone, runs),
        "64_connections_per_s": round(statistics.median(many), 1),
        "ratio_to_64": round(statistics.median(run.per_s / each for run, each in zip(runs, many, strict=True)), 2),
    }


def bare_inserts_per_s(path: Path, connections: int, seconds: float) -> float:
    """Durable inserts a second into one table of a SQLite file, each in a transaction, over so many connections."""
    inserted = [0] * connections
    until = time.monotonic() + seconds

    def insert(place: int) -> None:
        with closing(_connect(path)) as connection:
            while time.monotonic() < until:
                connection.execute(INSERT)
                inserted[place] += 1

    with closing(_connect(path)) as connection:
        connection.execute(TABLE.replace("TABLE", "TABLE IF NOT EXISTS", 1).format(serial="INTEGER"))
    threads = [threading.Thread(target=insert, args=(place,)) for place in range(connections)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(inserted) / (time.monotonic() - started)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def summary(name: str, bare: list[float], runs: list[Run]) -> dict[str, object]:
    return {
        name: round(statistics.median(bare), 1),
        "authorisations_per_s": round(statistics.median(run.per_s for run in runs), 1),
        "ratio": round(statistics.median(run.per_s / each for run, each in zip(runs, bare, strict=True)), 2),
        "p50_ms": round(statistics.median(run.p50_ms for run in runs), 1),
        "p99_ms": round(max(run.p99_ms for run in runs), 1),
        "refused": sum(run.refused for run in runs),
        "rounds": [
            {"bare_per_s": round(each, 1), "per_s": round(run.per_s, 1), "p99_ms": round(run.p99_ms, 1)}
            for run, each in zip(runs, bare, strict=True)
        ],
    }


def passes(found: dict[str, object]) -> bool:
    ratio, p99_ms = float(str(found["ratio"])), float(str(found["p99_ms"]))
    return ratio >= LEAST_RATIO and p99_ms < MOST_P99_MS and not found["refused"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("postgres", "sqlite"))
    parser.add_argument("--quick", action="store_true", help="one round of 3 seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit with 1 where the aim is missed")
    options = parser.parse_args()
    seconds, rounds = (3.0, 1) if options.quick else (options.seconds, options.rounds)
    found = {
        name: asyncio.run(measure(seconds, rounds))
        for name, measure in (("postgres", postgres), ("sqlite", sqlite))
        if options.only in (None, name)
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, figures in found.items():
            print(name)
            for what, figure in figures.items():
                print(f"  {what.replace('_', ' '):24}{figure!s:>10}" if what != "rounds" else f"  rounds  {figure}")
            met = "met" if passes(figures) else "missed"
            print(f"  the aim (ratio {LEAST_RATIO:g}, p99 below {MOST_P99_MS:g} ms) is {met}")
    sys.exit(1 if options.check and not all(map(passes, found.values())) else 0)


if __name__ == "__main__":
    main()
