"""An HTTP client for servers that are not trusted: it reads so much of an answer, and tells them no more than it must.

Imported late: `httpx2` comes with the `openai` package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from chimera.core.errors import ModelTooLong

CODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that describe a body as it travelled."""

CONNECT_S = 15.0
"""To get through to a server at all. One that is switched off often does not even refuse; but where thousands of agents
begin at once, their loop is busy for seconds, and a server that has long answered is only then seen to have."""

CONNECTIONS = 1_000
"""At most, of one client, unless told otherwise. Who finds them all in use waits for half of the time-out."""


class BoundedClient(httpx2.AsyncClient):
    """Follows no redirect, keeps no cookie, sends none of the headers `withheld`, and reads `max_bytes` of a body,
    unpacked. `direct` is for a server on this machine: no proxy of the environment is told what it is sent.

    Of one that is asked for as a stream it reads `max_stream_bytes`, which are more by default: each word of it travels
    in an envelope. `send`, and reading a stream, raise ModelTooLong for a longer one, and what
    `httpx2.AsyncClient.send` raises.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        withheld: Collection[str],
        timeout_s: float,
        max_stream_bytes: int | None = None,
        direct: bool = False,
        connections: int | None = None,
    ) -> None:
        most = CONNECTIONS if connections is None else connections
        super().__init__(
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=timeout_s / 2),
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            mounts={"http://": None, "https://": None} if direct else None,
        )
        self._max_bytes = max_bytes
        self._max_stream_bytes = 16 * max_bytes if max_stream_bytes is None else max_stream_bytes
        self._withheld = withheld

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        for name in self._withheld:
            request.headers.pop(name, None)
        request.extensions["timeout"] = self.timeout.as_dict()  # the packages' own know of no shorter one to connect
        streamed = bool(options.get("stream"))
        response = await super().send(request, **{**options, "stream": True})
        body = _Bounded(response, self._max_stream_bytes if streamed else self._max_bytes)
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in CODED]
        if streamed:
            return httpx2.Response(response.status_code, headers=headers, stream=body, request=request)
        try:
            content = b"".join([part async for part in body])
        finally:
            await body.aclose()
        return httpx2.Response(response.status_code, headers=headers, content=content, request=request)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._response.aiter_bytes():
            size += len(part)
            if size > self._max_bytes:
                raise ModelTooLong(f"the answer has more than {self._max_bytes} bytes")
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
