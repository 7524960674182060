"""A Redis whose clock is put back: its buckets fill on, and give no more than they should."""

from __future__ import annotations

import math

from chimera.core.clock import SystemClock
from chimera.security.buckets import NO_LEASE, Limit
from chimera.security.redis_limits import PREFIX, RedisTokens
from tests.servers import RedisServer


def test_a_bucket_fills_on_when_the_servers_clock_was_put_back() -> None:
    server = RedisServer("--appendonly", "no")
    server.start()
    try:
        tokens, limit = RedisTokens(server.url(), clock=SystemClock()), Limit(4.0, 0.001)
        lease, _ = tokens.exchange("a", limit, 4.0, NO_LEASE)
        assert lease.size == 4.0
        client = tokens._client
        (name,) = client.keys(PREFIX + "*")
        seconds = int(client.time()[0])
        # As an hour ago, by a clock that was an hour ahead, would have left it: all but one was given back and spent.
        client.hset(name, mapping={"at": seconds + 3_600, "epoch": seconds + 3_600, "level": 1, "leased": 3})
        wait_s = tokens.exchange("a", limit, 2.0, NO_LEASE)[1]
        assert wait_s > 0.0, "it does not begin full"
        held = {key.decode(): float(value) for key, value in client.hgetall(name).items()}
        assert held["at"] < seconds + 60.0, "it stands still for no hour"
        assert held["level"] + held["leased"] + held["before"] <= limit.capacity + 1e-9
        assert held["leased"] == 3.0 and held["epoch"] >= math.floor(held["at"]) + 1
        assert tokens.exchange("a", limit, 1.0, NO_LEASE)[0].size == 1.0
        tokens.close()
    finally:
        server.stop()
