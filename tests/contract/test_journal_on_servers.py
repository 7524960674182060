"""What a journal on a server does besides: it survives kill -9 of the server, lost answers and rivals."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.rng import rng
from chimera.storage import server as journal_server
from chimera.storage.journal import Journal, open_journal
from tests.contract.wire import Wire
from tests.servers import ESCAPED_PASSWORD, PASSWORD, Server, free_port

COMMIT = {"redis": b"EVALSHA", "postgresql": b"COMMIT"}
"""What a request holds after which something is stored."""

WRITE = {"redis": b"EVALSHA", "postgresql": b"unnest"}
"""What a request holds that only tries to."""


def events(mission: str, *seqs: int, text: str = "") -> list[Event]:
    return [Event(mission_id=mission, seq=n, kind=EventKind.REPLY_ACCEPTED, at_s=1.0, data={"x": text}) for n in seqs]


async def seqs(journal: Journal, mission: str) -> list[int]:
    return [event.seq for event in await journal.read(mission)]


@pytest.fixture(params=["redis", "postgresql"])
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(scheme: str, url_of: Callable[[str], str]) -> str:
    return url_of(scheme)


@asynccontextmanager
async def journal_over(wire: Wire, url: str, port: int) -> AsyncIterator[Journal]:
    async with wire.listening() as own_port:
        journal = open_journal(url.replace(f":{port}/", f":{own_port}/"))
        try:
            yield journal
        finally:
            await journal.close()


@pytest.fixture
def server(scheme: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The session's, which a test may kill."""
    shared: Server = request.getfixturevalue("redis_server" if scheme == "redis" else "postgres_server")
    yield shared
    shared.start()


@pytest.fixture
def port(server: Server) -> int:
    return server.port


async def test_a_commit_whose_answer_is_lost_is_stored_once(scheme: str, url: str, port: int) -> None:
    wire = Wire(port, COMMIT[scheme])
    async with journal_over(wire, url, port) as journal:
        await journal.append(events("m", 1))
        wire.lose_answers = 1
        await asyncio.gather(journal.append(events("m", 2, 3)), journal.append([*events("n", 1), *events("m", 4)]))
        assert wire.lose_answers == 0
        assert await seqs(journal, "m") == [1, 2, 3, 4]
        assert await seqs(journal, "n") == [1]
        await journal.append(events("m", 5))


async def test_a_commit_whose_request_is_lost_is_stored_once(scheme: str, url: str, port: int) -> None:
    wire = Wire(port, COMMIT[scheme])
    async with journal_over(wire, url, port) as journal:
        await journal.append(events("m", 1))
        wire.lose_requests = 2
        await journal.append(events("m", 2))
        assert wire.lose_requests == 0
        assert await seqs(journal, "m") == [1, 2]


async def test_only_what_is_equal_byte_for_byte_counts_as_stored(scheme: str, url: str, port: int) -> None:
    """A rival stores another event in that place while the connection is broken."""
    wire, rival = Wire(port, WRITE[scheme]), open_journal(url)
    async with journal_over(wire, url, port) as journal:
        await journal.append(events("m", 1))
        await rival.append(events("m", 2, text="the rival's"))
        for mine in (events("m", 2, text="mine"), events("m", 2, 3, text="the rival's")):
            wire.lose_requests = 1
            with pytest.raises(StorageError, match="is already stored: 3 comes next"):
                await journal.append(mine)
            assert wire.lose_requests == 0
        assert [event.data["x"] for event in await journal.read("m")] == ["", "the rival's"]
    await rival.close()


async def test_a_duplicate_is_refused_where_no_answer_was_lost(url: str) -> None:
    journal = open_journal(url)
    await journal.append(events("m", 1))
    with pytest.raises(StorageError, match="is already stored: 2 comes next"):
        await journal.append(events("m", 1))
    await journal.close()


async def test_rivals_lose_nothing_and_store_nothing_twice(url: str) -> None:
    """Four journals write the same missions; each append that is refused is made anew from what is stored."""
    journals = [open_journal(url) for _ in range(4)]

    async def write(journal: Journal, name: int) -> int:
        stored = 0
        while stored < 15:
            ends = {mission: len(await journal.read(mission)) for mission in ("a", "b", "c")}
            batch = [event for mission, end in ends.items() for event in events(mission, end + 1, text=str(name))]
            with suppress(StorageError):
                await journal.append(batch[::-1] if name % 2 else batch)
                stored += 1
        return stored

    stored = await asyncio.gather(*(write(journal, name) for name, journal in enumerate(journals)))
    for mission in ("a", "b", "c"):
        read = await journals[0].read(mission)
        assert [event.seq for event in read] == list(range(1, sum(stored) + 1))
        assert [sum(event.data["x"] == str(name) for event in read) for name in range(4)] == stored
    for journal in journals:
        await journal.close()


