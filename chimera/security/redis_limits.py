"""Buckets that the processes of several machines share, in Redis, by one script that is run whole.

Time is Redis's own (TIME), so that nodes need not agree on it. A key expires when its bucket would be full and its
leases over, and is then as good as a new one. A bucket whose writes are lost (a fail-over, a restart without an
append-only file) begins full.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast
from urllib.parse import urlsplit

from chimera.core.clock import Clock
from chimera.core.errors import InputError, MissingExtra, StorageUnavailable
from chimera.security.buckets import EPOCH_S, LEASE_S, NO_LEASE, SHARERS, SLACK, Lease, Limit

PREFIX = "chimera:limit:"
ANSWER_S = 0.25
"""What a check may wait for Redis, before it goes on without."""

AGAIN_S = 1.0
"""How long Redis is left alone when it did not answer."""

EXCHANGE = f"""
local key, capacity, per_s, amount = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local old_size, old_left, old_epoch = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local epoch_s, lease_s, sharers, slack = {EPOCH_S}, {LEASE_S}, {SHARERS}, {SLACK}

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local level, leased, before, epoch, at = capacity, 0, 0, math.floor(now / epoch_s), now
local found = redis.call('HMGET', key, 'level', 'leased', 'before', 'epoch', 'at')
if found[1] then
  level, leased, before, epoch, at = unpack(found)
  level, leased, before, epoch, at = tonumber(level), tonumber(leased), tonumber(before), tonumber(epoch), tonumber(at)
end
if now < at - 2 * epoch_s then
  at, leased, before, epoch = now, leased + before, 0, math.floor(now / epoch_s) + 1
end
if now < at then now = at end

local function fill(till)
  level = math.min(capacity - leased - before, level + math.max(0, till - at) * per_s)
  at = math.max(till, at)
end
local current = math.floor(now / epoch_s)
while epoch < current and (leased > 0 or before > 0) do
  fill((epoch + 1) * epoch_s)
  leased, before, epoch = 0, leased, epoch + 1
end
epoch = math.max(epoch, current)
fill(now)

local size = 0
if old_epoch == epoch then
  size = math.min(old_size, leased)
  leased = leased - size
elseif old_epoch == epoch - 1 then
  size = math.min(old_size, before)
  before = before - size
end
level = level + math.min(old_left, size)

size = 0
if amount > 0 and amount - level <= slack * capacity then
  size = math.max(amount, math.floor(math.min(level, math.max(level / sharers, per_s * lease_s))))
  level, leased = level - size, leased + size
end

local function exact(number) return string.format('%.17g', number) end
redis.call('HSET', key, 'level', exact(level), 'leased', exact(leased), 'before', exact(before),
  'epoch', exact(epoch), 'at', exact(at))
redis.call('PEXPIRE', key, math.ceil((2 * epoch_s + (capacity - level) / per_s) * 1000) + 1)
local wait_s = 0
if size == 0 then wait_s = math.max(0, amount - level) / per_s end
return {{exact(size), exact(epoch), exact((epoch + 2) * epoch_s - now), exact(wait_s)}}
"""
"""The same as `Account` in `buckets.py`: advance, settle, lease. But the server's clock may be put back: then the
bucket goes on from what it holds, and what is leased stays so for the two seconds of its life.
"""


class RedisTokens:
    """The buckets in the Redis at `url` (`redis://`, `rediss://` or `unix://`). Threads and processes may share it.

    When it does not answer within 0.25 s it is left alone for a second, and StorageUnavailable is raised. Raises
    InputError for a URL that cannot be read, MissingExtra without the redis package.
    """

    def __init__(self, url: str, *, clock: Clock) -> None:
        try:
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingExtra("redis", "redis") from None
        try:
            parts = urlsplit(url)
            self.where = f"{parts.scheme}://{parts.hostname or ''}:{parts.port or ''}{parts.path}"  # and no password
            client = Redis.from_url(
                url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
            )
        except (ValueError, TypeError):
            raise InputError(
                "this is not the URL of a Redis: use redis://[USER:PASSWORD@]HOST[:PORT][/DB], with %-escapes for odd"
                " characters in the password"
            ) from None
        self._client: Any = client
        self._script: Any = client.register_script(EXCHANGE)
        self._clock = clock
        self._down_until = float("-inf")

    def exchange(self, key: str, limit: Limit, amount: float, old: Lease) -> tuple[Lease, float]:
        """See `TokenStore`. What Redis refuses (no memory, read-only) is an outage too."""
        from redis.exceptions import RedisError

        sent_at = self._clock.monotonic()
        if sent_at < self._down_until:
            raise StorageUnavailable(f"{self.where} did not answer a moment ago")
        name = PREFIX + hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        numbers = (limit.capacity, limit.per_s, amount, old.size, old.left, old.epoch)
        try:
            found = cast(list[bytes], self._script(keys=[name], args=[repr(number) for number in numbers]))
        except (RedisError, OSError) as error:
            self._down_until = self._clock.monotonic() + AGAIN_S
            raise StorageUnavailable(f"{self.where}: {type(error).__name__}") from None
        size, epoch, good_s, wait_s = map(float, found)
        # Redis looked at its clock after `sent_at`, so that a lease ends here no later than there.
        return (Lease(size, size, int(epoch), sent_at + good_s), 0.0) if size else (NO_LEASE, wait_s)

    def close(self) -> None:
        self._client.close()
