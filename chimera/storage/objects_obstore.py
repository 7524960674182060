"""Object stores over `obstore`: memory, S3, a plain HTTP server.

Its functions that wait are called in threads, and not its async ones: these wake the event loop from threads of their
own, which outlive the answer, and one that comes back to an interpreter that is ending takes the process down with
SIGABRT. Threads of Python's are joined first.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import HTTPStore, MemoryStore, S3Store

from chimera.core.errors import ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from chimera.storage import objects
from chimera.storage.objects import ObjectStore, check_key, check_size

if TYPE_CHECKING:
    from obstore.store import RetryConfig

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_BYTES = 1 << 20

MAX_THREADS = 8
"""Calls that one store has in progress at once; others wait."""

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
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="objects")

    async def get(self, key: str) -> bytes:
        self._check(key)
        with self._boundary(key):
            return await self._wait_for(self._read, key)

    async def create(self, key: str, data: bytes) -> None:
        self._check(key)
        check_size(key, data)
        with self._boundary(key):
            try:
                await self._wait_for(obstore.put, self._store, key, data, mode="create")
            except FileNotFoundError:
                raise StorageError(f"{self.where} does not exist: make the bucket first") from None

    async def exists(self, key: str) -> bool:
        self._check(key)
        try:
            with self._boundary(key):
                await self._wait_for(obstore.head, self._store, key)
        except ObjectMissing:
            return False
        return True

    async def list(self, prefix: str = "") -> list[str]:
        folder = prefix.removesuffix("/")
        self._check(folder or "all")
        with self._boundary(prefix):
            return sorted(await self._wait_for(self._keys, folder))

    async def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _wait_for(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(call, *arguments, **options)
        )

    def _read(self, key: str) -> bytes:
        found = obstore.get(self._store, key)
        size, parts = 0, [b""]
        if found.meta["size"] > objects.MAX_OBJECT_BYTES:
            raise objects.too_large(self.where, key)
        for part in found.stream(min_chunk_size=CHUNK_BYTES):
            size += len(part)  # a server may send more than it announced
            if size > objects.MAX_OBJECT_BYTES:
                raise objects.too_large(self.where, key)
            parts.append(bytes(part))
        return b"".join(parts)

    def _keys(self, folder: str) -> builtins.list[str]:
        keys: builtins.list[str] = []
        for part in obstore.list(self._store, folder or None, chunk_size=1_000):
            keys += [meta["path"] for meta in part]
            if len(keys) > objects.MAX_LISTED:
                raise objects.too_many(self.where, folder)
        return keys

    def _check(self, key: str) -> None:
        if self._closed:
            raise StorageError(f"{self.where}: the object store is closed")
        check_key(key)

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
