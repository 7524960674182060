"""A Redis that would lose what it has acknowledged is refused, with what to set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import open_journal
from chimera.storage.state import open_state
from tests.servers import RedisServer

FIRST = Event(mission_id="m", seq=1, kind=EventKind.MISSION_ADMITTED, at_s=1.0)


@contextmanager
def redis(*options: str) -> Iterator[str]:
    server = RedisServer(*options)
    try:
        server.start()
        yield server.url()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ("--appendonly no", "set appendonly yes, appendfsync always"),
        ("--appendonly yes --appendfsync everysec", "set appendfsync always"),
        ("--appendonly yes --appendfsync always --no-appendfsync-on-rewrite yes", "set no-appendfsync-on-rewrite no"),
        (
            "--appendonly yes --appendfsync always --maxmemory 100mb --maxmemory-policy allkeys-lru",
            "set maxmemory-policy noeviction",
        ),
        ('--rename-command CONFIG ""', "allow CONFIG GET"),
    ],
)
async def test_what_is_not_durable_is_refused_unless_the_url_says_so(options: str, missing: str) -> None:
    with redis(*options.replace('""', "").split(" ")) as url:
        journal, state = open_journal(url), open_state(url)
        for call in (journal.append([FIRST]), journal.missions(), state.put("key", 1)):
            with pytest.raises(StorageError, match=missing):
                await call
        await journal.close()
        await state.close()
        journal = open_journal(f"{url}?durable=no")
        await journal.append([FIRST])
        assert await journal.read("m") == [FIRST]
        await journal.close()


async def test_a_setting_that_is_mended_is_seen_at_the_next_call() -> None:
    with redis("--appendonly", "yes") as url:
        journal = open_journal(url)
        with pytest.raises(StorageError, match="set appendfsync always"):
            await journal.append([FIRST])
        other = open_journal(f"{url}?durable=no")
        await other.missions()
        async with other._server.client() as client:  # type: ignore[attr-defined]
            await client.config_set("appendfsync", "always")
        await journal.append([FIRST])
        await journal.close()
        await other.close()
