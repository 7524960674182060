"""`chimera mcp serve`: from its start to its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from chimera.cli import render
from chimera.cli.settings import opening, read_settings
from chimera.cli.watch.run import Ending
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.core.events import Event
from chimera.core.types import AgentSpec, TaskResult
from chimera.llm.models import open_model
from chimera.mcp.server import http_app, mcp_server, serve_stdio
from chimera.swarm.mission import Mission
from chimera.swarm.roles import METHODS, brief_agents
from chimera.system.arena import hold_duel
from chimera.system.mcp_serving import SwarmFace

ENDED = 0
WORKERS: Final = 4
MAX_TOKEN_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of one `chimera mcp serve`."""

    http: bool
    port: int
    token_file: Path | None
    documents: Path | None
    miners: tuple[str, ...]
    model: str | None
    name: str | None
    address: str | None


class LateSwarm:
    """A swarm that starts with the first mission: whoever only looks at the tools does not wait for Ray."""

    def __init__(self, settings: Settings, name: str | None, agents: list[AgentSpec]) -> None:
        self._settings, self._name, self._agents = settings, name, agents
        self._stack = AsyncExitStack()
        self._swarm: SwarmCoordinator | None = None
        self._starting = asyncio.Lock()

    async def start(self, mission: Mission) -> str:
        return await (await self._there()).start(mission)

    async def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None:
        return await (await self._there()).look_up(mission_id, wait_s)

    async def cancel(self, mission_id: str) -> TaskResult:
        return await (await self._there()).cancel(mission_id)

    async def events(self, mission_id: str) -> AsyncIterator[Event]:
        async for event in (await self._there()).events(mission_id):
            yield event

    async def close(self) -> None:
        await self._stack.aclose()

    async def _there(self) -> SwarmCoordinator:
        async with self._starting:
            if self._swarm is None:
                attached = self._name is not None
                with opening(self._settings.journal):
                    made = (
                        SwarmCoordinator.attach(self._name, self._settings)
                        if attached
                        else SwarmCoordinator(settings=self._settings)
                    )
                    swarm = await self._stack.enter_async_context(made)
                if not attached:
                    await swarm.spawn_agents(self._agents)
                self._swarm = swarm
            return self._swarm


async def serve(request: Request) -> int:
    """Serve until the end is asked for, or the client has gone."""
    settings = read_settings(address=request.address, model=request.model)
    await open_model(settings.model).close()
    if request.documents is not None and not request.documents.is_dir():
        raise InputError(f"{request.documents} is no folder: --documents names the one that missions may read")
    agents = [AgentSpec()] * WORKERS if request.documents is None else brief_agents(len(METHODS))
    swarm = LateSwarm(settings, request.name, agents)
    face = SwarmFace(swarm, settings=settings, documents=request.documents, miners=request.miners, hold=hold_duel)
    mcp_server(face)  # what is missing is said before anything starts
    ending = Ending()
    ending.heed_signals()
    try:
        serving = asyncio.create_task(_over_http(face, request, settings) if request.http else _over_stdio(face))
        asked = asyncio.create_task(ending.now.wait())
        await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not serving.done():
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
        else:
            await serving
    finally:
        await swarm.close()
    return ENDED


async def _over_stdio(face: SwarmFace) -> None:
    assert sys.__stdout__ is not None
    with redirect_stdout(sys.__stdout__):  # the protocol has it to itself: what commands print goes to standard error
        await serve_stdio(face)


async def _over_http(face: SwarmFace, request: Request, settings: Settings) -> None:
    path = request.token_file or settings.home / "security" / "mcp.token"
    token = _token(path, make=request.token_file is None)
    app = http_app(face, token)
    try:
        listener = socket.create_server(("127.0.0.1", request.port))
    except OSError as error:
        raise InputError(f"port {request.port} cannot be had ({error.strerror}): take another --port") from None
    with listener:
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
        server = _Server(config)
        render.note(f"serving at http://{host}:{port}/mcp; the token is in {path}")
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _token(path: Path, *, make: bool) -> str:
    """The token in a file that only its owner may read; a new one where there is none and one is to be made."""
    if make and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            suppress(FileExistsError),
            open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file,
        ):
            file.write(secrets.token_urlsafe(32) + "\n")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InputError(f"{path} may be read by others: chmod 600 {path}")
            return file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: the token cannot be read: {error}") from None
