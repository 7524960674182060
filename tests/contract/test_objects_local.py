"""What a directory as an object store does besides: what lies on the disk, and what strangers may have put there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from chimera.core.errors import ObjectExists, ObjectMissing, StorageError
from chimera.storage.objects import open_objects


async def test_a_folder_is_made_by_the_first_object_only(tmp_path: Path) -> None:
    store = open_objects(f"file://{tmp_path}/not/yet")
    assert await store.list() == []
    assert not await store.exists("a")
    assert not (tmp_path / "not").exists()
    await store.create("a", b"1")
    assert await store.list() == ["a"]


async def test_what_a_crash_left_half_made_is_not_seen(tmp_path: Path) -> None:
    store = open_objects(f"file://{tmp_path}")
    await store.create("a/b.json", b"1")
    (tmp_path / "a" / "c.json#17").write_bytes(b"hal")
    assert await store.list() == ["a/b.json"]
    await store.create("a/c.json", b"2")
    assert await store.get("a/c.json") == b"2"


async def test_a_directory_holds_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    store = open_objects(f"file://{tmp_path}")
    await store.create("a/b.json", b"1")
    with pytest.raises(ObjectExists):
        await store.create("a/b.json", b"2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    assert (tmp_path / "a" / "b.json").read_bytes() == b"1"
    with pytest.raises(StorageError, match=r"cannot be made: (Not a directory|File exists)"):
        await store.create("a/b.json/c", b"2")


async def test_what_is_no_plain_file_of_the_directory_is_not_there(tmp_path: Path) -> None:
    """Neither is waited for whoever writes into a pipe, nor is anything read that lies elsewhere."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside / "a"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"1")
    os.mkfifo(inside / "a" / "pipe")
    (inside / "a" / "link").symlink_to(outside / "file")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (tmp_path / "mine").symlink_to(inside)
    for root in (inside, tmp_path / "mine"):
        store = open_objects(root.as_uri())
        assert await store.list() == ["a/file"]
        assert await store.list("folder") == []
        assert await store.get("a/file") == b"1" and await store.exists("a/file")
        for key in ("a/pipe", "a/link", "folder/file", "loop/a/file"):
            assert not await store.exists(key)
            with pytest.raises(ObjectMissing):
                await store.get(key)
        with pytest.raises(ObjectExists):
            await store.create("a/link", b"2")
    assert (outside / "file").read_bytes() == b"1"


async def test_a_name_that_is_no_key_is_not_listed(tmp_path: Path) -> None:
    for name in ("a b", ".hidden", "a%2e", "ok"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / ".folder").mkdir()
    (tmp_path / ".folder" / "ok").write_bytes(b"1")
    assert await open_objects(tmp_path.as_uri()).list() == ["ok"]


async def test_a_directory_that_may_not_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"1")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    store = open_objects(tmp_path.as_uri())
    for name in ("scandir", "open", "lstat"):
        monkeypatch.setattr(f"chimera.storage.objects_local.os.{name}", refuse)
    for call in (store.list(), store.get("a"), store.exists("a")):
        with pytest.raises(StorageError, match=r"access to .* is refused"):
            await call


async def test_a_file_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then each folder that has a new name in it."""
    synced: list[tuple[bool, bool]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), (tmp_path / "a/b/c.json").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    await open_objects(f"file://{tmp_path}").create("a/b/c.json", b"1")
    assert synced == [(False, False), (True, True), (True, True), (True, True)]
