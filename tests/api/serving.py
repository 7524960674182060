"""A node behind a real server, in a thread: for what needs sockets, such as streams and slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from chimera.api.connections import Connections
from chimera.api.services import ApiSettings, Services
from chimera.security.roles import Role
from tests.api.whole import Node, bearing

T = TypeVar("T")


class Served:
    """A server that runs; what has to happen in its event loop, `do` does there."""

    def __init__(self, node: Node, port: int, loop: asyncio.AbstractEventLoop, server: uvicorn.Server) -> None:
        self.node = node
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}/ws"
        self._loop = loop
        self._server = server

    @property
    def connections(self) -> int:
        """How many there are, as the server counts them."""
        return len(self._server.server_state.connections)

    def do(self, work: Coroutine[Any, Any, T], limit_s: float = 20.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s)

    def token(self, user: Role | str) -> str:
        return self.do(self.node.token(user))

    def headers(self, user: Role | str) -> dict[str, str]:
        return bearing(self.token(user))

    def connect(self, *, buffer: int = 0) -> socket.socket:
        """A bare connection; `buffer` is how many bytes it takes in before it is full."""
        made = socket.socket()
        if buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        made.settimeout(20.0)
        made.connect(("127.0.0.1", self.port))
        return made


@contextlib.contextmanager
def served(
    folder: Path,
    *,
    limiter: tuple[float, float] = (1e6, 1e6),
    cells: int = 1,
    http: type[Connections] = Connections,
    change: Callable[[Services], None] | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """A node on a free port of 127.0.0.1, ended when the block is left."""
    folder.mkdir(parents=True, exist_ok=True)
    node = Node(folder, ApiSettings(**settings), limiter, cells=cells)
    node.change = change or node.change
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        node.app,
        http=http,
        log_level="critical",
        lifespan="on",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listening])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 30.0
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        yield Served(node, listening.getsockname()[1], loops[0], server)
    finally:
        server.should_exit = True
        thread.join(20.0)
        listening.close()
    assert not thread.is_alive(), "the server did not end"
