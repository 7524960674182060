"""Limits that hold before a route is reached: how large a body is, how deep its JSON, how long it may take to come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np
from starlette.responses import Response

from chimera.api.problems import problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
}
"""On every answer that does not set its own."""

_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

MAX_HEADERS = 100

_PORT = re.compile(r":\d*$")

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string, also one without an end: each byte is looked at once, whatever was sent."""

_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


class Bounds:
    """ASGI middleware. Reads the whole body of a request, or refuses it: 400, 408, 413, 421, 431."""

    def __init__(self, app: App, *, max_bytes: int, max_depth: int, body_s: float, hosts: tuple[str, ...] = ()) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._body_s = body_s
        self._hosts = frozenset(name.lower() for name in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._hosts and host_of(scope) not in self._hosts:
            await send({"type": "websocket.close", "code": 1008, "reason": "this node has another name"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal: Response | None = None
        body = b""
        try:
            async with asyncio.timeout(self._body_s):
                body, refusal = await self._read(scope, receive)
        except TimeoutError:
            why = f"the body did not arrive within {self._body_s:g} s"
            refusal = problem(408, "request-timeout", why, headers={"Connection": "close"})
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()  # the disconnect
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[bytes, Response | None]:
        if self._hosts and host_of(scope) not in self._hosts:
            return b"", problem(
                421, "misdirected", "this node has another name: ask it by one that it was started with"
            )
        if len(scope["headers"]) > MAX_HEADERS:
            return b"", problem(431, "too-many-headers", f"a request has at most {MAX_HEADERS} headers")
        headers = dict(scope["headers"])
        if b"content-length" in headers and b"transfer-encoding" in headers:  # RFC 9112, section 6.1
            why = "a body has one length: Content-Length or Transfer-Encoding"
            return b"", problem(400, "two-lengths", why, headers={"Connection": "close"})
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or int(told[:20]) > self._max_bytes:
            return b"", self._too_large()
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b"", problem(400, "disconnected", "the caller left before its request was whole")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_bytes:
                return b"", self._too_large()
            chunks.append(chunk)
            if not message.get("more_body"):
                break
        body = b"".join(chunks)
        if too_deep(body, self._max_depth):
            return b"", problem(400, "too-deep", f"the body is nested more than {self._max_depth} deep")
        return body, None

    def _too_large(self) -> Response:
        why = f"the body is larger than {self._max_bytes} bytes"
        return problem(413, "too-large", why, headers={"Connection": "close"})


def host_of(scope: Scope) -> str:
    """The name that a request asks for, without its port; empty if it names none, or two."""
    told = [value for name, value in scope["headers"] if name == b"host"]
    return _PORT.sub("", told[0].decode("latin-1")).strip("[]").lower() if len(told) == 1 else ""


def too_deep(body: bytes, most: int) -> bool:
    """Whether JSON is nested deeper than `most`, told without parsing it."""
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    marks = np.frombuffer(_STRING.sub(b"", body).translate(None, _OTHERS), np.uint8)
    opens = (marks == ord("[")) | (marks == ord("{"))
    return bool(marks.size) and int(np.cumsum(np.where(opens, 1, -1)).max()) > most


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            there = {name.lower() for name, _ in headers}
            headers += [header for header in _HEADERS if header[0] not in there]
            message = {**message, "headers": headers}
        await send(message)

    return sending
