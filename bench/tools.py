"""What a hub of MCP servers takes: time to connect, memory, what it adds to a call, what a death does, what it leaves.

    python -m bench.tools [--servers 220] [--processes 4] [--stdio 10] [--calls 500] [--json]

`healthy` are so many servers of the official SDK over streamable HTTP, all connected and their tools listed at once;
`kb_each` is what the hub's process grows by, a server. `mixed` are as many with some over stdio, 10 % of them dead and
5 % hanging, every other one of those over stdio: the time until all that are well are ready. `call` compares calls
through the hub with calls of the SDK's own client to the same server, taken in turns, in ms. `death` ends one server in
the middle of a call while calls to 50 others are in progress: how many of those were harmed, and when it is back.
`left` is what there is more of after the hubs are closed than before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any

import mcp
from pydantic import JsonValue

from chimera.core.clock import SystemClock
from chimera.core.errors import ChimeraError
from chimera.mcp.caps import Caps
from chimera.mcp.config import ServerConfig, parse_servers
from chimera.mcp.hub import Hub
from tests.conftest import free_port
from tests.mcp_servers import HttpServers, entry

DEAD, HANGING = 0.10, 0.05
READY_S = 60.0
BACK_S = 30.0
OTHERS = 50
SLOW_S = 1.0

Entries = dict[str, JsonValue]


def hub(entries: Entries) -> Hub:
    servers: Mapping[str, ServerConfig] = parse_servers({"mcpServers": entries}, environ={})
    return Hub(servers, clock=SystemClock(), rng=random.Random(1), caps=Caps(max_processes=200))


def healthy_entries(hosts: list[HttpServers], servers: int) -> Entries:
    return {f"http-{n:03}": hosts[n % len(hosts)].entry(n // len(hosts)) for n in range(servers)}


def mixed_entries(hosts: list[HttpServers], servers: int, stdio: int) -> tuple[Entries, list[str]]:
    """Entries in a random order, and the names of those that are well."""
    dead, hanging = round(DEAD * servers), round(HANGING * servers)
    kinds = ["dead"] * dead + ["hanging"] * hanging + ["stdio"] * stdio
    kinds += ["http"] * (servers - len(kinds))
    random.Random(7).shuffle(kinds)
    numbers, hung = count(), count()
    made: Entries = {}
    for number, kind in enumerate(kinds):
        match kind:
            case "dead":
                made[f"{number:03}-dead"] = {"url": f"http://127.0.0.1:{free_port()}/mcp"}
            case "hanging":
                silent = hosts[number % len(hosts)].hanging()
                made[f"{number:03}-hanging"] = entry("hang") if next(hung) % 2 else silent
            case "stdio":
                made[f"{number:03}-stdio"] = entry()
            case _:
                at = next(numbers)
                made[f"{number:03}-http"] = hosts[at % len(hosts)].entry(at // len(hosts))
    return made, [name for name in made if name.endswith(("stdio", "http"))]


def resident_kb() -> float:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def holdings() -> dict[str, int]:
    """Tasks, file descriptors and children of this process."""
    gc.collect()
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        children = len(file.read().split())
    return {"tasks": len(asyncio.all_tasks()), "fds": len(os.listdir("/proc/self/fd")), "children": children}


async def seconds_until_ready(servers: Hub, wanted: list[str]) -> float:
    """Until every one of them is ready; raises if that does not come about."""
    began = time.perf_counter()
    connecting = asyncio.create_task(servers.connect_all(READY_S))
    while True:
        states = servers.status()
        if all(states[name].state == "ready" for name in wanted):
            break
        if connecting.done():
            missing = {name: states[name].error for name in wanted if states[name].state != "ready"}
            raise SystemExit(f"not ready: {missing}")
        await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    connecting.cancel()
    await asyncio.wait([connecting])
    return took


async def healthy(hosts: list[HttpServers], servers: int) -> dict[str, float]:
    entries = healthy_entries(hosts, servers)
    async with hub(dict(list(entries.items())[:1])) as first:  # what is loaded once is not theirs
        await first.connect_all(READY_S)
    before = resident_kb()
    async with hub(entries) as all_of_them:
        took = await seconds_until_ready(all_of_them, list(entries))
        each = (resident_kb() - before) / servers
        return {"servers": servers, "ready_s": took, "kb_each": each}


async def mixed(hosts: list[HttpServers], servers: int, stdio: int) -> dict[str, float]:
    entries, well = mixed_entries(hosts, servers, stdio)
    async with hub(entries) as some:
        took = await seconds_until_ready(some, well)
        return {"servers": servers, "well": len(well), "ready_s": took}


async def call_ms(host: HttpServers, calls: int) -> dict[str, float]:
    direct_ms: list[float] = []
    hub_ms: list[float] = []
    async with hub({"it": host.entry()}) as one, mcp.Client(host.entry()["url"], mode="legacy") as client:
        for number in range(calls + 20):
            began = time.perf_counter()
            await client.call_tool("echo", {"text": str(number)})
            between = time.perf_counter()
            await one.call("it", "echo", {"text": str(number)}, timeout_s=10)
            if number >= 20:
                direct_ms.append((between - began) * 1e3)
                hub_ms.append((time.perf_counter() - between) * 1e3)
    found = {"direct_p50": at(direct_ms, 0.5), "hub_p50": at(hub_ms, 0.5)}
    found |= {"direct_p95": at(direct_ms, 0.95), "hub_p95": at(hub_ms, 0.95)}
    return found | {"overhead_p95": found["hub_p95"] - found["direct_p95"]}


def at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def death(hosts: list[HttpServers]) -> dict[str, float]:
    entries = healthy_entries(hosts, OTHERS) | {"victim": entry()}
    async with hub(entries) as all_of_them:
        await all_of_them.connect_all(READY_S)
        others = [
            asyncio.create_task(all_of_them.call(name, "sleep", {"seconds": SLOW_S}, timeout_s=30))
            for name in entries
            if name != "victim"
        ]
        await asyncio.sleep(SLOW_S / 4)
        began = time.perf_counter()
        try:
            await all_of_them.call("victim", "die", {}, timeout_s=30)
        except ChimeraError:
            told_s = time.perf_counter() - began
        while time.perf_counter() - began < BACK_S:
            try:
                await all_of_them.call("victim", "echo", {"text": "back"}, timeout_s=5)
                break
            except ChimeraError:
                await asyncio.sleep(0.05)
        back_s = time.perf_counter() - began
        harmed = sum(
            isinstance(found, BaseException) for found in await asyncio.gather(*others, return_exceptions=True)
        )
        return {"others": len(others), "harmed": harmed, "told_s": told_s, "back_s": back_s}


async def measure(hosts: list[HttpServers], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    async with hub({"it": hosts[0].entry(), "process": entry()}) as first:
        await first.connect_all(READY_S)
    before = holdings()
    found = {
        "healthy": await healthy(hosts, options.servers),
        "mixed": await mixed(hosts, options.servers, options.stdio),
        "call": await call_ms(hosts[0], options.calls),
        "death": await death(hosts),
    }
    await asyncio.sleep(0.1)
    after = holdings()
    return {**found, "left": {kind: after[kind] - before[kind] for kind in after}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=220)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--stdio", type=int, default=10)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as ends:
        hosts = [HttpServers(free_port(), -(-options.servers // options.processes)) for _ in range(options.processes)]
        for host in hosts:
            ends.callback(host.kill)
            host.start()
        found: dict[str, Any] = asyncio.run(measure(hosts, options))
    if options.json:
        print(json.dumps(found))
        return
    for part, figures in found.items():
        print(f"{part:8} " + "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
