"""The object store that is a directory.

What lies in it may have been put there by strangers: only plain files of the directory itself are objects. What is a
link, a pipe or a device is not there, so that no reading leaves the store, or waits for whoever holds the other end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chimera.core.errors import ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from chimera.storage import objects
from chimera.storage.objects import ObjectStore, check_key, check_size, is_key

_NONE_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR})


class LocalObjects(ObjectStore):
    """A directory, made when the first object is. Several processes may share it."""

    def __init__(self, *, path: Path) -> None:
        self.path = path
        self.where = f"file://{path}"
        self._closed = False

    async def get(self, key: str) -> bytes:
        self._check(key)
        with self._boundary(key):
            data = await asyncio.to_thread(_read_file, self.path, key)
        if data is None:
            raise ObjectMissing(f"{self.where}: there is no {key}")
        if len(data) > objects.MAX_OBJECT_BYTES:
            raise objects.too_large(self.where, key)
        return data

    async def create(self, key: str, data: bytes) -> None:
        self._check(key)
        check_size(key, data)
        try:
            created = await asyncio.to_thread(_create_file, self.path / key, data)
        except OSError as error:
            raise StorageError(f"{self.where}: {key} cannot be made: {error.strerror}") from None
        if not created:
            raise ObjectExists(f"{self.where}: {key} is there already")

    async def exists(self, key: str) -> bool:
        self._check(key)
        with self._boundary(key):
            return await asyncio.to_thread(_is_file, self.path, key)

    async def list(self, prefix: str = "") -> list[str]:
        folder = prefix.removesuffix("/")
        self._check(folder or "all")
        with self._boundary(prefix):
            keys = await asyncio.to_thread(_keys_below, self.path, folder)
        if len(keys) > objects.MAX_LISTED:
            raise objects.too_many(self.where, prefix)
        return sorted(keys)

    async def close(self) -> None:
        self._closed = True

    def _check(self, key: str) -> None:
        if self._closed:
            raise StorageError(f"{self.where}: the object store is closed")
        check_key(key)

    @contextmanager
    def _boundary(self, key: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise StorageError(f"{self.where}: access to {key!r} is refused: check who may read it") from None
        except OSError as error:
            raise StorageUnavailable(f"{self.where} cannot be read at {key!r}: {error.strerror}") from None


def _stays_inside(root: Path, key: str) -> bool:
    """Whether no part of the key is a link. The store's own path may have some."""
    real = os.path.realpath(root)
    return os.path.realpath(os.path.join(real, key)) == os.path.join(real, key)


def _read_file(root: Path, key: str) -> bytes | None:
    """At most one byte more than an object has; None where there is no plain file."""
    try:
        if not _stays_inside(root, key):
            return None
        # To open a pipe would wait for a writer.
        handle = os.open(root / key, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            with open(handle, "rb", closefd=False) as file:
                return file.read(objects.MAX_OBJECT_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in _NONE_THERE:
            return None
        raise


def _is_file(root: Path, key: str) -> bool:
    try:
        return _stays_inside(root, key) and stat.S_ISREG(os.lstat(root / key).st_mode)
    except OSError as error:
        if error.errno in _NONE_THERE:
            return False
        raise


def _keys_below(root: Path, folder: str) -> list[str]:
    """The keys in a folder and those below it, in no order; stops at one more than a listing may have."""
    if folder and not _stays_inside(root, folder):
        return []
    keys: list[str] = []
    waiting = [folder]
    while waiting and len(keys) + len(waiting) <= objects.MAX_LISTED:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if not is_key(key):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(key)
                    elif entry.is_file(follow_symlinks=False):
                        keys.append(key)
                    if len(keys) + len(waiting) > objects.MAX_LISTED:
                        break
        except OSError as error:
            if error.errno not in _NONE_THERE:
                raise
    return keys + waiting


def _create_file(path: Path, data: bytes) -> bool:
    """Make the file durably and in one step; false if there is one, which is left alone.

    A file is linked under its name when its bytes are on the disk, so that no power cut leaves an empty object that
    nobody may replace.
    """
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}#{secrets.randbits(48)}")  # a name that is no key
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # which, unlike a rename, replaces nothing
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    for folder in (path.parent, *(each.parent for each in missing)):
        _sync_folder(folder)
    return True


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
