"""Object stores over `obstore`: memory, S3, a local directory, a plain HTTP server."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import HTTPStore, LocalStore, MemoryStore, S3Store

from chimera.core.errors import ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from chimera.storage.objects import MAX_LISTED, MAX_OBJECT_BYTES, ObjectStore, check_key

if TYPE_CHECKING:
    from obstore.store import RetryConfig

CHUNK_BYTES = 1 << 20

RETRY: RetryConfig = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}
"""For a server that fails or is out of reach. Refusals are not tried again."""

TIMEOUT = timedelta(seconds=30)

_STATUS = re.compile(r"status code: (\d{3})")


class Objects(ObjectStore):
    """The objects in one of obstore's stores. `where` names it in messages."""

    def __init__(self, *, store: obstore.store.ObjectStore, where: str) -> None:
        self.where = where
        self._store = store
        self._closed = False

    async def get(self, key: str) -> bytes:
        self._check(key)
        with self._boundary(key):
            found = await obstore.get_async(self._store, key)
            size, parts = found.meta["size"], [b""]
            if size <= MAX_OBJECT_BYTES:
                size = 0
                async for part in found.stream(min_chunk_size=CHUNK_BYTES):
                    size += len(part)  # a server may send more than it announced
                    if size > MAX_OBJECT_BYTES:
                        break
                    parts.append(bytes(part))
        if size > MAX_OBJECT_BYTES:
            raise StorageError(f"{self.where}: {key} is larger than {MAX_OBJECT_BYTES} bytes, and is not read")
        return b"".join(parts)

    async def create(self, key: str, data: bytes) -> None:
        self._check(key)
        self._check_size(key, data)
        with self._boundary(key):
            try:
                await obstore.put_async(self._store, key, data, mode="create")
            except FileNotFoundError:
                raise StorageError(f"{self.where} does not exist: make the bucket first") from None

    async def exists(self, key: str) -> bool:
        self._check(key)
        try:
            with self._boundary(key):
                await obstore.head_async(self._store, key)
        except ObjectMissing:
            return False
        return True

    async def list(self, prefix: str = "") -> list[str]:
        folder = prefix.removesuffix("/")
        self._check(folder or "all")
        keys: list[str] = []
        with self._boundary(prefix):
            async for part in obstore.list(self._store, folder or None, chunk_size=1_000):
                keys += [meta["path"] for meta in part]
                if len(keys) > MAX_LISTED:
                    raise StorageError(f"{self.where}: more than {MAX_LISTED} objects are in {prefix!r}")
        return sorted(keys)

    async def close(self) -> None:
        self._closed = True

    def _check(self, key: str) -> None:
        if self._closed:
            raise StorageError(f"{self.where}: the object store is closed")
        check_key(key)

    def _check_size(self, key: str, data: bytes) -> None:
        if len(data) > MAX_OBJECT_BYTES:
            raise StorageError(f"{key} has {len(data)} bytes; the limit is {MAX_OBJECT_BYTES}")

    @contextmanager
    def _boundary(self, key: str) -> Iterator[None]:
        """Obstore's errors as ours. What it says is left out, since it may hold a signature or a password."""
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError:
            raise ObjectMissing(f"{self.where}: there is no {key}") from None
        except (AlreadyExistsError, PreconditionError):
            raise ObjectExists(f"{self.where}: {key} is there already") from None
        except (PermissionDeniedError, UnauthenticatedError, PermissionError):
            raise StorageError(f"{self.where}: access to {key!r} is refused: check the credentials") from None
        except (BaseError, OSError) as error:
            status = _STATUS.search(str(error))
            if status and status[1].startswith("4") and status[1] not in ("408", "409", "429"):
                raise StorageError(f"{self.where}: {key!r} is refused, with HTTP status {status[1]}") from None
            said = f"HTTP status {status[1]}" if status else type(error).__name__
            raise StorageUnavailable(f"{self.where} is out of reach, or failed ({said}), at {key!r}") from None


class LocalObjects(Objects):
    """A directory, made when the first object is. Several processes may share it.

    Creating is done here rather than by obstore, which neither waits for the disk nor could: it links a file under its
    name before its bytes are down, so that a power cut could leave an empty object that nobody may replace.
    """

    def __init__(self, *, path: Path) -> None:
        self.path = path
        super().__init__(store=MemoryStore(), where=f"file://{path}")
        self._found = False

    async def get(self, key: str) -> bytes:
        self._find()
        return await super().get(key)

    async def exists(self, key: str) -> bool:
        self._find()
        return await super().exists(key)

    async def list(self, prefix: str = "") -> list[str]:
        self._find()
        return await super().list(prefix)

    async def create(self, key: str, data: bytes) -> None:
        self._check(key)
        self._check_size(key, data)
        with self._boundary(key):
            try:
                created = await asyncio.to_thread(_create_file, self.path / key, data)
            except OSError as error:
                raise StorageError(f"{self.where}: {key} cannot be made: {error.strerror}") from None
        if not created:
            raise ObjectExists(f"{self.where}: {key} is there already")

    def _find(self) -> None:
        """Open the directory as soon as it is there. Until then it is empty."""
        if not self._found and self.path.is_dir():
            with self._boundary(""):
                self._store = LocalStore(self.path)
            self._found = True


class HttpObjects(Objects):
    """A plain web server, read only: it has no listing, so readers ask for the keys that they expect."""

    def __init__(self, *, url: str) -> None:
        store = HTTPStore.from_url(
            url, client_options={"allow_http": url.startswith("http://"), "timeout": TIMEOUT}, retry_config=RETRY
        )
        super().__init__(store=store, where=url)

    async def create(self, key: str, data: bytes) -> None:
        self._check(key)
        raise StorageError(f"{self.where} can only be read: write to file:///PATH or s3://BUCKET/PREFIX")

    async def list(self, prefix: str = "") -> list[str]:
        self._check(prefix.removesuffix("/") or "all")
        raise StorageError(f"{self.where} has no listing: ask for keys by name")


def memory_objects() -> Objects:
    """A store that lives as long as its process."""
    return Objects(store=MemoryStore(), where="memory://")


def s3_objects(*, bucket: str, prefix: str, endpoint: str) -> Objects:
    """A folder of a bucket. A plain-text `endpoint` is used only because it was named as one."""
    store = S3Store(
        bucket,
        prefix=prefix or None,
        conditional_put="etag",
        client_options={"allow_http": endpoint.startswith("http://"), "timeout": TIMEOUT},
        retry_config=RETRY,
    )
    return Objects(store=store, where=f"s3://{bucket}/{prefix}".rstrip("/"))


def _create_file(path: Path, data: bytes) -> bool:
    """Make the file durably and in one step; false if there is one, which is left alone."""
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}#{secrets.randbits(48)}")  # a name that listings leave out
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
