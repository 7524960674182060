"""The face that servers have in one process, which is the same as over a cluster."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError, NotThere, SourceError
from chimera.mcp.config import parse_servers
from chimera.mcp.status import State
from chimera.mcp.watchdog import Watchdog
from chimera.system.tool_hubs import ToolHubs, shard_of
from tests.mcp_servers import entry
from tests.unit.mcp.hubs import alive, hub, until_gone


async def test_servers_in_this_process_are_listed_called_and_ended() -> None:
    document: dict[str, Any] = {"a": entry(), "b": entry(), "off": entry(disabled=True)}
    async with ToolHubs(parse_servers({"mcpServers": document}, environ={})) as hubs:
        assert hubs.names() == ("a", "b")
        assert (await hubs.connect_all(10))["a"].state is State.READY
        assert {tool.server for tool in await hubs.known()} == {"a", "b"}
        assert (await hubs.tools("a"))[0].name == "echo"
        pid = int((await hubs.call("a", "echo", {}, timeout_s=10)).text)
        with pytest.raises(NotThere):
            hubs.config("none")
        with pytest.raises(NotThere, match="disabled"):
            await hubs.tools("off")
    assert not alive(pid)
    with pytest.raises(SourceError, match="closed"):
        await hubs.tools("a")


@given(st.text(min_size=1, max_size=64), st.integers(1, 64))
def test_a_server_has_one_shard_which_is_there(name: str, shards: int) -> None:
    assert 0 <= shard_of(name, shards) < shards
    assert shard_of(name, shards) == shard_of(name, shards)


def test_too_many_shards_are_refused() -> None:
    with pytest.raises(InputError, match="1 to 64"):
        ToolHubs({}, shards=65)


async def test_connections_closed_at_any_moment_come_to_an_end_and_can_be_used_again() -> None:
    """Whatever the connection does when it is closed, closing ends, and leaves it as good as new."""
    rng = random.Random(4)
    async with hub(
        {"a": entry(), "broken": entry("broken"), "hang": entry("hang", chimera={"connect_s": 0.2})}
    ) as hubs:
        for _ in range(12):
            waiting = [hubs._connections[name] for name in ("a", "broken", "hang")]
            tasks = [asyncio.create_task(connection.connect()) for connection in waiting]
            await asyncio.sleep(rng.choice([0.0, 0.001, 0.01, 0.03, 0.05, 0.1]))
            await asyncio.gather(*(connection.close() for connection in waiting))
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not any(connection.held for connection in waiting)
        assert (await hubs.call("a", "echo", {"text": "hi"}, timeout_s=10)).text == "hi"


def test_a_watchdog_that_was_killed_is_followed_by_one_that_knows_all() -> None:
    sleepers = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        for _ in range(2)
    ]
    watchdog = Watchdog()
    watchdog.watch(sleepers[0].pid)
    assert watchdog._process is not None
    os.kill(watchdog._process.pid, signal.SIGKILL)
    watchdog._process.wait()
    watchdog.watch(sleepers[1].pid)
    time.sleep(0.1)
    watchdog.close()
    until_gone(*(sleeper.pid for sleeper in sleepers))
    for sleeper in sleepers:
        sleeper.wait()
