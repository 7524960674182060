"""Dask distributed: a LocalCluster, calls mapped and results gathered in blocks."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.distributed import Client, LocalCluster

from bench.peers.measure import BLOCK, PROCESSES, Call, Exchange, Reply, Work


def agent(call: Call, think_s: float) -> Reply:
    if think_s:
        time.sleep(think_s)
    return call.id, call.n + 1


@contextmanager
def dask(work: Work) -> Iterator[Exchange]:
    """Blocks, since each `map` sends the scheduler a graph, and a result fetched alone (as `as_completed` does) costs a
    round trip. Not pure, so that no two calls are taken for one."""
    local = {"processes": True, "host": "127.0.0.1", "dashboard_address": None}
    cluster: Any = LocalCluster(n_workers=PROCESSES, threads_per_worker=work.slots, **local)  # type: ignore[no-untyped-call]
    with cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]

        def submit(calls: Iterator[Call]) -> list[Any]:
            return list(client.map(agent, list(itertools.islice(calls, BLOCK)), think_s=work.think_s, pure=False))

        def exchange(calls: Iterator[Call]) -> Iterator[Reply]:
            blocks = deque([submit(calls), submit(calls)])
            while block := blocks.popleft():
                yield from client.gather(block)
                blocks.append(submit(calls))

        yield exchange
