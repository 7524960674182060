"""The state port: what agents remember between tasks, a JSON value under each key, changed by compare-and-set.

Versions come from one count for the whole store, so that a key which was deleted and made anew never has an old one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from chimera.core.errors import InputError, StateConflict, StorageError
from chimera.storage import strict_json
from chimera.storage.url import hide_password

MAX_KEY_CHARACTERS = 512

MAX_VALUE_BYTES = 1_000_000
"""JSON bytes in one value."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value, and the version to expect when changing it."""

    value: JsonValue
    version: int


class StateStore(ABC):
    """A key-value store. One suite of tests, `tests/contract/test_state.py`, holds for every adapter.

    A key has 1..512 characters. Every method raises StorageError (a key or value that cannot be stored, a closed store,
    a disk that failed, a server out of reach) and Overloaded (too much waits already).
    """

    @abstractmethod
    async def get(self, key: str) -> Versioned | None:
        """What is stored under `key`."""

    @abstractmethod
    async def put(self, key: str, value: JsonValue, *, expected: int | None = None) -> int:
        """Store `value`, at most 1 MB of JSON, durably; returns its version, greater than every one before it.

        With `expected`, only if that is the key's version now; 0 means that the key must not be there. Raises
        StateConflict otherwise.
        """

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way, and let go of the file or server. Twice is fine; using it after is not."""


def check_key(key: str) -> None:
    """Raises StorageError for a key that no store takes."""
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise StorageError(f"a key has 1..{MAX_KEY_CHARACTERS} characters, not {len(key)}")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"{key!r} cannot be a key: {error}") from error


def encode_value(key: str, value: JsonValue) -> bytes:
    """`value` as UTF-8 JSON. Raises StorageError for what is too large or has no JSON form."""
    try:
        encoded = strict_json.dumps(value)
    except ValueError as error:
        raise StorageError(f"the value of {key!r} cannot be stored as JSON: {error}") from error
    if len(encoded) > MAX_VALUE_BYTES:
        raise StorageError(f"the value of {key!r} is {len(encoded)} bytes of JSON; the limit is {MAX_VALUE_BYTES}")
    return encoded


def check_version(key: str, version: int, expected: int | None) -> None:
    """Raises StateConflict unless `expected` is the key's version now."""
    if expected is not None and version != expected:
        now = f"is at version {version}" if version else "is not there"
        raise StateConflict(f"{key!r} {now}, not at {expected}: read it again", version)


def open_state(url: str) -> StateStore:
    """The store at `url`: `sqlite:///PATH`, `redis://` or `rediss://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `memory://`.

    Raises what `open_journal` does, for the same reasons.
    """
    scheme, mark, rest = url.partition("://")
    if scheme == "memory" and mark and not rest:
        from chimera.storage.memory_state import MemoryState  # adapters import this module

        return MemoryState()
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from chimera.storage.sqlite_state import SqliteState

        return SqliteState(path=Path(rest[1:]))
    if scheme in ("redis", "rediss") and rest:
        from chimera.storage.redis_state import RedisState

        return RedisState(url=url)
    raise InputError(f"{hide_password(url)} is not a state store: use sqlite:///PATH, memory:// or redis:// and a host")
