"""Small ASGI applications that gateways of the tests serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from chimera.core.errors import StorageUnavailable


def hello(
    word: str = "hello", pause_s: float = 0.0, fails: bool = False, fails_if: str = ""
) -> Callable[..., Awaitable[None]]:
    """Answers every request with `word`, after `pause_s`; the path /long takes until it is cut off.

    It does not open if it `fails`, or where a file `fails_if` is.
    """

    fails = fails or bool(fails_if and Path(fails_if).exists())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if fails:
                raise StorageUnavailable("its store is out of reach")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                await send({"type": "websocket.send", "text": word})
            return
        await asyncio.sleep(3_600 if scope["path"] == "/long" else pause_s)
        body = word.encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
