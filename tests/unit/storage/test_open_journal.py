"""A journal's URL."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from chimera.core.errors import InputError, StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import open_journal
from chimera.storage.memory import MemoryJournal
from chimera.storage.sqlite import SqliteJournal

FIRST = Event(mission_id="m", seq=1, kind=EventKind.MISSION_ADMITTED, at_s=1.0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "journal.db",
        "postgres://host/db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/x",
        "memory://x",
        "memory",
    ],
)
def test_what_is_not_a_journal_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(InputError, match=r"use sqlite:///PATH or memory://"):
        open_journal(url)


async def test_memory() -> None:
    journal = open_journal("memory://")
    assert isinstance(journal, MemoryJournal)
    await journal.close()


async def test_an_absolute_path_makes_private_folders_and_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "journal ?#%.db"
    before = os.umask(0)  # nothing but the code itself may keep others out
    try:
        journal = open_journal(f"sqlite:///{path}")
    finally:
        os.umask(before)
    await journal.append([FIRST])
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name.removeprefix(path.name) for file in files] == ["", "-shm", "-wal"]
    assert {mode(file) for file in files} == {0o600}
    await journal.close()


async def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = open_journal("sqlite:///folder/journal.db")
    assert isinstance(journal, SqliteJournal)
    assert (tmp_path / "folder" / "journal.db").is_file()
    await journal.close()


async def test_folders_that_exist_keep_their_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o750)
    await open_journal(f"sqlite:///{folder / 'journal.db'}").close()
    assert mode(folder) == 0o750


@pytest.mark.parametrize("where", ["folder", "file/journal.db"])
def test_a_path_that_cannot_be_a_file_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=str(tmp_path / where)):
        open_journal(f"sqlite:///{tmp_path / where}")
