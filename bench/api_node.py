"""The node that `bench.api` asks: a process with three gateways, of the API as it is served, and of a bare handler.

All are `chimera.actors.gateway.Gateway`, as `chimera serve` runs it, over one detector and one mission. The third
remembers no tokens, so that each is new to it. The swarm is played by `Feed`: what an event costs to come out of a
swarm is not measured here.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query

from bench.api import PATH, raise_files
from chimera.actors.gateway import Gateway, GatewayOptions
from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.api.app import ROUTERS, create_app
from chimera.api.bounds import App, Receive, Scope, Send
from chimera.api.guard import Here, routes_of
from chimera.api.owned import Owned
from chimera.api.record import Record
from chimera.api.routes import node
from chimera.api.services import ApiSettings, Services
from chimera.client import SwarmCoordinator
from chimera.core.clock import SystemClock
from chimera.core.events import Event, EventKind
from chimera.core.types import TaskResult
from chimera.core.watching import Reading
from chimera.security.jwt_manager import Identity, JWTManager
from chimera.security.limits import ClientRateLimiter
from chimera.security.manager import LOCAL, SecurityManager
from chimera.security.roles import Role
from chimera.security.sessions import Sessions

USER = "ada"
METRICS = 10
REPLY = "The sky is blue. " * 12
"""Of a typical event."""


class Feed(SwarmCoordinator):
    """A swarm with one mission, to which happens what `tell` says."""

    def __init__(self, mission_id: str) -> None:
        super().__init__()
        self.mission_id = mission_id
        self.polls = 0
        self._events: list[Event] = []
        self._news = asyncio.Event()

    def tell(self, count: int) -> None:
        for _ in range(count):
            at = EventKind.REPLY_ACCEPTED
            seq = len(self._events) + 1
            told = Event(mission_id=self.mission_id, seq=seq, kind=at, at_s=time.time(), data={"reply": REPLY})
            self._events.append(told)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def read_events(self, mission_id: str, after: int = 0, wait_s: float = 0.0) -> list[Event]:
        self.polls += 1
        if len(self._events) <= after:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
        return self._events[after : after + 100]

    async def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None:
        return None


_made: dict[str, Services] = {}
"""What the applications are made over: their gateways are in this process, and so find it here."""


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Services]:
    """What `chimera serve` works with but a swarm and a model: identity, limits, an audit log on the disk."""
    clock = SystemClock()
    record = await asyncio.to_thread(Record.kept_in, folder)
    security = SecurityManager(folder / "security", audit=record, clock=clock)
    owned = Owned.kept_in(folder / "security" / "missions.key")
    engine = AnomalyDetectionEngine(clock=clock)
    now = clock.now()
    for step in range(50):
        at = now - 2.0 * (50 - step)
        await engine.push([Reading(f"swarm_{n}", at, n + math.sin(step)) for n in range(METRICS)])
    try:
        yield Services(
            swarm=Feed(owned.new(USER)),
            security=security,
            owned=owned,
            limiter=ClientRateLimiter(1e9, 1e6, clock=clock),
            audit=record,
            engine=engine,
            clock=clock,
            settings=ApiSettings(hosts=("127.0.0.1",), login_s=60.0),
        )
    finally:
        await engine.aclose()
        security.close()
        await asyncio.to_thread(record.close)


class Timed:
    """An application, and the CPU seconds that each of its answers took, of one request at a time."""

    def __init__(self, app: App, took: list[float]) -> None:
        self._app, self._took = app, took

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.thread_time()
        await self._app(scope, receive, send)
        if scope["type"] == "http":
            self._took.append(time.thread_time() - started)


cpu_s: dict[str, list[float]] = {"node": [], "forgetful": [], "bare": []}


def secured(of: str) -> Timed:
    """The API as it is."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Services]:
        yield _made[of]

    return Timed(create_app(opening, _made[of].settings), cpu_s[of])


def bare(of: str) -> Timed:
    """The same routes, and nothing around them."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.services = _made[of]
    for router in ROUTERS:
        plain = APIRouter()
        for route in routes_of([router]):
            endpoint = _detect if route.path == PATH else route.endpoint
            plain.add_api_route(route.path, endpoint, methods=list(route.methods or ()), response_model=None)
        app.include_router(plain)
    return Timed(app, cpu_s["bare"])


async def _detect(
    here: Here,
    metric: Annotated[str | None, Query(max_length=256)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    return await node.detect(here, LOCAL, metric, limit)


def serve(folder: str, told: Connection) -> None:
    """Serve until told to end. First sends the ports, the mission and a token."""
    raise_files()
    asyncio.run(_serve(Path(folder), told))


async def _serve(folder: Path, told: Connection) -> None:
    async with opened(folder) as services:
        _made["node"] = services
        _made["forgetful"] = replace(services, security=_forgetful(folder, services))
        connections = "chimera.api.connections:Connections"
        gateways = [
            _gateway("secured", "node", connections),
            _gateway("secured", "forgetful", connections),
            _gateway("bare", "node", "h11"),
        ]
        ports = [(await each.start())[1] for each in gateways]
        feed = services.swarm
        assert isinstance(feed, Feed)
        token = (await services.security.tokens.issue(Identity(USER, Role.OPERATOR))).access_token
        told.send((ports, feed.mission_id, token))
        while (asked := await asyncio.to_thread(told.recv)) != "end":
            if asked == "cpu":
                told.send(cpu_s)
            elif asked == "size":
                gc.collect()
                told.send((resident_bytes(), time.process_time(), feed.polls))
            else:
                feed.tell(asked)
        for each in gateways:
            await each.drain(1.0)
        _made["forgetful"].security.close()


def _forgetful(folder: Path, services: Services) -> SecurityManager:
    security = SecurityManager(folder / "security", audit=services.audit, clock=services.clock)
    sessions = Sessions(security.store, clock=services.clock)
    security.tokens = JWTManager(security.tokens.ring, sessions, security.store, clock=services.clock, max_cached=0)
    return security


def _gateway(app: str, of: str, protocol: str) -> Gateway:
    options = GatewayOptions(app=f"bench.api_node:{app}", arguments={"of": of}, protocol=protocol, last=True)
    return Gateway(options=options, end_self=lambda: os._exit(1))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
