"""Hubs over the servers of `tests/mcp_servers.py`, and what a process holds."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from pathlib import Path
from typing import Any

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import Overloaded, SourceError
from chimera.mcp.caps import Caps
from chimera.mcp.config import parse_servers
from chimera.mcp.hub import Hub


def hub(entries: dict[str, Any], *, clock: Clock | None = None, **caps: Any) -> Hub:
    servers = parse_servers({"mcpServers": entries}, environ={})
    return Hub(servers, clock=clock or SystemClock(), rng=random.Random(1), caps=Caps(**caps))


async def answered(servers: Hub, name: str) -> str:
    """What a server that comes back says, as soon as it does; the test's own time limit ends it."""
    while True:
        try:
            return (await servers.call(name, "echo", {"text": "back"}, timeout_s=10)).text
        except (Overloaded, SourceError):
            await asyncio.sleep(0.05)


def holdings() -> tuple[int, list[str], str]:
    """Tasks, open files, and children of this process."""
    gc.collect()
    fds = []
    for name in os.listdir("/proc/self/fd"):
        try:
            fds.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        except OSError:  # the folder's own, closed again
            continue
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return len(asyncio.all_tasks()), sorted(fds), children


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be heard of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until_gone(*pids: int) -> None:
    while any(alive(pid) for pid in pids):  # the test's own time limit ends it
        time.sleep(0.02)
