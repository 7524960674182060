"""Tool hubs on a real Ray: servers over shards, a shard that is killed with -9, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from chimera.core.config import Settings
from chimera.core.errors import InputError, NotThere, Overloaded, SourceError
from chimera.mcp.config import parse_servers
from chimera.mcp.status import State
from chimera.system.tool_hubs import ToolHubs, shard_of
from tests.mcp_servers import entry
from tests.unit.mcp.hubs import alive

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAMES = ("a", "b", "c", "d", "e")


async def test_servers_are_shared_by_shards_and_survive_the_death_of_one(local_ray: Settings) -> None:
    document: dict[str, Any] = {name: entry() for name in NAMES} | {"unset": entry(env={"A": "${NOT_SET}"})}
    servers = parse_servers({"mcpServers": document}, environ={})
    assert {shard_of(name, 2) for name in NAMES} == {0, 1}
    async with ToolHubs(servers, settings=local_ray, shards=2) as hubs:
        assert hubs.names() == NAMES
        states = await hubs.connect_all(60)
        assert [states[name].state for name in NAMES] == [State.READY] * 5
        assert {tool.server for tool in await hubs.known()} == set(NAMES)
        pids = {name: int((await hubs.call(name, "echo", {}, timeout_s=10)).text) for name in NAMES}
        with pytest.raises(InputError, match="NOT_SET"):
            await hubs.tools("unset")
        with pytest.raises(NotThere):
            await hubs.tools("none")

        calls = {
            name: asyncio.create_task(hubs.call(name, "sleep", {"seconds": 2, "text": "slept"}, timeout_s=60))
            for name in NAMES
        }
        await asyncio.sleep(0.5)
        os.kill(_parent(pids["a"]), signal.SIGKILL)
        for name, call in calls.items():
            if shard_of(name, 2) == shard_of("a", 2):
                with pytest.raises(SourceError, match="may have worked"):
                    await call
            else:
                assert (await call).text == "slept"
        assert (await _back(hubs, "a")) != pids["a"]
        pids["a"] = await _back(hubs, "a")
        last = [int((await hubs.call(name, "echo", {}, timeout_s=30)).text) for name in NAMES]
    assert not any(alive(pid) for pid in last)


async def _back(hubs: ToolHubs, name: str) -> int:
    while True:
        try:
            return int((await hubs.call(name, "echo", {}, timeout_s=30)).text)
        except (SourceError, Overloaded):  # its process is being started again
            await asyncio.sleep(0.2)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])
