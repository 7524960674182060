"""The servers behind the adapters: one of each for the session, and for every test a corner of it that is empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from chimera.treasury.ledger import LedgerRole
from tests.ledger_house import House
from tests.ledgers import Bench, PostgresBench
from tests.servers import PostgresServer, RedisServer

numbers = count(1)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always", "--databases", "10000")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of an empty store of that scheme; a server is started when the first test asks for it."""

    def url(scheme: str) -> str:
        match scheme:
            case "sqlite":
                return f"sqlite:///{tmp_path / 'store.db'}"
            case "redis":
                server: RedisServer = request.getfixturevalue("redis_server")
                return server.url(next(numbers))
            case "postgresql":
                postgres: PostgresServer = request.getfixturevalue("postgres_server")
                return postgres.new_url(f"t{next(numbers)}")
            case _:
                return f"{scheme}://"

    return url


@pytest.fixture(params=["sqlite", "postgresql"])
async def ledgers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """An empty ledger, with connections for every role and a clock that stands still until it is moved."""
    bench: Bench
    if request.param == "postgresql":
        bench = await PostgresBench(request.getfixturevalue("postgres_server")).begin()
    else:
        from tests.ledgers_sqlite import SqliteBench

        bench = SqliteBench(tmp_path / "ledger.db")
        await (await bench.open(LedgerRole.OWNER)).head()  # who makes the tables
    yield bench
    await bench.close()


@pytest.fixture
async def house(ledgers: Bench) -> AsyncIterator[House]:
    """Accounts, rules, caps and money in that ledger; it is audited when the test is over."""
    house = await House(ledgers).begin()
    yield house
    await house.audit()
