"""The servers behind the adapters: one of each for the session, and for every test a corner of it that is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

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
