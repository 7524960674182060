"""What only the SQLite journal does: reopening, group commit, bounds, damage, several processes, kill -9."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from chimera.core.errors import Overloaded, StorageError
from chimera.core.events import Event, EventKind
from chimera.core.rng import rng
from chimera.storage.journal import open_journal
from chimera.storage.sqlite import SCHEMA_VERSION, SqliteJournal

APPENDER = Path(__file__).with_name("appender.py")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def events(mission: str, *seqs: int, text: str = "") -> list[Event]:
    return [Event(mission_id=mission, seq=seq, kind=EventKind.TASK_DECIDED, at_s=1.0, data={"x": text}) for seq in seqs]


def lock(path: Path) -> sqlite3.Connection:
    """Another program's write transaction: until it ends, the journal cannot commit."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def overwrite_events(path: Path) -> None:
    """Damage that opening does not find: the header and the schema stay as they are."""
    whole = path.read_bytes()
    path.write_bytes(whole[:8192].ljust(len(whole), b"\xff"))


async def let_appends_enter() -> None:
    """A coroutine that was made into a task has run to its first wait once the loop has come round."""
    await asyncio.sleep(0)


async def test_what_was_appended_is_there_after_reopening(path: Path) -> None:
    first = SqliteJournal(path=path)
    await first.append(events("m", 1, 2, text="ü"))
    await first.close()
    second = SqliteJournal(path=path)
    assert await second.read("m") == events("m", 1, 2, text="ü")
    with pytest.raises(StorageError, match="3 comes next"):
        await second.append(events("m", 2))
    await second.append(events("m", 3))
    assert [summary.events for summary in await second.missions()] == [3]
    await second.close()


async def test_the_disk_is_asked_to_keep_it(path: Path) -> None:
    journal = SqliteJournal(path=path)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await journal.close()


async def test_appends_that_arrive_during_a_commit_share_the_next_one(path: Path) -> None:
    journal = SqliteJournal(path=path)
    other = lock(path)
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1))) for n in range(100)]
    await let_appends_enter()
    assert not any(append.done() for append in appends)
    other.execute("ROLLBACK")
    await asyncio.gather(*appends)
    assert 1 <= journal.commits <= 2  # those that the writer took before the lock, and all the rest
    assert len(await journal.missions()) == 100
    other.close()
    await journal.close()


async def test_appends_over_the_limit_are_refused_and_the_rest_is_kept(path: Path) -> None:
    journal = SqliteJournal(path=path, max_waiting_events=10)
    other = lock(path)
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1, 2))) for n in range(5)]
    await let_appends_enter()
    with pytest.raises(Overloaded) as refusal:
        await journal.append(events("late", 1))
    assert refusal.value.retry_after_s > 0
    other.execute("ROLLBACK")
    await asyncio.gather(*appends)
    await journal.append(events("late", 1))
    assert len(await journal.missions()) == 6
    other.close()
    await journal.close()


async def test_waiting_bytes_are_bounded_too(path: Path) -> None:
    journal = SqliteJournal(path=path, max_waiting_bytes=1_000)
    other = lock(path)
    append = asyncio.ensure_future(journal.append(events("a", 1, text="x" * 600)))
    await let_appends_enter()
    with pytest.raises(Overloaded):
        await journal.append(events("b", 1, text="x" * 600))
    other.execute("ROLLBACK")
    await append
    with pytest.raises(StorageError, match="too much for one append"):
        await journal.append(events("b", 1, text="x" * 1_000))
    other.close()
    await journal.close()


async def test_an_append_that_can_never_fit_says_so(path: Path) -> None:
    journal = SqliteJournal(path=path, max_waiting_events=3)
    with pytest.raises(StorageError, match="too much for one append"):
        await journal.append(events("m", 1, 2, 3, 4))
    await journal.close()


async def test_an_append_cancelled_while_it_waits_harms_nobody(path: Path) -> None:
    journal = SqliteJournal(path=path, max_waiting_events=4)
    other = lock(path)
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1, 2))) for n in range(2)]
    await let_appends_enter()
    for append in appends:
        append.cancel()
    other.execute("ROLLBACK")
    await asyncio.gather(*appends, return_exceptions=True)
    await journal.missions()  # behind every commit: the places of the cancelled are free again
    await journal.append(events("after", 1, 2, 3, 4))
    for summary in await journal.missions():
        assert [e.seq for e in await journal.read(summary.mission_id)] == list(range(1, summary.events + 1))
    other.close()
    await journal.close()


async def test_a_commit_that_fails_is_told_to_every_append_and_can_be_tried_again(path: Path) -> None:
    journal = SqliteJournal(path=path, busy_timeout_s=0.01)
    other = lock(path)
    appends = [asyncio.ensure_future(journal.append(events(f"m{n}", 1))) for n in range(3)]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, StorageError)
        assert "another process holds the journal" in str(outcome)
    other.execute("ROLLBACK")
    assert await journal.missions() == []
    await journal.append(events("m0", 1))
    other.close()
    await journal.close()


