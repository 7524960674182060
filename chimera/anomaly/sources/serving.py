"""A small web server for those who send readings: bounded in bytes, in time and in connections."""

from __future__ import annotations

import asyncio
import hmac
import json
import zlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Self

from aiohttp import web

from chimera.anomaly.sources.addresses import LOOPBACK, shown_address
from chimera.anomaly.sources.fetching import token_of
from chimera.anomaly.sources.intake import Inbox, Sieve
from chimera.anomaly.sources.source import Readings, Source, SourceOptions
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import SourceError

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Of a request, as it was sent and as it is when inflated."""
MAX_CONNECTIONS = 256
READ_S = 10.0
"""How long a request may take to come in, and a connection to say nothing."""
RETRY_AFTER_S = 1
COMPRESSED = ("gzip", "deflate")
MAX_ELEMENTS = 100_000
"""Readings of one request, or OpenTelemetry's points."""
MAX_JSON_PARTS = 800_000
"""Objects, arrays and commas of one request: its JSON would become as many objects, of some 100 bytes each."""
PARSED_AT_ONCE = 2
MAX_FAULTS = 20
"""How many faults of one request are named in its answer."""


class Answer(NamedTuple):
    status: int
    body: bytes
    kind: str = "application/json"
    headers: Mapping[str, str] = {}


