"""A journal in Redis 7: a stream per mission, in which `seq-0` is the entry's id.

A commit is one script, which Redis runs and writes to its append-only file as a whole or not at all.

    chimera:journal:events:MISSION        stream of events, field `line`
    chimera:journal:mission:MISSION       hash: n, swarm, first_at_s, last_at_s, last_kind, last_seq
    chimera:journal:missions[:SWARM]      sorted sets of missions by n, the order in which they began
    chimera:journal:running[:SWARM]       those of them that have not ended
    chimera:journal:ended                 sorted set of the others, by when they ended
    chimera:journal:n                     the last n
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chimera.core.events import EventKind
from chimera.storage.group_commit import DEFAULT_LIMITS, Growth, Limits
from chimera.storage.journal import MissionSummary
from chimera.storage.redis_server import RedisServer
from chimera.storage.server import ServerJournal

PREFIX = "chimera:journal:"
FIELDS = ("swarm", "first_at_s", "last_at_s", "last_kind", "last_seq")

WRITE = """
local prefix = KEYS[1]

local at = 1
while at <= #ARGV do
  local last = redis.call('HGET', prefix .. 'mission:' .. ARGV[at], 'last_seq') or '0'
  if last ~= ARGV[at + 1] then return 0 end
  at = at + 7 + tonumber(ARGV[at + 2])
end

at = 1
while at <= #ARGV do
  local id, after, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local first_at_s, last_at_s, kind, swarm = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local mission, events = prefix .. 'mission:' .. id, prefix .. 'events:' .. id
  local listed, ended = string.sub(id, 1, 6) ~= 'swarm-', kind == 'mission_ended'
  local n, old_swarm, old_kind
  if after == 0 then
    n = redis.call('INCR', prefix .. 'n')
    redis.call('HSET', mission, 'n', n, 'first_at_s', first_at_s)
    if listed then redis.call('ZADD', prefix .. 'missions', n, id) end
  else
    local old = redis.call('HMGET', mission, 'n', 'swarm', 'last_kind')
    n, old_swarm, old_kind = old[1], old[2], old[3]
  end
  redis.call('HSET', mission, 'swarm', swarm, 'last_at_s', last_at_s, 'last_kind', kind, 'last_seq', after + count)
  local was_ended = old_kind == 'mission_ended'
  if listed and (swarm ~= old_swarm or ended ~= was_ended or ended) then
    if old_swarm then
      redis.call('ZREM', prefix .. 'missions:' .. old_swarm, id)
      redis.call('ZREM', prefix .. 'running:' .. old_swarm, id)
    end
    redis.call('ZADD', prefix .. 'missions:' .. swarm, n, id)
    if ended then
      redis.call('ZREM', prefix .. 'running', id)
      redis.call('ZADD', prefix .. 'ended', last_at_s, id)
    else
      redis.call('ZREM', prefix .. 'ended', id)
      redis.call('ZADD', prefix .. 'running', n, id)
      redis.call('ZADD', prefix .. 'running:' .. swarm, n, id)
    end
  end
  for i = 1, count do
    redis.call('XADD', events, string.format('%.0f-0', after + i), 'line', ARGV[at + 6 + i])
  end
  at = at + 7 + count
end
return 1
"""

DELETE = """
local prefix = KEYS[1]
local ids = redis.call('ZRANGEBYSCORE', prefix .. 'ended', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local swarm = redis.call('HGET', prefix .. 'mission:' .. id, 'swarm')
  redis.call('ZREM', prefix .. 'missions', id)
  redis.call('ZREM', prefix .. 'missions:' .. swarm, id)
  redis.call('ZREM', prefix .. 'ended', id)
  redis.call('UNLINK', prefix .. 'mission:' .. id, prefix .. 'events:' .. id)
end
return #ids
"""


class RedisJournal(ServerJournal):
    """A journal in the Redis at `url`. Several processes may write it. See `RedisServer` for what the URL may say."""

    def __init__(self, *, url: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self._server = RedisServer(url)
        super().__init__(where=self._server.where, limits=limits)

    async def _write(self, growths: Sequence[Growth]) -> bool:
        arguments: list[str | bytes | int] = []
        for growth in growths:
            first, last = growth.first, growth.last
            arguments += [growth.mission_id, growth.after, len(growth.lines)]
            arguments += [repr(first.at_s), repr(last.at_s), str(last.kind), last.swarm, *growth.lines]
        async with self._server.client() as client:
            return bool(await client.register_script(WRITE)(keys=[PREFIX], args=arguments))

    async def _last_seqs(self, missions: Iterable[str]) -> dict[str, int]:
        names = list(missions)
        async with self._server.client() as client, client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hget(f"{PREFIX}mission:{name}", "last_seq")
            found = await pipeline.execute()
        return {name: int(seq) for name, seq in zip(names, found, strict=True) if seq is not None}

    async def _lines(self, mission_id: str, after: int, limit: int) -> list[bytes]:
        async with self._server.client() as client:
            entries: Any = await client.xrange(f"{PREFIX}events:{mission_id}", min=f"{after + 1}-0", count=limit)
        return [fields[b"line"] for _, fields in entries]

    async def _list(self, limit: int, swarm: str | None, running: bool) -> list[MissionSummary]:
        key = PREFIX + ("running" if running else "missions") + ("" if swarm is None else f":{swarm}")
        async with self._server.client() as client, client.pipeline(transaction=False) as pipeline:
            found: Any = await client.zrevrange(key, 0, limit - 1)
            names = [name.decode() for name in found]
            for name in names:
                pipeline.hmget(f"{PREFIX}mission:{name}", FIELDS)
            rows = await pipeline.execute()
        return [_summary(name, row) for name, row in zip(names, rows, strict=True) if None not in row]

    async def _delete(self, ended_before_s: float, limit: int) -> int:
        async with self._server.client() as client:
            return int(await client.register_script(DELETE)(keys=[PREFIX], args=[repr(ended_before_s), limit]))

    async def _disconnect(self) -> None:
        await self._server.close()


def _summary(name: str, row: Sequence[bytes]) -> MissionSummary:
    swarm, first_at_s, last_at_s, last_kind, last_seq = (value.decode() for value in row)
    return MissionSummary(
        mission_id=name,
        swarm=swarm,
        first_at_s=float(first_at_s),
        last_at_s=float(last_at_s),
        last_kind=EventKind(last_kind),
        events=int(last_seq),
    )