@pytest.mark.parametrize("seed", range(2))
async def test_what_was_acknowledged_survives_kill_9_of_the_server(server: Server, url: str, seed: int) -> None:
    """The appends that are under way when it dies wait for it to come back, and then end stored once."""
    journal = open_journal(url)
    acknowledged: dict[str, int] = {}
    more = asyncio.Condition()
    stop = asyncio.Event()

    async def fill(mission: str) -> None:
        chance, seq = rng("server", seed, mission), 0
        while not stop.is_set():
            size = chance.randint(1, 6)
            await journal.append(events(mission, *range(seq + 1, seq + size + 1), text=mission))
            acknowledged[mission] = seq = seq + size
            async with more:
                more.notify_all()

    async def until(count: int) -> None:
        async with more:
            await more.wait_for(lambda: sum(acknowledged.values()) >= count)

    writers = [asyncio.ensure_future(fill(f"m{n}")) for n in range(8)]
    chance = rng("moment", seed)
    for kill in (1, 2):
        await until(sum(acknowledged.values()) + chance.randint(50, 400))
        await asyncio.to_thread(server.kill)
        kept = dict(acknowledged)
        await asyncio.to_thread(server.start)
        other = open_journal(url)
        for mission, last in kept.items():
            assert len(await other.read(mission)) >= last, f"lost in kill {kill}"
        await other.close()
    await until(sum(acknowledged.values()) + 50)
    stop.set()
    await asyncio.gather(*writers)
    for mission, last in acknowledged.items():
        assert await seqs(journal, mission) == list(range(1, last + 1))
    assert sum(summary.events for summary in await journal.missions()) == sum(acknowledged.values())
    await journal.close()


async def test_a_server_that_stays_away_is_an_error_in_the_end(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_server, "PAUSES_S", (0.0, 0.0))
    journal = open_journal(url)
    await journal.append(events("m", 1))
    server.kill()
    for call in (journal.append(events("m", 2)), journal.read("m"), journal.missions(), journal.prune(1.0)):
        with pytest.raises(StorageError, match="out of reach") as refusal:
            await call
        assert_no_password(refusal.value)
    server.start()
    await journal.append(events("m", 2))
    await journal.close()


async def test_a_server_that_was_never_there_is_an_error_at_once(url: str, port: int) -> None:
    journal = open_journal(url.replace(f":{port}/", f":{free_port()}/"))
    for call in (journal.append(events("m", 1)), journal.read("m")):
        with pytest.raises(StorageError, match=r"127\.0\.0\.1") as refusal:
            await call
        assert_no_password(refusal.value)
    await journal.close()


async def test_a_wrong_password_is_an_error_at_once_and_not_shown(url: str) -> None:
    journal = open_journal(url.replace(ESCAPED_PASSWORD, "wrong-guess"))
    with pytest.raises(StorageError, match=r"(?i)password|auth") as refusal:
        await journal.append(events("m", 1))
    assert "wrong-guess" not in "".join(traceback.format_exception(refusal.value))
    await journal.close()


async def test_what_waits_is_stored_by_close(url: str) -> None:
    journal = open_journal(url)
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1))) for n in range(30)]
    await asyncio.sleep(0)
    await journal.close()
    await asyncio.gather(*appends)
    other = open_journal(url)
    assert len(await other.missions()) == 30
    await other.close()


async def test_a_read_that_is_cancelled_harms_nobody(url: str) -> None:
    journal = open_journal(url)
    await journal.append(events("m", *range(1, 500), text="x" * 1_000))
    for turns in range(12):
        read = asyncio.ensure_future(journal.read("m"))
        for _ in range(turns):
            await asyncio.sleep(0)
        read.cancel()
        with suppress(asyncio.CancelledError):
            await read
    assert await seqs(journal, "m") == list(range(1, 500))
    await journal.close()


def assert_no_password(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error))
    assert PASSWORD not in shown
    assert ESCAPED_PASSWORD not in shown
