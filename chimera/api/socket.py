"""The WebSocket: `{"type": "authenticate", "token": ...}` first, then requests, and what they ask for as it happens.

A client that does not read is dropped, and never buffered without bound. A socket ends when its token does.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import WebSocket
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect, WebSocketState

from chimera.api import strict
from chimera.api.bodies import Generate, ReloadModule, Secret, Spawn, Submit
from chimera.api.bounds import too_deep
from chimera.api.guard import address_of, admit, authenticate, services_of, still
from chimera.api.noted import ended_by, told_of
from chimera.api.problems import of
from chimera.api.routes import node, swarm
from chimera.api.services import Services
from chimera.api.streams import Open, Reads, events_of
from chimera.core.errors import ChimeraError, Forbidden, InputError, Overloaded, RateLimited, Unauthenticated
from chimera.core.types import Frozen
from chimera.security.principal import Principal
from chimera.security.refusals import Refusal, held
from chimera.security.roles import Permission

log = logging.getLogger(__name__)

RECHECK_S = 1.0
"""A token that was revoked, or permits something else now, ends its socket within this time."""

MAX_SUBSCRIPTIONS = 32

MAX_UNDER_WAY = 32
"""Requests of one socket, beside what it is subscribed to."""

AT_A_TIME = 16
"""Sockets that are told an event between two looks at the network: telling thousands holds up nobody else."""

BAD_MESSAGE, FAULT, NOT_AUTHENTICATED, ENDED, TOO_SLOW, TOO_MANY = 1007, 1011, 4401, 4403, 4408, 1013

SLOW = "what was asked for is not read: subscribe again, from the last event's seq"


class Authenticate(Frozen):
    type: Literal["authenticate"]
    token: Secret = Field(repr=False)


class _Asked(Frozen):
    id: str = Field(default="", max_length=64)


class GenerateCode(_Asked, Generate):
    type: Literal["generate_code"]


class SpawnAgent(_Asked, Spawn):
    type: Literal["spawn_agent"]


class SubmitTask(_Asked, Submit):
    type: Literal["submit_task"]


class Reload(_Asked, ReloadModule):
    type: Literal["reload_module"]


class Subscribe(_Asked):
    """A mission's events from `after` on."""

    type: Literal["subscribe"]
    mission_id: str = Field(min_length=1, max_length=128)
    after: int = Field(default=0, ge=0, le=swarm.MAX_SEQ)


Asked = Annotated[GenerateCode | SpawnAgent | SubmitTask | Reload | Subscribe, Field(discriminator="type")]

ASKED: TypeAdapter[Asked] = TypeAdapter(Asked)

NEEDS = {
    "generate_code": Permission.LLM_GENERATE,
    "spawn_agent": Permission.SWARM_SPAWN,
    "submit_task": Permission.SWARM_TASK,
    "reload_module": Permission.RELOAD_MODULE,
    "subscribe": Permission.SWARM_READ,
}


class Sockets:
    """All that are open."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: set[asyncio.Task[Any]] = set()
        settings = services.settings
        self.known = Open(settings.max_sockets, settings.max_sockets_each)
        self.followed = Open(settings.max_sockets, settings.max_sockets_each)
        """Subscriptions: each may be a call that waits at the coordinator, which takes so many."""
        self.reads = Reads(services.swarm)
        self._turn = asyncio.Semaphore(AT_A_TIME)

    def __len__(self) -> int:
        return len(self._open)

    async def turn(self) -> None:
        """Wait for one's turn: few have theirs at a time."""
        async with self._turn:
            await asyncio.sleep(0)

    @staticmethod
    async def serve(socket: WebSocket) -> None:
        sockets: Sockets = socket.app.state.sockets
        await sockets._serve(socket)

    async def close(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, socket: WebSocket) -> None:
        services = services_of(socket)
        if not _same_origin(socket, services.settings.origins):
            services.note("-", "WS connect", "/ws", "refused", client=address_of(socket), why="origin")
            await socket.close(ENDED, "this page may not use the API")
            return
        try:
            if services.limiter is not None:
                services.limiter.take(f"address:{address_of(socket)}")
            if len(self._open) >= services.settings.max_sockets:
                raise Overloaded("too many sockets are open: try again later", 5.0)
        except (RateLimited, Overloaded) as error:
            services.note("-", "WS connect", "/ws", "refused", client=address_of(socket), why="limit")
            await socket.close(TOO_MANY, str(error)[:120])
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await socket.accept()
            await _Session(socket, services, self).run()
        except WebSocketDisconnect:
            return
        finally:
            self._open.discard(task)


