from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chimera.core.events import Event, EventKind
from chimera.storage import sqlite_wal
from chimera.storage.sqlite import SqliteJournal

PAGE = 4_096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def batches(count: int, size: int = 20_000) -> Iterator[list[Event]]:
    for n in range(count):
        data = {"text": "x" * size}
        yield [Event(mission_id=f"m{n}", seq=1, kind=EventKind.TASK_STARTED, at_s=float(n), data=data)]  # type: ignore[arg-type]


def in_the_log(path: Path) -> int:
    """Bytes of the log, which starts over and does not shrink."""
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_the_log_stays_short_however_much_is_written_and_nothing_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_wal, "EVERY_BYTES", 100_000)
    monkeypatch.setattr(sqlite_wal, "MAX_PAGES", 100)
    journal = SqliteJournal(path=path)
    for batch in batches(300):
        await journal.append(batch)
    assert in_the_log(path) < 300 * 20_000 / 4
    assert journal._checkpoints.waited > 0
    assert len(await journal.missions(1_000)) == 300
    await journal.close()
    assert not path.with_name(f"{path.name}-wal").exists()  # all of it is in the file
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*), sum(length(line)) > 6000000 FROM events").fetchone() == (300, 1)


async def test_a_reader_that_holds_the_log_back_holds_no_commit_up_for_good(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_wal, "EVERY_BYTES", 50_000)
    monkeypatch.setattr(sqlite_wal, "MAX_PAGES", 20)
    journal = SqliteJournal(path=path, busy_timeout_s=0.05)
    more = batches(60)
    await journal.append(next(more))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()  # from now on it sees this state of the file
        for _ in range(40):
            await journal.append(next(more))
        assert in_the_log(path) > 40 * 20_000  # nothing it may still read is written over
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    for batch in more:
        await journal.append(batch)
    assert len(await journal.missions(1_000)) == 60
    await journal.close()


async def test_a_log_that_cannot_begin_anew_does_not_undo_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is full: what was committed is there, and its missions go on."""
    monkeypatch.setattr(sqlite_wal, "EVERY_BYTES", 1)
    monkeypatch.setattr(sqlite_wal, "MAX_PAGES", 0)
    journal = SqliteJournal(path=path)

    class Full:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection
            self.refused = 0

        def execute(self, statement: str) -> sqlite3.Cursor:
            if "RESTART" in statement:
                self.refused += 1
                raise sqlite3.OperationalError("database or disk is full")
            return self.connection.execute(statement)

    journal._checkpoints._connection = full = Full(journal._connection)  # type: ignore[assignment]
    for seq in range(1, 20):
        await journal.append([Event(mission_id="m", seq=seq, kind=EventKind.TASK_STARTED, at_s=0.0)])
    assert full.refused > 0
    assert [event.seq for event in await journal.read("m")] == list(range(1, 20))
    assert journal._connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)
    await journal.close()


async def test_many_small_commits_count_for_what_they_take(path: Path) -> None:
    journal = SqliteJournal(path=path)
    for batch in batches(400, size=10):
        await journal.append(batch)
    assert in_the_log(path) < 12_000_000
    await journal.close()
