"""A journal's URL."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from chimera.core.errors import InputError, StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import open_journal
from chimera.storage.memory import MemoryJournal
from chimera.storage.sqlite import SqliteJournal
from chimera.storage.url import hide_password

FIRST = Event(mission_id="m", seq=1, kind=EventKind.MISSION_ADMITTED, at_s=1.0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "journal.db",
        "mysql://host/db",
        "postgres://host/db",
        "postgresql://",
        "redis://",
        "redis:host",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/x",
        "memory://x",
        "memory",
        "mysql://user:secret@host/db",
        "mysql://user:p:secret@host/db",
        "mysql://user:p/secret@host/db",
        "mysql://user:12/secret@host/db",
        "mysql://user:p?secret@host/db",
        "mysql://user:12#secret@host/db",
        "mysql://user:s@secret@host/db",
        "mysql://host/db?password=secret",
        "mysql://host/db?password=a@secret",
        "mysql:user:secret@host",
    ],
)
def test_what_is_not_a_journal_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(InputError, match=r"use sqlite:///PATH or memory://") as refusal:
        open_journal(url)
    assert "secret" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:p/secret@host",
        "redis://user:secret@host:x",
        "redis://:secret@host?durable=maybe",
        "redis://:secret@host?socket_timeout=soon",
        "rediss://:secret@[host",
        "postgresql://user:secret@host:x:y/db",
        "postgresql://user:12/secret@host/db",
        "redis://user:12/secret@host",
        "postgresql://user:secret@host/db?bogus=1",
        "postgresql://user:secret%zz@host/db",
    ],
)
def test_a_url_of_a_server_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as refusal:
        open_journal(url)
    assert "secret" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/1?durable=no", "redis://host:6379/1"),
        ("rediss://user:secret@[::1]:6379", "rediss://[::1]:6379"),
        ("postgresql://user:secret@host/db?options=-cx%3D1", "postgresql://host/db"),
        ("sqlite:////tmp/journal.db", "sqlite:////tmp/journal.db"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    ("scheme", "driver", "extra"), [("redis", "redis", "redis"), ("postgresql", "psycopg", "postgres")]
)
def test_a_driver_that_is_not_installed_is_named_with_its_extra(scheme: str, driver: str, extra: str) -> None:
    program = f"import sys; sys.modules['{driver}'] = None\nfrom chimera.storage.journal import open_journal\n"
    program += f"try:\n    open_journal('{scheme}://host/0')\nexcept Exception as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{driver} is not installed: pip install 'chimera[{extra}]'\n"


async def test_a_server_is_reached_at_the_first_use_and_not_before() -> None:
    for url in ("redis://127.0.0.1:1/0", "postgresql://127.0.0.1:1/db"):
        await open_journal(url).close()


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


@pytest.mark.parametrize("where", ["new/folder/journal.db", "journal.db", "file/journal.db"])
def test_without_create_what_is_not_there_is_refused_and_nothing_is_made(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=f"{tmp_path / where}: there is no journal .* check its path"):
        open_journal(f"sqlite:///{tmp_path / where}", create=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


async def test_without_create_a_journal_that_is_there_is_opened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    made = open_journal(url)
    await made.append([FIRST])
    await made.close()
    journal = open_journal(url, create=False)
    assert await journal.read("m") == [FIRST]
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