class _Session:
    """One socket, from its first message to its end."""

    def __init__(self, socket: WebSocket, services: Services, sockets: Sockets) -> None:
        self._socket = socket
        self._services = services
        self._sockets = sockets
        self._out: asyncio.Queue[str] = asyncio.Queue(services.settings.socket_queue)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions = 0
        self._token = self._caller = ""
        self._end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        login_s = self._services.settings.login_s
        try:
            async with asyncio.timeout(login_s):
                first = Authenticate.model_validate(strict.loads(await self._receive()))
            principal = authenticate(self._services, self._socket, first.token)
        except (TimeoutError, ValidationError, ChimeraError):
            why = f'the first message is {{"type": "authenticate", "token": ...}}, within {login_s:g} s'
            self._services.note("-", "WS authenticate", "/ws", "refused", client=address_of(self._socket))
            await self._close(NOT_AUTHENTICATED, why)
            return
        self._token, self._caller = first.token, f"{principal.kind}:{principal.subject}"
        try:
            leave = self._sockets.known.enter(self._caller)
        except (RateLimited, Overloaded) as error:
            self._noted(principal, "WS authenticate", "refused", why="limit")
            await self._close(TOO_MANY, str(error))
            return
        self._say({"type": "authenticated", "subject": principal.subject, "role": principal.role})
        for part in (self._write(), self._read(principal), self._watch(principal)):
            self._later(part)
        try:
            code, why = await self._end
        finally:
            leave()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._close(code, why)

    async def _receive(self) -> str:
        """Raises InputError for what is too large, too deep or no text."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        text = message.get("text")
        if text is None:
            raise InputError("messages are JSON text")
        settings = self._services.settings
        if len(text) > settings.max_body_bytes or too_deep(text.encode(errors="replace"), settings.max_depth):
            raise InputError("the message is too large, or nested too deep")
        return str(text)

    async def _read(self, principal: Principal) -> None:
        while True:
            try:
                text = await self._receive()
            except InputError as error:
                self._finish(BAD_MESSAGE, str(error))
                return
            except WebSocketDisconnect:
                self._finish(1000, "")
                return
            try:
                admit(self._services, principal)
                asked = ASKED.validate_python(strict.loads(text))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                self._say({"type": "error", "id": "", "status": 422, "detail": f"{where}: {first['msg']}"[:500]})
            except RateLimited as error:
                self._noted(principal, "WS", "refused", status=429)
                self._fail("", error)
                await asyncio.sleep(min(error.retry_after_s, 1.0))  # what it sends meanwhile waits on its side
            except ChimeraError as error:
                self._fail("", error)
            else:
                if len(self._tasks) - self._subscriptions < MAX_UNDER_WAY:
                    self._later(self._answer(principal, asked))
                else:
                    self._fail(asked.id, Overloaded("too many requests of this socket are under way", 1.0))

    async def _answer(self, principal: Principal, asked: Asked) -> None:
        told: dict[str, Any] = {}
        failure: Exception | None = None
        with held() as refusals:
            try:
                still(self._services, principal, self._token)
                self._services.security.check(principal, NEEDS[asked.type], f"/ws {asked.type}")
                told = await self._do(principal, asked)
            except Exception as error:
                failure = error
        try:
            self._note(principal, asked, failure, refusals.take())
        except Exception as error:  # what cannot be written down is answered as an error
            failure = error
        if failure is None:
            self._say({"type": f"{asked.type}_done", "id": asked.id, **told})
        else:
            self._fail(asked.id, failure)

    async def _do(self, principal: Principal, asked: Asked) -> dict[str, Any]:
        here = self._services
        match asked:
            case GenerateCode():
                return {"patch": await node.patch_for(here, asked)}
            case SpawnAgent():
                swarm.check_policy(here, asked.policy)
                return {"agents": await here.swarm.spawn_agents([asked.spec()] * asked.count)}
            case SubmitTask():
                return {"mission_id": await swarm.start(here, principal, asked)}
            case Reload():
                node.check_signature(here, asked)
                done = await here.swarm.reload(asked.module, asked.source)
                return {"reloaded": done.model_dump(mode="json")}
            case Subscribe():
                await swarm.look_up(here, principal, asked.mission_id, 0.0)
                if self._subscriptions >= MAX_SUBSCRIPTIONS:
                    raise Overloaded(f"{MAX_SUBSCRIPTIONS} missions are followed by this socket already", 1.0)
                leave = self._sockets.followed.enter(self._caller)
                self._subscriptions += 1
                self._later(self._follow(asked)).add_done_callback(lambda _: self._unfollow(leave))
                return {"mission_id": asked.mission_id}

    async def _follow(self, asked: Subscribe) -> None:
        sockets, asked_id = self._sockets, json.dumps(asked.id)
        try:  # that the token is good, `_watch` sees to
            async for found in events_of(self._services, asked.mission_id, asked.after, sockets.reads):
                for event in found:
                    await sockets.turn()
                    await self._tell(f'{{"type":"event","id":{asked_id},"event":{event.text}}}')
            await self._tell(f'{{"type":"ended","id":{asked_id},"mission_id":{json.dumps(asked.mission_id)}}}')
        except TimeoutError:
            self._finish(TOO_SLOW, SLOW)
        except Exception as error:
            self._fail(asked.id, error)

    def _unfollow(self, leave: Callable[[], None]) -> None:
        self._subscriptions -= 1
        leave()

    async def _watch(self, principal: Principal) -> None:
        """The socket ends with its token, and with what that permits."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                still(self._services, principal, self._token)
            except ChimeraError:
                self._finish(ENDED, "the token has ended, or permits something else now: connect again")
                return

    async def _write(self) -> None:
        while True:
            text = await self._out.get()
            try:
                async with asyncio.timeout(self._services.settings.slow_s):
                    await self._socket.send_text(text)
            except TimeoutError:
                self._finish(TOO_SLOW, SLOW)
                return
            except (RuntimeError, WebSocketDisconnect):
                self._finish(1000, "")
                return

    def _say(self, told: dict[str, Any]) -> None:
        """An answer. Who asks and does not read is dropped."""
        try:
            self._out.put_nowait(json.dumps(told, separators=(",", ":")))
        except asyncio.QueueFull:
            self._finish(TOO_SLOW, SLOW)

    async def _tell(self, text: str) -> None:
        """What was subscribed to, as fast as it is read. Raises TimeoutError."""
        if not self._out.full():
            self._out.put_nowait(text)
            return
        async with asyncio.timeout(self._services.settings.slow_s):
            await self._out.put(text)

    def _fail(self, asked_id: str, error: Exception) -> None:
        told = json.loads(bytes(of(error).body))
        self._say({"id": asked_id, **told, "problem": told["type"], "type": "error"})

    def _note(self, principal: Principal, asked: Asked, failure: Exception | None, refusals: Sequence[Refusal]) -> None:
        refused = isinstance(failure, Forbidden | Unauthenticated)
        client = address_of(self._socket)
        last = ended_by(self._services.note, refusals, refused=isinstance(failure, Forbidden), client=client)
        if asked.type != "subscribe" or refused:
            outcome = "refused" if refused else "done" if failure is None else "failed"
            self._noted(principal, f"WS {asked.type}", outcome, **told_of(last))

    def _noted(self, principal: Principal, action: str, outcome: str, **told: JsonValue) -> None:
        client = address_of(self._socket)
        self._services.note(principal.subject, action, "/ws", outcome, key=principal.token_id, client=client, **told)

    def _finish(self, code: int, why: str) -> None:
        if not self._end.done():
            self._end.set_result((code, why))

    def _later(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        """A socket that one of its parts has left would wait for ever."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a socket failed", exc_info=error)
            self._finish(FAULT, "an internal fault; it is in the server's log")

    async def _close(self, code: int, why: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                await asyncio.wait_for(self._socket.close(code, why[:120]), 2.0)
            except (RuntimeError, TimeoutError, WebSocketDisconnect):
                return


def _same_origin(socket: WebSocket, origins: tuple[str, ...]) -> bool:
    """Browsers name the page's origin; other programs do not."""
    origin = socket.headers.get("origin")
    if origin is None or origin in origins:
        return True
    scheme = "https" if socket.url.scheme == "wss" else "http"
    return origin == f"{scheme}://{socket.headers.get('host', '')}"
