"""Limits that many real processes share: nobody gets more than there is, whoever is killed or forked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from chimera.core.clock import Clock, SystemClock
from chimera.security.buckets import NO_LEASE, Limit
from chimera.security.limits import RateLimiter, TokenStore
from chimera.security.redis_limits import RedisTokens
from chimera.security.shared_limits import SharedTokens
from tests.servers import RedisServer

ROWS = 1_024


@pytest.fixture
def quick_redis() -> Iterator[RedisServer]:
    server = RedisServer("--appendonly", "no")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def pound(where: str, kind: str, seconds: float, told: Connection) -> None:
    """In a process of its own: take as fast as can be, and tell when the first and how many."""
    clock: Clock = SystemClock()
    store: TokenStore = (
        RedisTokens(where, clock=clock) if kind == "redis" else SharedTokens(Path(where), clock=clock, rows=ROWS)
    )
    limit = RateLimiter(200, 1_000, clock=clock, store=store, name="pounded", outage="closed")
    told.recv()
    taken, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        if limit.try_take():
            taken += 1
        else:
            time.sleep(0.002)
    told.send(taken)


@contextmanager
def pounding(where: str, kind: str, seconds: float, processes: int) -> Iterator[list[tuple[int, Connection]]]:
    context = multiprocessing.get_context("fork")
    running, children = [], []
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            child = context.Process(target=pound, args=(where, kind, seconds, theirs), daemon=True)
            child.start()
            theirs.close()
            children.append(child)
            running.append((child.pid or 0, ours))
        yield running
    finally:
        for child in children:
            child.kill()
            child.join()


@pytest.mark.parametrize("kind", ["shared", "redis"])
def test_sixteen_processes_on_one_key_pass_no_more_than_one_may(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = str(tmp_path / "limits") if kind == "shared" else request.getfixturevalue("quick_redis").url(9)
    with pounding(where, kind, 2.0, 16) as running:
        started = time.monotonic()
        for _, told in running:
            told.send("go")
        time.sleep(0.5)
        os.kill(running[0][0], signal.SIGKILL)
        admitted = sum(told.recv() for _, told in running[1:])
        elapsed_s = time.monotonic() - started
    assert admitted <= 200 + 1_000 * elapsed_s
    assert admitted > 1_000


def test_a_forked_child_does_not_spend_its_parents_lease(tmp_path: Path) -> None:
    store = SharedTokens(tmp_path / "limits", clock=SystemClock(), rows=8)
    limit = RateLimiter(160, 0.01, clock=SystemClock(), store=store)
    limit.take()  # leases ten
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, bytes([sum(limit.try_take() for _ in range(200))]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 1)[0]
    os.close(reader)
    os.close(writer)
    ours = 1 + sum(limit.try_take() for _ in range(200))
    assert theirs == 150 and ours == 10


def exchange_much(path: Path) -> None:
    store = SharedTokens(path, clock=SystemClock(), rows=ROWS)
    lease = NO_LEASE
    for _ in range(10_000):
        lease, _ = store.exchange("k", Limit(1_000_000, 0.001), 1, lease)
    store.exchange("k", Limit(1_000_000, 0.001), 0, lease)


def test_no_exchange_is_lost_among_processes(tmp_path: Path) -> None:
    children = [
        multiprocessing.get_context("fork").Process(target=exchange_much, args=(tmp_path / "limits",)) for _ in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    store = SharedTokens(tmp_path / "limits", clock=SystemClock(), rows=ROWS)
    assert store.exchange("k", Limit(1_000_000, 0.001), 1_000_000, NO_LEASE)[0].size == 1_000_000
