"""Plain Ray: one actor an agent, an ActorPool, and one actor an agent with calls batched by hand."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback only; read when ray is imported

import ray
from ray.util import ActorPool

from bench.peers.measure import AGENTS, PROCESSES, WINDOW, Call, Exchange, Reply, Work

READY = 100
"""Replies asked of one `ray.wait`: it looks through all that is in flight, so asking for one at a time is slower."""

BATCH = 100


class Agent:
    """An async actor: its calls think at the same time."""

    async def work(self, call: Call, think_s: float) -> Reply:
        if think_s:
            await asyncio.sleep(think_s)
        return call.id, call.n + 1

    async def work_many(self, calls: list[Call], think_s: float) -> list[Reply]:
        return await asyncio.gather(*(self.work(call, think_s) for call in calls))


class PoolAgent:
    """A pool gives an actor one call at a time, so that an event loop would only cost."""

    def work(self, call: Call, think_s: float) -> Reply:
        if think_s:
            time.sleep(think_s)
        return call.id, call.n + 1


@contextmanager
def _cluster(cls: type, count: int) -> Iterator[list[Any]]:
    """A Ray of our own with `count` actors, all up, restarted when they die and their calls made again."""
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=PROCESSES, **quiet)
    try:
        remote: Any = ray.remote(cls).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        actors = [remote.remote() for _ in range(count)]
        ray.get([actor.work.remote(Call(0, 0), 0.0) for actor in actors])
        yield actors
    finally:
        ray.shutdown()


def _exchange(submit: Callable[[list[Call]], Any], batch: int) -> Exchange:
    """Keep WINDOW calls in flight, `batch` to a remote call, which answers with a list of replies."""

    def exchange(calls: Iterator[Call]) -> Iterator[Reply]:
        waiting: list[Any] = []
        while True:
            while len(waiting) < WINDOW // batch and (drawn := list(itertools.islice(calls, batch))):
                waiting.append(submit(drawn))
            if not waiting:
                return
            ready, waiting = ray.wait(waiting, num_returns=min(max(1, READY // batch), len(waiting)))
            for replies in ray.get(ready):
                yield from replies if batch > 1 else (replies,)

    return exchange


@contextmanager
def actors(work: Work) -> Iterator[Exchange]:
    """One async actor an agent, in turn; one remote call a task."""
    with _cluster(Agent, AGENTS) as agents:
        turn = itertools.cycle(agents)
        yield _exchange(lambda calls: next(turn).work.remote(calls[0], work.think_s), batch=1)


@contextmanager
def batched(work: Work) -> Iterator[Exchange]:
    """The same actors, with BATCH tasks in one remote call: faster, but a batch is lost, late or tried again as one."""
    with _cluster(Agent, AGENTS) as agents:
        turn = itertools.cycle(agents)
        yield _exchange(lambda calls: next(turn).work_many.remote(calls, work.think_s), batch=BATCH)


@contextmanager
def pool(work: Work) -> Iterator[Exchange]:
    """Ray's ActorPool: an actor that is free takes the next call."""
    with _cluster(PoolAgent, PROCESSES) as agents:

        def exchange(calls: Iterator[Call]) -> Iterator[Reply]:
            free = ActorPool(agents)
            for call in itertools.islice(calls, WINDOW):
                free.submit(_work, (call, work.think_s))
            while free.has_next():
                yield free.get_next_unordered()
                for call in itertools.islice(calls, 1):
                    free.submit(_work, (call, work.think_s))

        yield exchange


def _work(agent: Any, arguments: tuple[Call, float]) -> Any:
    return agent.work.remote(*arguments)
