"""Agents' state that lives as long as its process: for throwaway swarms and tests."""

from __future__ import annotations

from pydantic import JsonValue

from chimera.core.errors import StorageError
from chimera.storage import strict_json
from chimera.storage.state import StateStore, Versioned, check_key, check_version, encode_value


class MemoryState(StateStore):
    """Keeps values as the bytes that a disk would hold, so that it refuses and returns what the other adapters do."""

    def __init__(self, *, max_bytes: int = 1_000_000_000) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._stored: dict[str, tuple[bytes, int]] = {}
        self._version = 0
        self._closed = False

    async def get(self, key: str) -> Versioned | None:
        self._check(key)
        stored = self._stored.get(key)
        return None if stored is None else Versioned(strict_json.loads(stored[0]), stored[1])

    async def put(self, key: str, value: JsonValue, *, expected: int | None = None) -> int:
        self._check(key)
        encoded = encode_value(key, value)
        old, version = self._stored.get(key, (b"", 0))
        check_version(key, version, expected)
        size = self._bytes + len(encoded) - len(old)
        if size > self._max_bytes:
            raise StorageError(f"the state in memory is full ({self._max_bytes} bytes): use sqlite:///PATH")
        self._bytes = size
        self._version += 1
        self._stored[key] = (encoded, self._version)
        return self._version

    async def delete(self, key: str) -> None:
        self._check(key)
        old, _ = self._stored.pop(key, (b"", 0))
        self._bytes -= len(old)

    async def close(self) -> None:
        self._closed = True

    def _check(self, key: str) -> None:
        if self._closed:
            raise StorageError("memory://: the state store is closed")
        check_key(key)
