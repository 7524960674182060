"""What only the SQLite journal does: reopening, group commit, bounds, damage, several processes, kill -9."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from chimera.core.errors import Overloaded, StorageError
from chimera.core.events import Event, EventKind
from chimera.core.rng import rng
from chimera.storage import sqlite
from chimera.storage.group_commit import Limits
from chimera.storage.journal import open_journal
from chimera.storage.sqlite import SqliteJournal
from chimera.storage.sqlite_schema import JOURNAL, TABLES_1

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
    journal = SqliteJournal(path=path, limits=Limits(waiting_events=10))
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
    journal = SqliteJournal(path=path, limits=Limits(waiting_bytes=1_000))
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
    journal = SqliteJournal(path=path, limits=Limits(waiting_events=3))
    with pytest.raises(StorageError, match="too much for one append"):
        await journal.append(events("m", 1, 2, 3, 4))
    await journal.close()


async def test_an_append_cancelled_while_it_waits_harms_nobody(path: Path) -> None:
    journal = SqliteJournal(path=path, limits=Limits(waiting_events=4))
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


async def test_a_mission_that_another_process_pruned_begins_anew(path: Path) -> None:
    """What one journal knows of a mission's end is forgotten when another writes the file."""
    one, two = SqliteJournal(path=path), SqliteJournal(path=path)
    await one.append([Event(mission_id="m", seq=1, kind=EventKind.MISSION_ENDED, at_s=1.0)])
    assert await two.prune(2.0) == 1
    with pytest.raises(StorageError, match="leaves a gap: 1 comes next"):
        await one.append(events("m", 2))
    await one.append(events("m", 1))
    assert await two.read("m") == events("m", 1)
    await one.close()
    await two.close()


async def test_more_missions_than_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_KNOWN", 3)
    journal = SqliteJournal(path=path)
    for seq in (1, 2, 3):
        await journal.append([event for n in range(8) for event in events(f"m{n}", seq)])
        await journal.append(events("alone", seq))
        assert len(journal._ends) == 3
    assert [summary.events for summary in await journal.missions()] == [3] * 9
    await journal.close()


def made_by_version_1(path: Path, missions: dict[str, list[Event]]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in (*TABLES_1, "PRAGMA application_id = 0x4348494D", "PRAGMA user_version = 1"):
            connection.execute(statement)
        for name, stored in missions.items():
            for event in stored:
                line = json.dumps(event.model_dump(mode="json", exclude={"swarm"}), separators=(",", ":")).encode()
                connection.execute("INSERT INTO events VALUES (?, ?, ?)", (name, event.seq, line))
            row = (name, stored[0].at_s, stored[-1].kind.value, stored[-1].seq)
            connection.execute("INSERT INTO missions VALUES (NULL, ?, ?, ?, ?)", row)


async def test_a_file_of_version_1_is_upgraded_in_place(path: Path) -> None:
    end = Event(mission_id="ended", seq=3, kind=EventKind.MISSION_ENDED, at_s=0.1 + 0.2, data={"x": "ü"})
    missions = {"ended": [*events("ended", 1, 2), end], "runs": events("runs", 1, 2, text="é"), "z": events("z", 1)}
    made_by_version_1(path, missions)
    journals = [SqliteJournal(path=path), SqliteJournal(path=path)]
    for journal in journals:
        assert {name: await journal.read(name) for name in missions} == missions
        assert [summary.mission_id for summary in await journal.missions()] == ["z", "runs", "ended"]
        assert [summary.mission_id for summary in await journal.missions(running=True)] == ["z", "runs"]
        [summary] = [found for found in await journal.missions() if found.mission_id == "ended"]
        assert (summary.events, summary.first_at_s, summary.last_at_s, summary.swarm) == (3, 1.0, 0.1 + 0.2, "")
    await journals[0].append(events("runs", 3))
    with pytest.raises(StorageError, match="4 comes next"):
        await journals[1].append(events("runs", 3))
    assert await journals[1].prune(1.0) == 1
    assert [summary.mission_id for summary in await journals[0].missions()] == ["z", "runs"]
    for journal in journals:
        await journal.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (JOURNAL.version,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_an_upgrade_that_fails_changes_nothing(path: Path) -> None:
    made_by_version_1(path, {"m": events("m", 1)})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET line = ?", (b"{}",))
    with pytest.raises(StorageError, match="event 1 of mission m: a stored event cannot be read back"):
        SqliteJournal(path=path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT mission_id, seq, line FROM events").fetchall() == [("m", 1, b"{}")]


@pytest.mark.parametrize("swarm", [None, "rare", "common", "nobody"])
@pytest.mark.parametrize("running", [False, True])
async def test_the_list_is_found_without_looking_through_all_missions(
    path: Path, swarm: str | None, running: bool
) -> None:
    """Measured in steps of SQLite's machine: they hardly grow when there are ten times as many missions."""
    journal = SqliteJournal(path=path)
    steps: list[int] = []
    stored = 0
    for missions in (2_000, 20_000):
        while stored < missions:
            batch = []
            for n in range(stored, stored + 1_000):
                writer = "rare" if n % 500 == 0 else "common"
                kind = EventKind.TASK_STARTED if n % 500 < 2 else EventKind.MISSION_ENDED
                batch.append(Event(mission_id=f"m{n}", seq=1, kind=kind, at_s=float(n), swarm=writer))
            await journal.append(batch)
            stored += 1_000
        steps.append(await count_steps(journal, journal.missions(3, swarm=swarm, running=running)))
        steps.append(await count_steps(journal, journal.prune(1.5, 3)))
    assert max(steps) < 600, steps
    await journal.close()


async def count_steps(journal: SqliteJournal, query: Awaitable[object]) -> int:
    counted = [0]

    def count() -> None:
        counted[0] += 1

    journal._connection.set_progress_handler(count, 1)
    await query
    journal._connection.set_progress_handler(None, 1)
    return counted[0]


async def test_a_newer_version_is_refused(path: Path) -> None:
    await SqliteJournal(path=path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {JOURNAL.version + 1}")
    with pytest.raises(StorageError, match=r"newer Chimera \(schema 3; this one knows 2\): upgrade"):
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
