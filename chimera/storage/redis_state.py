"""Agents' state in Redis: a hash for each key, `chimera:state:value:KEY`, with `value` and `version`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import JsonValue

from chimera.core.errors import Overloaded, StorageError
from chimera.storage import strict_json
from chimera.storage.redis_server import RedisServer
from chimera.storage.server import Persistence
from chimera.storage.state import StateStore, Versioned, check_key, check_version, encode_value

PREFIX = "chimera:state:"
MAX_WAITING = 10_000
MAX_CONNECTIONS = 8
RETRY_AFTER_S = 0.1

# Returns the version, and whether the value was stored. `again`: an earlier try may have stored it already.
PUT = """
local value, expected, again = ARGV[1], ARGV[2], ARGV[3] == '1'
local old = redis.call('HMGET', KEYS[1], 'value', 'version')
local version = old[2] or '0'
if expected ~= '' and expected ~= version then
  return {version, (again and old[1] == value) and 1 or 0}
end
version = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], 'value', value, 'version', version)
return {tostring(version), 1}
"""

T = TypeVar("T")


class RedisState(StateStore):
    """The store in the Redis at `url`. See `RedisServer` for what the URL may say."""

    def __init__(self, *, url: str) -> None:
        self._server = RedisServer(url)
        self._persistence = Persistence(self._server.where)
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._waiting = 0
        self._closed = False

    async def get(self, key: str) -> Versioned | None:
        check_key(key)

        async def query(_: bool) -> Versioned | None:
            async with self._server.client() as client:
                value, version = await client.hmget(_name(key), ["value", "version"])
            return None if value is None or version is None else Versioned(strict_json.loads(value), int(version))

        return await self._ask(query)

    async def put(self, key: str, value: JsonValue, *, expected: int | None = None) -> int:
        check_key(key)
        encoded = encode_value(key, value)

        async def store(again: bool) -> tuple[int, bool]:
            arguments: list[str | bytes | int] = [encoded, "" if expected is None else expected, int(again)]
            async with self._server.client() as client:
                answer = await client.register_script(PUT)(keys=[_name(key), f"{PREFIX}version"], args=arguments)
            return int(answer[0]), bool(answer[1])

        version, stored = await self._ask(store)
        if not stored:
            check_version(key, version, expected)
        return version

    async def delete(self, key: str) -> None:
        check_key(key)

        async def remove(_: bool) -> None:
            async with self._server.client() as client:
                await client.delete(_name(key))

        await self._ask(remove)

    async def close(self) -> None:
        self._closed = True
        for _ in range(MAX_CONNECTIONS):
            await self._places.acquire()
        await self._server.close()
        for _ in range(MAX_CONNECTIONS):
            self._places.release()

    async def _ask(self, attempt: Callable[[bool], Awaitable[T]]) -> T:
        if self._closed:
            raise StorageError(f"{self._server.where}: the state store is closed")
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} calls already wait for {self._server.where}", RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with self._places:
                return await self._persistence.ask(attempt)
        finally:
            self._waiting -= 1


def _name(key: str) -> str:
    return f"{PREFIX}value:{key}"