async def test_a_disk_that_fills_up_in_the_middle_leaves_nothing_behind(path: Path) -> None:
    journal = SqliteJournal(path=path)
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    other = lock(path)  # holds the appends back, so that the last two share a transaction
    fits, too_much = events("a", 1, text="x"), events("b", *range(1, 60), text="x" * 4_000)
    appends = [asyncio.ensure_future(journal.append(batch)) for batch in (events("0", 1), fits, too_much)]
    await let_appends_enter()
    other.execute("ROLLBACK")
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(outcomes[2], StorageError)
    assert "disk is full" in str(outcomes[2])
    kept = {name for name, outcome in zip("0a", outcomes, strict=False) if outcome is None}
    assert {summary.mission_id for summary in await journal.missions()} == kept
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 2_000}")
    await journal.append(too_much)
    other.close()
    await journal.close()


async def test_a_batch_that_fails_in_the_middle_leaves_nothing_behind(path: Path) -> None:
    journal = SqliteJournal(path=path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER failing BEFORE INSERT ON events WHEN new.seq = 3 BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    with pytest.raises(StorageError, match=f"{path}: broken"):
        await journal.append(events("m", 1, 2, 3))
    assert await journal.read("m") == []
    await journal.append(events("m", 1, 2))
    await journal.close()


async def test_two_journals_on_one_file_see_each_other(path: Path) -> None:
    one, two = SqliteJournal(path=path), SqliteJournal(path=path)
    for seq in range(1, 21):
        await (one if seq % 2 else two).append(events("shared", seq))
    with pytest.raises(StorageError, match="21 comes next"):
        await one.append(events("shared", 20))
    await asyncio.gather(
        *(j.append(events(f"{name}{n}", 1)) for n in range(30) for name, j in (("a", one), ("b", two)))
    )
    assert await one.missions() == await two.missions()
    assert len(await one.missions()) == 61
    await one.close()
    await two.append(events("shared", 21))
    await two.close()


def test_a_new_file_may_be_opened_by_many_at_once(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        journals = list(pool.map(lambda _: SqliteJournal(path=path), range(8)))

    async def use() -> None:
        await asyncio.gather(*(journal.append(events(f"m{n}", 1)) for n, journal in enumerate(journals)))
        assert len(await journals[0].missions()) == 8
        for journal in journals:
            await journal.close()

    asyncio.run(use())


async def test_a_newer_version_is_refused(path: Path) -> None:
    await SqliteJournal(path=path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StorageError, match=r"newer Chimera \(schema 2; this one knows 1\): upgrade"):
        SqliteJournal(path=path)


def test_another_programs_file_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        SqliteJournal(path=path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_named_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"this is not a database, but it is long enough to be one" * 100)
    with pytest.raises(StorageError, match=f"{path}: the journal is damaged .* move it away"):
        SqliteJournal(path=path)


async def test_damage_inside_the_file_is_named_when_it_is_met(path: Path) -> None:
    journal = SqliteJournal(path=path)
    await journal.append(events("m", *range(1, 200), text="x" * 500))
    await journal.close()
    overwrite_events(path)
    damaged = SqliteJournal(path=path)
    with pytest.raises(StorageError, match=f"{path}: the journal is damaged"):
        await damaged.read("m")
    with pytest.raises(StorageError, match=str(path)):
        await damaged.append(events("m", 200))
    await damaged.close()


async def test_a_stored_line_that_is_no_event_is_an_error(path: Path) -> None:
    journal = SqliteJournal(path=path)
    await journal.append(events("m", 1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET line = ?", (b"{}",))
    with pytest.raises(StorageError, match="cannot be read back"):
        await journal.read("m")
    await journal.close()


@pytest.mark.parametrize("seed", range(5))
def test_what_an_append_returned_for_survives_kill_9(path: Path, seed: int) -> None:
    url = f"sqlite:///{path}"
    moment = rng("kill", seed).randint(1, 400)
    child = subprocess.Popen(
        [sys.executable, str(APPENDER), url, str(seed)], stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(moment)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL

    async def check() -> None:
        journal = open_journal(url)
        stored = {m.mission_id: await journal.read(m.mission_id) for m in await journal.missions()}
        for line in lines:
            mission, first, size = line.decode().split()
            last = int(first) + int(size) - 1
            assert [e.seq for e in stored[mission][int(first) - 1 : last]] == list(range(int(first), last + 1))
        for read in stored.values():
            assert [e.seq for e in read] == list(range(1, len(read) + 1))
            begin, count = read[-1].data["first"], read[-1].data["size"]
            assert isinstance(begin, int)
            assert isinstance(count, int)
            assert read[-1].seq == begin + count - 1, "half a batch was stored"
        await journal.close()

    asyncio.run(check())