class Refusal(Exception):
    """A request that is not taken in. `reason` is a word for a program; it is counted under it."""

    def __init__(
        self, status: int, reason: str, message: str, *, faults: list[dict[str, object]] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.faults = faults or []
        self.headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 429 else {}

    def answer(self) -> Answer:
        error: dict[str, object] = {"reason": self.reason, "message": self.message}
        if self.faults:
            error["faults"] = self.faults[:MAX_FAULTS]
        return Answer(self.status, json.dumps({"error": error}).encode(), headers=self.headers)


class Post(NamedTuple):
    """A request's body, inflated, and its content type."""

    kind: str
    body: bytes


class ServerSource(Source):
    """What `http` and `otlp` share. A subclass says where it is posted to, in which types, and what to make of it.

    Raises SourceError when the address is taken. With `token_env`, whoever sends must show that token.
    """

    scheme: str
    default_port: int
    path: str
    kinds: tuple[str, ...]

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int | None = None,
        *,
        options: SourceOptions | None = None,
        clock: Clock | None = None,
        read_s: float = READ_S,
    ) -> None:
        self._options = options or SourceOptions()
        self._clock = clock or SystemClock()
        self._read_s = read_s
        self._host, self._port = host, self.default_port if port is None else port
        self._token = token_of(self._options.token_env)
        self.name = f"{self.scheme}:{shown_address(host, self._port)}"
        self._sieve = Sieve(self._options.metrics)
        self.refused: dict[str, int] = self._sieve.refused
        self._inbox = Inbox(self._options.max_queued)
        self._parsing = asyncio.Semaphore(PARSED_AT_ONCE)
        self._web: web.Server | None = None
        self._server: asyncio.Server | None = None

    @abstractmethod
    async def take(self, post: Post) -> Answer:
        """Make readings of it and hand them to `accept`. Raises Refusal."""

    async def __aenter__(self) -> Self:
        self._web = serving = web.Server(
            self._handle,
            keepalive_timeout=self._read_s,
            auto_decompress=False,
            access_log=None,
            lingering_time=0.0,
        )
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: serving() if len(serving.connections) < MAX_CONNECTIONS else _Busy(), self._host, self._port
            )
        except (OSError, UnicodeError, OverflowError) as error:
            raise SourceError(f"{self.name}: it cannot listen there: {error}") from error
        where = shown_address(*self._server.sockets[0].getsockname()[:2])
        self.name, self.address = f"{self.scheme}:{where}", f"http://{where}{self.path}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.finish()
        if self._server is not None and self._web is not None:
            self._server.close()
            await self._web.shutdown(timeout=1.0)
            await self._server.wait_closed()

    def finish(self) -> None:
        """Who still posts is answered 503, with the reason `closed`."""
        self._inbox.close()

    def batches(self) -> AsyncIterator[Readings]:
        return self._inbox.batches()

    def accept(self, readings: Readings) -> None:
        """Queue them, all or none. Raises Refusal: 429 when they have no room now, 413 when they never will."""
        if len(readings) > self._inbox.limit:
            raise Refusal(413, "size", f"{len(readings):,} readings at once: send at most {self._inbox.limit:,}")
        if self._inbox.closed:
            raise Refusal(503, "closed", "this source is being closed")
        if not self._inbox.offer(readings):
            waiting = len(self._inbox)
            raise Refusal(429, "overloaded", f"{waiting:,} readings wait already: send these again after a pause")

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        try:
            answer = await self._answer(request)
        except Refusal as refusal:
            self._sieve.refuse(refusal.reason)
            answer = refusal.answer()
        response = web.Response(
            status=answer.status, body=answer.body, headers={"Content-Type": answer.kind, **answer.headers}
        )
        if answer.status >= 400 and not request.content.at_eof():
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            health = {"status": "ok", "waiting": len(self._inbox), "refused": dict(self._sieve.refused)}
            return Answer(200, json.dumps(health).encode())
        if request.path != self.path:
            raise Refusal(404, "path", f"nothing is here: POST to {self.path}, or GET /health")
        if request.method != "POST":
            raise Refusal(405, "method", f"{request.method[:20]} is of no use here: POST to {self.path}")
        if "Origin" in request.headers:
            raise Refusal(403, "origin", "web pages may not send readings")
        if self._token is not None and not _shows(request.headers.get("Authorization", ""), self._token):
            raise Refusal(401, "token", "send the header Authorization: Bearer TOKEN, with the token of this source")
        if request.content_type not in self.kinds:
            kind = request.content_type[:80]
            raise Refusal(415, "type", f"{kind} is not understood: send Content-Type {' or '.join(self.kinds)}")
        body, packed = await self._body(request)
        async with self._parsing:
            if packed:
                body = await asyncio.to_thread(inflate, body)
            return await self.take(Post(request.content_type, body))

    async def _body(self, request: web.BaseRequest) -> tuple[bytes, bool]:
        """As it was sent, and whether it is compressed."""
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", *COMPRESSED):
            raise Refusal(415, "type", f"the encoding {encoding[:40]!r} is not understood: send gzip, or none")
        body = bytearray()
        try:
            async with asyncio.timeout(self._read_s):
                async for chunk in request.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise Refusal(
                            413, "size", f"the body is longer than {MAX_BODY_BYTES:,} bytes: send it in parts"
                        )
        except TimeoutError:
            raise Refusal(408, "time", f"the body did not come within {self._read_s:g} s") from None
        except (web.RequestPayloadError, ConnectionError, ValueError) as error:
            raise Refusal(400, "body", f"the body breaks off: {type(error).__name__}") from None
        return bytes(body), encoding in COMPRESSED


def inflate(body: bytes) -> bytes:
    """Gzip or zlib, inflated. Raises Refusal for what is none, and for one that gives more than MAX_BODY_BYTES."""
    inflater = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        whole = inflater.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise Refusal(400, "body", f"the body is no gzip and no deflate: {error}") from None
    if len(whole) > MAX_BODY_BYTES:
        raise Refusal(413, "size", f"the body is longer than {MAX_BODY_BYTES:,} bytes when inflated: send it in parts")
    if not inflater.eof:
        raise Refusal(400, "body", "the body is compressed, and breaks off")
    return whole


def check_json(body: bytes) -> None:
    """Raises Refusal for JSON of so many parts that the objects made of them would fill the memory."""
    if sum(map(body.count, (b"{", b"[", b","))) > MAX_JSON_PARTS:
        raise too_many()


def too_many() -> Refusal:
    return Refusal(413, "size", f"this is more than {MAX_ELEMENTS:,} readings at once: send them in parts")


def _shows(header: str, token: str) -> bool:
    scheme, _, shown = header.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        shown.strip().encode(errors="surrogatepass"), token.encode()
    )


class _Busy(asyncio.Protocol):
    """What a connection above the limit meets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
