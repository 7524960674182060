"""Streamable HTTP for one server: a pool of its own, one TLS context for all, and failures that stay with their call.

The SDK's transport gives up the whole session, and all that is in flight there, when one request cannot be sent. Here
a request that fails is answered with a JSON-RPC error that says so, so that only its own call fails.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final

import httpx2
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client

from chimera.mcp.config import ServerConfig

SPARE_CONNECTIONS: Final = 4
"""Beside those of the calls: the stream of notifications, and what cancels."""

KEPT_ALIVE_S: Final = 60.0
WRITE_S, END_S = 30.0, 2.0
"""For a request to be written; for a session to be ended."""

ABANDONED_S: Final = 900.0
"""A call's answer is not waited for beyond this, or the server's own `timeout_s`, after its caller has left."""

MAX_RETRY_AFTER_S: Final = 3_600.0

_CODE: Final = -32_090
_SESSION: Final = "mcp-session-id"


class Fault(StrEnum):
    """What went wrong with one request."""

    UNSENT = "unsent"
    """No connection: nothing was done."""
    SESSION = "session"
    """The server knows the session no more: nothing was done."""
    BUSY = "busy"
    """429 or 503: nothing was done."""
    REFUSED = "refused"
    """401 or 403: nothing was done, and it will not be."""
    BROKEN = "broken"
    """Another failure on the way: whether something was done is not known."""


class Wire(httpx2.AsyncBaseTransport):
    """Carries one server's requests. `lost` is told if its stream of notifications shows that the session is gone."""

    def __init__(
        self, config: ServerConfig, tls: ssl.SSLContext, *, max_bytes: int, lost: Callable[[str], None]
    ) -> None:
        self._config = config
        self._max_bytes = max_bytes
        self._lost = lost
        self._mark = secrets.token_hex(8)
        limits = httpx2.Limits(
            max_connections=config.at_once + SPARE_CONNECTIONS,
            max_keepalive_connections=SPARE_CONNECTIONS,
            keepalive_expiry=KEPT_ALIVE_S,
        )
        self._pool = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits)

    def fault_of(self, error: MCPError) -> tuple[Fault, float] | None:
        """The fault that an error stands for, and the seconds to wait; None if the server itself answered with it."""
        data = error.error.data
        if error.error.code != _CODE or not isinstance(data, dict) or data.get("mark") != self._mark:
            return None
        return Fault(data["fault"]), float(data["wait_s"])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "timeout": self._timeouts(request.method)}
        try:
            response = await self._pool.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            return self._failed(request, Fault.UNSENT, f"no connection ({type(error).__name__})")
        except httpx2.TransportError as error:
            return self._failed(request, Fault.BROKEN, f"the connection broke off ({type(error).__name__})")
        if (fault := _fault(request, response)) is not None:
            await response.aclose()
            forgotten = "it does not know the session any more"
            why = forgotten if fault is Fault.SESSION else f"it answers HTTP {response.status_code}"
            return self._failed(request, fault, why, _retry_after_s(response))
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return self._failed(request, Fault.BROKEN, "it compresses its answer unasked")
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, self._max_bytes)
        return response

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _timeouts(self, method: str) -> dict[str, float | None]:
        connect_s = self._config.connect_s
        read_s = {"GET": None, "DELETE": END_S}.get(method, max(ABANDONED_S, self._config.timeout_s))
        return {"connect": connect_s, "pool": connect_s, "write": WRITE_S, "read": read_s}

    def _failed(self, request: httpx2.Request, fault: Fault, why: str, wait_s: float = 0.0) -> httpx2.Response:
        if request.method == "GET" and fault in (Fault.UNSENT, Fault.SESSION):
            self._lost(why)  # nobody waits for the stream of notifications; whose call it is hears of it by its answer
        data: dict[str, Any] = {"mark": self._mark, "fault": fault, "wait_s": wait_s}
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": _CODE, "message": why, "data": data}}
        return httpx2.Response(502, json=body, request=request)


class _Bounded(httpx2.AsyncByteStream):
    """A body of at most so many bytes. The SDK makes an error of that one answer out of a StreamError."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                self._left -= len(part)
                if self._left < 0:
                    raise httpx2.StreamError("the answer is too long")
                yield part
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"the connection broke off ({type(error).__name__})") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


def _fault(request: httpx2.Request, response: httpx2.Response) -> Fault | None:
    match response.status_code:
        case 404 if _SESSION in request.headers:
            return Fault.SESSION
        case 429 | 503:
            return Fault.BUSY
        case 401 | 403:
            return Fault.REFUSED
        case status if status >= 500:
            return Fault.BROKEN
        case _:
            return None


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3; its dates are taken as 0)."""
    given = response.headers.get("retry-after", "")
    return min(float(given), MAX_RETRY_AFTER_S) if given.isdigit() and len(given) < 9 else 0.0


@asynccontextmanager
async def http_streams(config: ServerConfig, wire: Wire, *, max_bytes: int) -> AsyncIterator[Any]:
    """The streams that an MCP session reads and writes. Nothing is sent before the session does."""
    client = httpx2.AsyncClient(
        transport=wire,
        headers={
            **{name: value.get_secret_value() for name, value in config.headers.items()},
            "accept-encoding": "identity",
        },
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(
            config.url.get_secret_value(), http_client=client, max_sse_event_size=max_bytes
        ) as streams,
    ):
        yield streams
