"""`chimera serve`: a node from its start to its end, in order."""

from __future__ import annotations

import asyncio
import base64
import binascii
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import explain, opening, read_settings
from chimera.cli.watch.run import Ending
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError
from chimera.core.types import AgentSpec
from chimera.llm.models import open_model
from chimera.system.champions import resolve_model

if TYPE_CHECKING:
    from chimera.api.serving import Node
    from chimera.system.serving import Front, GatewayOptions

ENDED = 0

WORKERS = 6
"""The default policy's, so that a task with text in its inputs is answered at once."""

KEEP_S = 5.0

APP = "chimera.api.serving:application"
PROTOCOL = "chimera.api.connections:Connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of one `chimera serve`."""

    host: str
    port: int
    agents: int | None
    model: str | None
    reload_keys: tuple[str, ...]
    origins: tuple[str, ...]
    hostnames: tuple[str, ...]
    policies: tuple[str, ...]
    rate_per_s: float
    watch: bool
    certificate: Path | None
    key: Path | None
    plain: bool
    name: str | None
    address: str | None
    as_json: bool


def execute(request: Request) -> int:
    """Run a node until its end, and return the exit code."""
    return command.run(_execute(request), as_json=request.as_json)


async def _execute(request: Request) -> int:
    settings = read_settings(address=request.address, model=request.model)
    options = _checked(request, settings)
    ending, again = Ending(), asyncio.Event()
    async with AsyncExitStack() as stack:
        with render.waiting("starting Ray", shown=not request.as_json), opening(settings.journal):
            swarm = await stack.enter_async_context(_swarm(request, settings))
        ending.heed_signals()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, again.set)
        from chimera.system.serving import Front

        workers = request.agents if request.agents is not None else 0 if request.name else WORKERS
        front = Front(swarm.name, _options(request, _node(request, settings, swarm.name)))
        stack.push_async_callback(front.close)
        password = await _first_password(settings)
        with render.waiting("starting the gateway", shown=not request.as_json):
            await asyncio.gather(front.start(), swarm.spawn_agents([AgentSpec()] * workers))
        _tell(options, front, swarm, password, as_json=request.as_json)
        await _until_over(front, ending, again)
        render.note("ending: requests under way are finished first")
    return ENDED


def _checked(request: Request, settings: Settings) -> GatewayOptions:
    """All that can be found out before anything is started. Raises InputError, MissingExtra."""
    if any(not file.is_file() for file in (request.certificate, request.key) if file is not None):
        raise InputError("--tls-cert and --tls-key name files that are not there")
    for key in request.reload_keys:
        _check_key(key)
    for origin in request.origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise InputError(f"--origin {origin!a:.100} is no origin, such as https://example.org: no path, no slash")
    open_model(resolve_model(settings.model, settings))
    options = _options(request, _node(request, settings, "-"))
    options.check()
    from chimera.system.serving import check_port

    check_port(request.host, request.port)
    return options


def _node(request: Request, settings: Settings, swarm: str) -> Node:
    from chimera.api.serving import POLICIES, Node

    return Node(
        swarm=swarm,
        home=settings.home.absolute(),
        model=settings.model,
        watch=request.watch,
        rate_per_s=request.rate_per_s,
        origins=request.origins,
        hosts=_names(request),
        policies=(*POLICIES, *request.policies),
        reload_keys=request.reload_keys,
    )


def _names(request: Request) -> tuple[str, ...]:
    """What the node is called by. A page whose own name was made to lead to this machine is none of its callers."""
    from chimera.system.serving import is_loopback

    if not is_loopback(request.host):
        return request.hostnames
    return tuple(dict.fromkeys(("127.0.0.1", "localhost", "::1", request.host, *request.hostnames)))


def _options(request: Request, node: Node) -> GatewayOptions:
    from chimera.system.serving import GatewayOptions

    try:
        return GatewayOptions(
            app=APP,
            protocol=PROTOCOL,
            arguments=node.model_dump(mode="json"),
            host=request.host,
            port=request.port,
            certificate=request.certificate,
            key=request.key,
            plain=request.plain,
        )
    except ValidationError as error:
        raise InputError(explain(error)) from error


def _swarm(request: Request, settings: Settings) -> SwarmCoordinator:
    if request.name is not None:
        return SwarmCoordinator.attach(request.name, settings)
    return SwarmCoordinator(settings=settings)


async def _first_password(settings: Settings) -> str | None:
    """The one-time password of the user admin, where there are no users yet."""
    from chimera.cli.users_run import local_security

    async with local_security(settings) as security:
        return await security.bootstrap()


async def _until_over(front: Front, ending: Ending, again: asyncio.Event) -> None:
    """Keep the gateway until the end is asked for; have a new one when that is."""
    while True:
        await _first(ending.now, again, timeout_s=KEEP_S)
        if ending.asked:
            return
        if again.is_set():
            again.clear()
            await _redeploy(front)
        else:
            await front.keep()


async def _redeploy(front: Front) -> None:
    try:
        left = await front.redeploy()
    except ChimeraError as error:
        render.error(error, as_json=False)
        render.note("the gateway before goes on")
    else:
        render.note("a new gateway serves" + (f"; {left} requests were cut off" if left else ""))


async def _first(*events: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _tell(
    options: GatewayOptions, front: Front, swarm: SwarmCoordinator, password: str | None, *, as_json: bool
) -> None:
    host = f"[{front.host}]" if ":" in front.host else front.host
    url = f"{'http' if options.certificate is None else 'https'}://{host}:{front.port}"
    if as_json:
        told = {"url": url, "swarm": swarm.name, "dashboard": swarm.dashboard}
        if password is not None:
            told |= {"user": "admin", "one_time_password": password}
        render.line(render.to_line(told))
        return
    render.say(("listening at ", ""), (url, "bold"), f"  (swarm {swarm.name})")
    if password is not None:
        render.say("user admin, one-time password ", (password, "bold"), ": shown this once, good for a day;")
        render.say('change it: POST /api/auth/login with "new_password" beside it')
    if options.plain:
        render.note("plain HTTP: whoever is on the way can read passwords and tokens")
    if swarm.dashboard:
        render.note(f"Ray dashboard: {swarm.dashboard}")
    render.note("Ctrl-C ends; SIGHUP has a new gateway serve")


def _check_key(key: str) -> None:
    try:
        right = len(base64.b64decode(key, validate=True)) == 32
    except (binascii.Error, ValueError):
        right = False
    if not right:
        raise InputError(f"--reload-key {key!a:.60} is no Ed25519 public key: base64 of its 32 bytes")
