"""The file of identity: private, shared by processes, and what it was told outlives a kill."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import StorageError, Unauthenticated
from chimera.security.roles import Role
from chimera.security.store import KEEP_S, SecurityStore
from tests.unit.security import identity
from tests.unit.security.identity import PASSWORD, START_S, add_users, opened


def store_in(folder: Path, clock: ManualClock | None = None) -> SecurityStore:
    return SecurityStore(folder / "security.db", clock=clock or ManualClock(START_S))


def test_the_file_and_its_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "security"
    store = store_in(folder)
    store.revoke("some-id", START_S)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    store.close()
    store.path.chmod(0o644)
    with pytest.raises(StorageError, match="other users"):
        store_in(folder)


def test_another_programs_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "security.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        store_in(tmp_path)
    assert path.read_bytes() == before
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="damaged"):
        store_in(tmp_path)


def test_a_newer_file_is_not_touched(tmp_path: Path) -> None:
    store_in(tmp_path).close()
    with sqlite3.connect(tmp_path / "security.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="newer Chimera"):
        store_in(tmp_path)


def test_a_revocation_is_seen_by_others_at_once_and_kept_as_long_as_it_matters(tmp_path: Path) -> None:
    clock = ManualClock(START_S)
    ours, theirs = store_in(tmp_path, clock), store_in(tmp_path, clock)
    ours.revoke("a", START_S + 100)
    ours.revoke("a", START_S + 50)  # the later end stands
    assert theirs.is_revoked("a") and not theirs.is_revoked("b")
    clock.advance(100 + KEEP_S - 1)
    theirs.revoke("b", START_S + 10_000)
    assert ours.is_revoked("a") and ours.is_revoked("b")
    clock.advance(2)
    theirs.revoke("c", START_S + 10_000)
    assert not ours.is_revoked("a") and ours.is_revoked("b")
    ours.close()
    theirs.close()


async def test_a_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    store = store_in(tmp_path)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO revoked VALUES ('x', 1e12)")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        await store.write(work)
    assert not store.is_revoked("x")
    with pytest.raises(StorageError):
        await store.write(lambda c: c.execute("INSERT INTO nothing VALUES (1)"))
    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await store.write(lambda c: c.execute("INSERT INTO refreshes VALUES ('r', 'no such family', 0)"))
    await store.write(lambda c: c.execute("INSERT INTO revoked VALUES ('x', 1e12)"))
    assert store.is_revoked("x")
    store.close()


async def test_a_closed_store_says_so_and_one_leaves_no_process(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(TypeError):
        pickle.dumps(store)
    store.close()
    store.close()
    with pytest.raises(StorageError):
        store.revoke("x", 0.0)
    with pytest.raises(StorageError):
        store.is_revoked("x")


def test_a_revoked_token_stays_revoked_when_its_process_is_killed(tmp_path: Path) -> None:
    """Killed (SIGKILL) as soon as it has said that the token is revoked: another process refuses it."""

    async def log_in() -> tuple[str, str, str, str]:
        with opened(tmp_path) as manager:
            await add_users(manager, "oscar")
            pair = await manager.authenticate("oscar", PASSWORD)
            other = await manager.authenticate("oscar", PASSWORD)
            key, _ = await manager.create_api_key("oscar", Role.OPERATOR)
            assert manager.verify(pair.access_token) and manager.verify(key)
            return pair.access_token, pair.refresh_token, other.access_token, key

    access, refresh, other, key = asyncio.run(log_in())
    for token in (access, key):
        child = subprocess.Popen(
            [sys.executable, identity.__file__, "revoke", str(tmp_path), token],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"revoked\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
        child.stdout.close()
    with opened(tmp_path) as manager:
        for token in (access, key):
            with pytest.raises(Unauthenticated, match="revoked"):
                manager.verify(token)
        with pytest.raises(Unauthenticated):
            asyncio.run(manager.refresh(refresh))
        assert manager.verify(other).subject == "oscar"
