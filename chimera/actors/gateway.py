"""A gateway: an ASGI application served over HTTP and WebSocket from inside an actor.

Uvicorn runs in the actor's own event loop: a request that is answered here passes no other process. A gateway that is
to be replaced is drained: the next one listens at the same port before this one stops (`listening.py`), so that no
request fails. WebSockets and streams that outlast the drain are ended; their clients come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from chimera.actors import cluster, listening
from chimera.actors.lease import Lease
from chimera.core.errors import ChimeraError, InputError, MissingExtra, SwarmError
from chimera.core.types import Frozen, Seconds

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

STEER_S = 0.3
"""Between the last connection that can come to a gateway and the first that does not: handshakes end meanwhile."""

LOOK_S = 0.5


class GatewayOptions(Frozen):
    """What a gateway serves, and where.

    `app` is `package.module:factory`; `factory(**arguments)` makes the application. A `host` that others can reach
    needs `certificate` and `key` (PEM files), or `plain`: then whoever is on the way reads and changes all of it,
    passwords too. Who has asked nothing of the gateway for `orphan_s` has forgotten it, unless it is to `last`.
    """

    app: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    port: int = Field(default=0, ge=0, le=65_535)
    certificate: Path | None = None
    key: Path | None = None
    plain: bool = False
    last: bool = False
    orphan_s: Seconds = 60.0
    header_s: Seconds = 10.0
    """A connection whose next request has begun, or never came, and is not whole by then is closed."""
    idle_s: int = Field(default=5, ge=1, le=3_600)
    protocol: str = Field(default="h11", pattern=r"^(h11|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
    """uvicorn's own, or `package.module:class` of one that knows better how long to wait for a client."""
    max_connections: int = Field(default=4_000, ge=1)
    max_message_bytes: int = Field(default=1_000_000, ge=1_000)

    def check(self) -> None:
        """Raises InputError for a host that needs TLS, and half a pair of files."""
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS needs both, a certificate and its key")
        if self.certificate is None and not self.plain and not is_loopback(self.host):
            raise InputError(
                f"{self.host} can be reached by others, who would read passwords and tokens on their way: give a "
                "certificate and a key, or say that plain HTTP is meant (--plain), as behind a proxy that has TLS"
            )


