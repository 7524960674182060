"""The peers, and what each does for a task whose worker dies."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import cast

from bench.peers.measure import AGENTS, PROCESSES, Start


@dataclass(frozen=True, slots=True)
class Peer:
    """`acknowledges`: who holds a task until its reply is in, and gives it out again if the worker dies.
    `journals`: when what that holder knows is on disk. `each_task` is false where many tasks share one call: none of
    them is acknowledged, timed out or tried again alone."""

    name: str
    target: str
    agents: int | None
    processes: int
    acknowledges: str
    journals: str = "no"
    each_task: bool = True

    def load(self) -> Start:
        """Import the peer. Raises ImportError where its package is not installed."""
        module, _, function = self.target.partition(":")
        return cast(Start, getattr(importlib.import_module(f"bench.peers.{module}"), function))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ray-actors", "ray_peers:actors", AGENTS, AGENTS, "in the caller's memory"),
        Peer("ray-pool", "ray_peers:pool", PROCESSES, PROCESSES, "in the caller's memory"),
        Peer("ray-batched", "ray_peers:batched", AGENTS, AGENTS, "by the batch", each_task=False),
        Peer("dask", "dask_peer:dask", None, PROCESSES, "in the scheduler's memory"),
        Peer("celery", "celery_peer:celery", None, PROCESSES, "in Redis", "each second"),
        Peer("celery-always", "celery_peer:celery_always", None, PROCESSES, "in Redis", "each write"),
    )
}
