"""The API of a running node: what its gateway makes and serves (`chimera.actors.gateway`)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field, JsonValue

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.api.answers import Answers
from chimera.api.app import create_app
from chimera.api.owned import Owned
from chimera.api.record import Record
from chimera.api.reviewing import reviewing
from chimera.api.services import ApiSettings, Services
from chimera.client import SwarmCoordinator
from chimera.core.clock import SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError
from chimera.core.types import Frozen
from chimera.core.watching import Reading
from chimera.healing.generator import CodeGenerator
from chimera.llm.models import open_model
from chimera.security.capability_home import CapabilityHome
from chimera.security.limits import ClientRateLimiter
from chimera.security.manager import SecurityManager
from chimera.swarm.status import SwarmStatus
from chimera.system.champions import resolve_model
from chimera.system.duels import Duels
from chimera.system.reviews import PatchReviews
from chimera.system.treasury import Treasury
from chimera.system.treasury_watch import heed, treasury_readings

log = logging.getLogger(__name__)

WATCH_S = 2.0
MAX_ALERTS = 500
SECURITY = "security"
ANSWERS = "answers.db"
HEART = "heart"
"""Where `chimera heart run` keeps its things unless told otherwise."""

POLICIES = ApiSettings().policies
"""Policies that may be spawned over the API unless more are allowed: those that are made to be."""


class Node(Frozen):
    """What a gateway is told of its node; JSON. `swarm` is the name of one that runs; `home` is the node's folder."""

    swarm: str
    home: Path
    model: str = "offline"
    watch: bool = True
    rate_per_s: float = Field(default=100.0, gt=0, le=1_000_000)
    """Requests of each client, with twice as many at once."""
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    policies: tuple[str, ...] = POLICIES
    reload_keys: tuple[str, ...] = ()


def application(**node: JsonValue) -> FastAPI:
    """The API over a node; its arguments are the fields of Node."""
    told = Node.model_validate(node)
    fields = told.model_dump(include={"origins", "hosts", "policies", "reload_keys"})
    settings = ApiSettings(**fields, key_rate=max(1, int(told.rate_per_s)))
    return create_app(partial(opened, told, settings), settings)


@asynccontextmanager
async def opened(node: Node, settings: ApiSettings) -> AsyncIterator[Services]:
    """Services over a swarm that runs. Raises what opening each of them raises."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        record = await asyncio.to_thread(Record.kept_in, node.home)
        stack.push_async_callback(asyncio.to_thread, record.close)
        capabilities = await asyncio.to_thread(CapabilityHome, node.home / SECURITY, clock=clock)
        stack.push_async_callback(asyncio.to_thread, capabilities.close)
        answers = await asyncio.to_thread(Answers, node.home / ANSWERS)
        stack.push_async_callback(asyncio.to_thread, answers.close)
        security = await asyncio.to_thread(
            SecurityManager, node.home / SECURITY, audit=record, clock=clock, capabilities=capabilities
        )
        stack.callback(security.close)
        limiter = ClientRateLimiter(2 * node.rate_per_s, node.rate_per_s, clock=clock)
        stack.callback(limiter.close)
        home = Settings(home=node.home)
        swarm = await stack.enter_async_context(SwarmCoordinator.attach(node.swarm, home))
        model = await stack.enter_async_context(open_model(resolve_model(node.model, home)))
        treasury = await stack.enter_async_context(Treasury(home, clock=clock))
        queue = await stack.enter_async_context(reviewing(swarm, home, security.users))
        alerts: deque[Any] = deque(maxlen=MAX_ALERTS)
        work = [record.taken()]
        engine = None
        if node.watch:
            engine = AnomalyDetectionEngine(clock=clock)
            stack.push_async_callback(engine.aclose)
            work.append(_watch(swarm, engine, alerts, treasury))
        tasks = [asyncio.create_task(each) for each in work]
        stack.push_async_callback(_ended, tasks)
        yield Services(
            swarm=swarm,
            security=security,
            owned=await asyncio.to_thread(Owned.kept_in, node.home / SECURITY / "missions.key"),
            limiter=limiter,
            audit=record,
            answers=answers,
            generator=CodeGenerator(model) if model.writes else None,
            engine=engine,
            duels=Duels.kept_in(node.home),
            reviews=PatchReviews(node.home / HEART),
            queue=queue,
            content=node.home,
            treasury=treasury,
            clock=clock,
            settings=settings,
            alerts=lambda: tuple(alerts),
        )


def readings(status: SwarmStatus, at: float) -> list[Reading]:
    """The numbers of a status that rise and fall, as readings of that time (seconds since the epoch)."""
    now: dict[str, Any] = {
        "nodes": sum(node.alive for node in status.nodes),
        "agents": status.agents,
        "agents_busy": status.busy,
        "attempts_waiting": status.waiting,
        "cells_up": status.cells_up,
        "missions_running": status.missions.running,
        "missions_queued": status.missions.queued,
        "rate": status.rates.model_dump(),
        "latency": status.latencies.model_dump(
            exclude={name: {"count"} for name in type(status.latencies).model_fields}
        ),
    }
    return [Reading(name, at, value) for name, value in _numbers("swarm", now)]


def _numbers(prefix: str, told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in told.items():
        name = f"{prefix}_{key}"
        if isinstance(value, Mapping):
            yield from _numbers(name, value)
        else:
            yield name, float(value)


async def _watch(
    swarm: SwarmCoordinator, engine: AnomalyDetectionEngine, alerts: deque[Any], treasury: Treasury
) -> None:
    """Feed the engine until cancelled. What does not answer now is asked again."""
    clock = SystemClock()
    while True:
        try:
            alerts.extend(await engine.push(readings(await swarm.status(), clock.now())))
        except ChimeraError as error:
            log.warning("the swarm's status cannot be read: %s", error)
        if treasury.place.config.exists():
            try:
                news = await engine.push(await treasury_readings(treasury, clock.now()))
                alerts.extend(news)
                if why := await heed(treasury, news):
                    log.warning("all spending is stopped: %s", why)
            except ChimeraError as error:
                log.warning("the treasury cannot be watched: %s", error)
        await asyncio.sleep(WATCH_S)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            try:
                await task
            except ChimeraError as error:
                log.error("a part of the node had ended: %s", error)
