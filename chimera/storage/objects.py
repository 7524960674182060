"""The object port: named bytes that are made once and never changed, in a directory, on S3, in memory, behind HTTP.

What every store promises is in `tests/contract/test_objects.py`: of two that create the same object one is refused,
nobody sees half an object, and nothing is read that is larger than the limit.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from chimera.core.errors import InputError, MissingExtra, ObjectTooLarge, StorageError
from chimera.storage.url import hide_password

MAX_KEY_CHARACTERS = 512

MAX_OBJECT_BYTES = 16 * 2**20

MAX_LISTED = 1_000_000
"""Keys that one listing returns."""

_SEGMENT = r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")


class ObjectStore(ABC):
    """Objects by key. A key is `/`-separated words of letters, digits and `._=-`, none of which begins with a dot.

    Every method raises StorageError for a key that is none, a closed store, or a store that refuses, and
    StorageUnavailable when it is out of reach. What is said never shows a password.
    """

    @abstractmethod
    async def get(self, key: str) -> bytes:
        """What is stored under `key`. Raises ObjectMissing, and ObjectTooLarge for more than 16 MiB."""

    @abstractmethod
    async def create(self, key: str, data: bytes) -> None:
        """Store `data`, all of it or nothing, durably. Raises ObjectExists when something is there already.

        After StorageUnavailable it may be there or not: create it again, and take ObjectExists for an answer to check.
        """

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether something is stored under `key`."""

    @abstractmethod
    async def list(self, prefix: str = "") -> list[str]:
        """The keys in a folder (`a/b` or `a/b/`; all for nothing) and those below it, sorted.

        Raises StorageError when there are more than a million, or the store cannot say.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. Twice is fine; using the store after is not."""


def is_key(key: str) -> bool:
    """Whether stores take this key."""
    return len(key) <= MAX_KEY_CHARACTERS and _KEY.fullmatch(key) is not None


def check_key(key: str) -> None:
    """Raises StorageError for a key that no store takes."""
    if not is_key(key):
        raise StorageError(
            f"{key!a:.200} is no key: use up to {MAX_KEY_CHARACTERS} letters, digits and ._=- in words between slashes,"
            " none of which begins with a dot"
        )


def check_size(key: str, data: bytes) -> None:
    """Raises StorageError for more bytes than an object has."""
    if len(data) > MAX_OBJECT_BYTES:
        raise StorageError(f"{key} has {len(data)} bytes; the limit is {MAX_OBJECT_BYTES}")


def too_large(where: str, key: str) -> ObjectTooLarge:
    """What stores raise for an object that is not read."""
    return ObjectTooLarge(f"{where}: {key} is larger than {MAX_OBJECT_BYTES} bytes, and is not read")


def too_many(where: str, prefix: str) -> StorageError:
    """What stores raise for a folder that is not listed."""
    return StorageError(f"{where}: more than {MAX_LISTED} objects are in {prefix!r}")


def open_objects(url: str) -> ObjectStore:
    """The store at `url`: `file:///PATH`, `s3://BUCKET[/PREFIX]`, `memory://`, or to read only `http(s)://HOST[/PATH]`.

    S3 takes its credentials, region and endpoint from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_REGION, AWS_ENDPOINT_URL, or AWS_SKIP_SIGNATURE=true for a public bucket. Raises InputError for a URL that is
    none of these, and MissingExtra.
    """
    parts = _split(url)
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        from chimera.storage.objects_local import LocalObjects  # which imports this module

        return LocalObjects(path=Path(unquote(parts.path)))
    try:
        from chimera.storage import objects_obstore as adapters  # which does too, and obstore
    except ImportError as error:
        if error.name != "obstore":
            raise
        raise MissingExtra("obstore", "arena") from error
    if url == "memory://":
        return adapters.memory_objects()
    if parts.scheme == "s3" and parts.netloc:
        prefix = parts.path.strip("/")
        if prefix:
            check_key(prefix)
        return adapters.s3_objects(bucket=parts.netloc, prefix=prefix, endpoint=os.environ.get("AWS_ENDPOINT_URL", ""))
    if parts.scheme in ("http", "https") and parts.hostname:
        return adapters.HttpObjects(url=url)
    raise _unknown(url)


def _split(url: str) -> SplitResult:
    """The parts of `url`. One with a password, a query or a fragment is refused: no store has a use for it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _unknown(url) from None
    if ("@" in url and parts.scheme != "file") or parts.query or parts.fragment:
        raise _unknown(url)
    return parts


def _unknown(url: str) -> InputError:
    return InputError(
        f"{hide_password(url)} is not an object store: use file:///PATH, s3://BUCKET/PREFIX, memory://, or to read only"
        " http(s)://HOST/PATH, without user, password or query (S3 takes its credentials from AWS_ variables)"
    )
