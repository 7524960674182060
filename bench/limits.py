"""What a rate limit costs, and how exact it is when many processes share it.

    python -m bench.limits [--seconds 5] [--processes 16] [--rate 1000] [--checks 200000] [--json]

`check` is one check of a limit by itself, in microseconds: of one process, of a shared file and of Redis, each with
tokens enough that it is leases that answer, as they do under load; the two last include the exchanges that fall among
the checks. `shared` is so many processes on one key for so long: what they were admitted, by capacity + rate x t, which
must be at most 1 and, for 60 seconds, at least 0.98. Redis is a server of this benchmark's own; without one there are
no figures of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from chimera.core.clock import SystemClock
from chimera.core.errors import StorageUnavailable
from chimera.security.buckets import NO_LEASE, Limit
from chimera.security.limits import RateLimiter, TokenStore
from chimera.security.redis_limits import RedisTokens
from chimera.security.shared_limits import SharedTokens

CAPACITY = 1_000
START_S = 20.0


@contextmanager
def redis(folder: Path) -> Iterator[str | None]:
    """The socket's URL of a Redis; None where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    path = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(StorageUnavailable):
                RedisTokens(f"unix://{path}", clock=SystemClock()).exchange("ready?", Limit(1, 1), 0, NO_LEASE)
                break
            time.sleep(0.05)
        yield f"unix://{path}"
    finally:
        server.terminate()
        server.wait()


def opened(kind: str, where: str) -> TokenStore | None:
    if kind == "alone":
        return None
    clock = SystemClock()
    return RedisTokens(where, clock=clock) if kind == "redis" else SharedTokens(Path(where), clock=clock)


def check_us(kind: str, where: str, checks: int) -> dict[str, float]:
    """Of so many checks, the median and the 99th percentile in microseconds."""
    limit = RateLimiter(1e9, 1e6, clock=SystemClock(), store=opened(kind, where), name="check")
    took = []
    for _ in range(checks):
        started = time.perf_counter_ns()
        limit.take()
        took.append(time.perf_counter_ns() - started)
    took.sort()
    return {"p50": took[checks // 2] / 1e3, "p99": took[checks * 99 // 100] / 1e3, "worst": took[-1] / 1e3}


def pound(kind: str, where: str, rate: float, processes: int, seconds: float, told: Connection) -> None:
    """Ask as an impatient client does, for so long; tell how many were let through, and the CPU time it took."""
    limit = RateLimiter(
        CAPACITY, rate, clock=SystemClock(), store=opened(kind, where), name="one key", outage="closed", nodes=processes
    )
    told.send("ready")
    until = told.recv() + seconds
    admitted = 0
    while time.monotonic() < until:
        if limit.try_take():
            admitted += 1
        else:
            time.sleep(0.005)
    told.send((admitted, time.process_time()))


def shared(kind: str, where: str, rate: float, processes: int, seconds: float) -> dict[str, float]:
    """All of them on one key."""
    context = multiprocessing.get_context("fork")
    running = []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        child = context.Process(target=pound, args=(kind, where, rate, processes, seconds, theirs), daemon=True)
        child.start()
        running.append((child, ours))
    for _, told in running:
        told.recv()
    started = time.monotonic()
    for _, told in running:
        told.send(started)
    found = [told.recv() for _, told in running]
    for child, _ in running:
        child.join()
    admitted = sum(count for count, _ in found)
    return {
        "admitted": admitted,
        "of_bound": admitted / (CAPACITY + rate * seconds),
        "cpu_cores": sum(cpu_s for _, cpu_s in found) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--checks", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"check_us": {}, "shared": {}}
    with tempfile.TemporaryDirectory(prefix="chl") as name, redis(Path(name)) as server:
        places = {"alone": "", "file": f"{name}/limits"} | ({"redis": server} if server else {})
        for kind, where in places.items():
            found["check_us"][kind] = check_us(kind, where, options.checks)
            if kind != "alone":
                found["shared"][kind] = shared(kind, where, options.rate, options.processes, options.seconds)
    if options.json:
        print(json.dumps(found))
        return
    for part, rows in found.items():
        for kind, figures in rows.items():
            print(f"{part:9} {kind:6} " + "  ".join(f"{key} {value:.5g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
