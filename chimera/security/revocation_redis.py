"""Revocations in Redis, for a cluster: a sorted set by end, and a channel on which each is told at once.

Pub/sub forgets whoever is not there, so the set is read whole at each connection, after the channel is listened to. One
thread listens; a ping twice a second shows that the connection is alive, as one that is dead in silence would look like
no news. What a Redis lost in a crash is given back by those who know it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from chimera.core.clock import Clock
from chimera.core.errors import InputError, MissingExtra, SecurityError, StorageUnavailable
from chimera.security.revocation import LEEWAY_S, MAX_REVOKED, STALE_AFTER_S, Revocations, Stale, full

try:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry
except ImportError:
    raise MissingExtra("redis", "redis") from None

KEY = "chimera:revoked"
PING_S = 0.5
WAIT_S = 0.25
ANSWER_S = 2.0

# KEYS: the set, the channel. ARGV: id, until, forget before, room. All or nothing, and told only when it is kept.
REVOKE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('PUBLISH', KEYS[2], ARGV[2] .. ' ' .. ARGV[1])
return 1
"""


class RedisRevocations(Revocations):
    """Those in the Redis (6.2 or later) at `url`. Until it was reached first, all counts as revoked: see `ready`."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        max_revoked: int = MAX_REVOKED,
        stale_after_s: float = STALE_AFTER_S,
        stale: Stale = "revoked",
    ) -> None:
        super().__init__(clock=clock, max_revoked=max_revoked, stale_after_s=stale_after_s, stale=stale)
        try:
            self._redis: Any = Redis.from_url(
                url, retry=Retry(NoBackoff(), 0), socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S
            )
        except (ValueError, TypeError):
            raise InputError(
                "the URL of the Redis of revocations cannot be read: redis://:PASSWORD@HOST:PORT/DB"
            ) from None
        database = self._redis.connection_pool.connection_kwargs.get("db") or 0
        self._channel = f"{KEY}:told:{database}"  # channels are of the whole server
        self._ended = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="revocations", daemon=True)
        self._listener.start()

    def _look(self) -> None: ...

    def _store(self, revoked_id: str, until: float) -> None:
        before = self._clock.now() - LEEWAY_S
        try:
            kept = self._redis.eval(REVOKE, 2, KEY, self._channel, revoked_id, repr(until), repr(before), self._max)
        except (RedisError, OSError) as error:
            raise StorageUnavailable(f"a revocation could not be stored ({type(error).__name__}): ask again") from None
        if not kept:
            raise full(self._max)

    def _end(self) -> None:
        self._ended.set()
        self._listener.join(2 * ANSWER_S + WAIT_S)
        self._redis.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(RedisError, OSError, ValueError, SecurityError), self._redis.pubsub() as channel:
                channel.subscribe(self._channel)
                asked_at_s = self._clock.monotonic()
                self._read_whole()
                self._fresh_at_s = asked_at_s
                self._follow(channel)
            self._ended.wait(WAIT_S)

    def _read_whole(self) -> None:
        """Know all that the set has; give it what it has lost."""
        wall_s = self._clock.now() - LEEWAY_S
        rows = self._redis.zrangebyscore(KEY, wall_s, "+inf", start=0, num=self._max + 1, withscores=True)
        kept = {revoked_id.decode(): until for revoked_id, until in rows}
        for revoked_id, until in kept.items():
            self._known.add(revoked_id, until)
        for revoked_id, until in self._known.items():
            if until > max(wall_s, kept.get(revoked_id, 0.0)):
                self._store(revoked_id, until)

    def _follow(self, channel: Any) -> None:
        """Take what is told, as long as the connection lives."""
        pinged_at_s: float | None = None
        last_s = self._clock.monotonic()
        while not self._ended.is_set():
            now_s = self._clock.monotonic()
            if pinged_at_s is None and now_s - last_s >= PING_S:
                pinged_at_s = last_s = now_s
                channel.ping()
            if pinged_at_s is not None and now_s - pinged_at_s > ANSWER_S:
                return
            message = channel.get_message(timeout=WAIT_S)
            if message is None:
                continue
            if message["type"] == "pong" and pinged_at_s is not None:
                self._fresh_at_s, pinged_at_s = pinged_at_s, None
                self._known.sweep_at_times()
            elif message["type"] == "message":
                until, _, revoked_id = message["data"].decode().partition(" ")
                self._known.add(revoked_id, float(until))
