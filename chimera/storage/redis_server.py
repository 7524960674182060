"""A connection to Redis that says whether the server keeps what it is given, and never shows a password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chimera.core.errors import MissingExtra, StorageError
from chimera.storage.server import Disconnected
from chimera.storage.url import check_server, hide_password, take_durable, unreadable

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import RedisError, ResponseError
    from redis.exceptions import TimeoutError as RedisTimeoutError
except ImportError:
    raise MissingExtra("redis", "redis") from None

ANSWER_S = 30.0
CONNECT_S = 5.0
DURABLE = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


class RedisServer:
    """The Redis at `url`: `redis://` or `rediss://` (TLS), then `[USER:PASSWORD@]HOST[:PORT][/DB]`.

    It must be set to keep what it has acknowledged, unless the URL ends in `?durable=no`: `appendonly yes`,
    `appendfsync always`, and no eviction. Raises InputError for a URL that cannot be read.
    """

    def __init__(self, url: str) -> None:
        check_server(url, "Redis")
        self.where = hide_password(url)
        url, self._durable = take_durable(url)
        try:
            # No retries in the driver: it would send a commit again without looking whether that was stored.
            self._client: Redis = Redis.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                socket_keepalive=True,
            )
        except (ValueError, TypeError):
            raise unreadable(url, "Redis") from None
        self._checked = False

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """The client, once the server is known to be durable. Raises StorageError and Disconnected."""
        try:
            if not self._checked:
                await self._check()
            yield self._client
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            self._checked = False  # another may answer next time, with other settings
            raise Disconnected(str(error)) from error
        except RedisError as error:
            raise StorageError(f"{self.where}: {error}") from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _check(self) -> None:
        if self._durable:
            try:
                found = await self._client.config_get("*append*")
                memory = await self._client.config_get("maxmemory*")
            except ResponseError as error:
                raise StorageError(
                    f"{self.where}: cannot ask whether it is durable ({error}): allow CONFIG GET,"
                    " or say ?durable=no at the end of the URL and see to it yourself"
                ) from None
            wrong = [f"{name} {value}" for name, value in DURABLE.items() if found.get(name) != value]
            if memory.get("maxmemory") != "0" and memory.get("maxmemory-policy") != "noeviction":
                wrong.append("maxmemory-policy noeviction")
            if wrong:
                raise StorageError(
                    f"{self.where}: a crash would lose what it has acknowledged: set {', '.join(wrong)}"
                    " (redis.conf, or CONFIG SET and CONFIG REWRITE), or say ?durable=no at the end of the URL"
                )
        self._checked = True