class GatewayStatus(Frozen):
    """`requests` are all since it started; `connections` are open now, WebSockets among them."""

    state: Literal["new", "serving", "draining", "ended"]
    host: str = ""
    port: int = 0
    pid: int
    requests: int = 0
    connections: int = 0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gateway:
    """The actor. `start` may be asked again, and answers the same."""

    def __init__(self, *, options: GatewayOptions, end_self: Callable[[], None] = cluster.end_self) -> None:
        self._options = options
        self._lease = Lease(options.orphan_s, end_self)
        self._server: Any = None
        self._work: asyncio.Task[None] | None = None
        self._app: _Watched | None = None
        self._address = ("", 0)
        self._state: Literal["new", "serving", "draining", "ended"] = "new"
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Gateway {self._address[0]}:{self._address[1]} {self._state}"

    async def start(self, join: bool = False, port: int = 0) -> tuple[str, int]:
        """Listen and serve: the address. With `join` beside the gateway that is to be replaced, at its `port`.

        Raises InputError where the port is taken or the application cannot be made, and what opening it raises.
        """
        self._renew()
        async with self._starting:
            if self._state == "new":
                await self._start(join, port or self._options.port)
            if self._state != "serving":
                raise SwarmError("this gateway has been drained: start another")
            return self._address

    async def drain(self, timeout_s: float = 30.0) -> int:
        """Take no more connections, end those there are after their next answer, and stop: how many were cut off.

        Answers that are not whole after `timeout_s` are cut off. WebSockets are closed last, with 1012.
        """
        self._renew(timeout_s + 10.0)
        if self._server is None or self._work is None or self._app is None or self._state != "serving":
            return 0
        self._state = "draining"
        await asyncio.sleep(STEER_S)
        for listener in self._server.servers:
            listener.close()
        self._app.last = True
        until = time.monotonic() + timeout_s
        while (left := self._requests_open()) and time.monotonic() < until:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.05)
        self._server.should_exit = True
        await self._work
        return left

    async def status(self) -> GatewayStatus:
        """How it is. Asking keeps it alive."""
        self._renew()
        state = self._server.server_state if self._server else None
        return GatewayStatus(
            state=self._state,
            host=self._address[0],
            port=self._address[1],
            pid=os.getpid(),
            requests=state.total_requests if state else 0,
            connections=len(state.connections) if state else 0,
        )

    def _renew(self, at_least_s: float = 0.0) -> None:
        if not self._options.last:
            self._lease.renew(at_least_s)

    async def _start(self, join: bool, port: int) -> None:
        self._options.check()
        self._app = _Watched(_make(self._options.app, self._options.arguments))
        listener = listening.bind(self._options.host, port, join=join)
        try:
            self._server = _server(self._app, self._options)
            self._work = asyncio.create_task(self._serve(listener))
            while not self._server.started and not self._work.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if self._work.done():
                raise self._app.fault or SwarmError("the server could not be started: see its process's log")
        except BaseException:
            listener.close()
            self._server = self._work = None
            raise
        if join:
            listening.take_over(listener)
        host, bound, *_ = listener.getsockname()
        self._address = (str(host), int(bound))
        self._state = "serving"

    async def _serve(self, listener: socket.socket) -> None:
        watching = asyncio.create_task(self._end_the_slow())
        try:
            await self._server.serve(sockets=[listener])
        except SystemExit:  # uvicorn's way to say that the application did not start
            return
        finally:
            watching.cancel()
            self._state = "ended" if self._state != "new" else "new"

    async def _end_the_slow(self) -> None:
        """Close connections on which a request is awaited, and does not become whole. Uvicorn waits for ever."""
        since: dict[Any, float] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            waiting = {each for each in self._server.server_state.connections if _awaits(each)}
            since = {each: since.get(each, now) for each in waiting}
            for each, began in since.items():
                if now - began > self._options.header_s:
                    each.transport.close()

    def _requests_open(self) -> int:
        return sum(hasattr(each, "cycle") for each in self._server.server_state.connections)  # no WebSocket has one


class _Watched:
    """The application; why it did not start; and once `last` is set, a connection's answer is its last."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.fault: BaseException | None = None
        self.last = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan" and not isinstance(error, asyncio.CancelledError):
                told = SwarmError(f"{type(error).__name__}: {error}")
                self.fault = error if isinstance(error, ChimeraError) else told
            raise

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            if self.last and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:  # the drain took too long
            if begun:
                raise
            headers = [(b"content-length", b"0"), (b"retry-after", b"1")]
            await sending({"type": "http.response.start", "status": 503, "headers": headers})
            await sending({"type": "http.response.body", "body": b""})


def _awaits(connection: Any) -> bool:
    """Whether nothing but more of a request can happen on it: no answer is under way, and no keep-alive timer runs."""
    if not hasattr(connection, "cycle"):  # a WebSocket; whoever serves it sees to it
        return False
    answered = connection.cycle is None or connection.cycle.response_complete
    return answered and connection.timeout_keep_alive_task is None


def _make(name: str, arguments: Mapping[str, JsonValue]) -> Application:
    module, _, factory = name.partition(":")
    try:
        made: Application = getattr(importlib.import_module(module), factory)(**arguments)
    except ChimeraError:
        raise
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette"):
            raise MissingExtra("fastapi", "api") from error
        raise InputError(f"{name} cannot be loaded: {error}") from error
    except Exception as error:
        raise InputError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    return made


def _server(app: Application, options: GatewayOptions) -> Any:
    """A uvicorn server that leaves the process's signals alone: they are Ray's."""
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtra("uvicorn", "api") from error

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            app,
            loop="none",
            http=options.protocol,
            ws="websockets-sansio",
            ws_max_size=options.max_message_bytes,
            lifespan="on",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            proxy_headers=False,  # whoever can connect could claim any address
            server_header=False,
            limit_concurrency=options.max_connections,
            backlog=listening.BACKLOG,
            timeout_keep_alive=options.idle_s,
            timeout_graceful_shutdown=2,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
    )
