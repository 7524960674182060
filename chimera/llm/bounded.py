"""An HTTP client for servers that are not trusted: it reads so much of an answer, and tells them no more than it must.

Imported late: `httpx2` comes with the `openai` package.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import httpx2

from chimera.core.errors import ModelTooLong

CODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that describe a body as it travelled."""


class BoundedClient(httpx2.AsyncClient):
    """Follows no redirect, sends none of the headers `withheld`, and reads `max_bytes` of a body, unpacked.

    `send` raises ModelTooLong for a longer one, and what `httpx2.AsyncClient.send` raises.
    """

    def __init__(self, *, max_bytes: int, withheld: Collection[str], timeout_s: float) -> None:
        limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)
        super().__init__(timeout=timeout_s, limits=limits, follow_redirects=False)
        self._max_bytes = max_bytes
        self._withheld = withheld

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        for name in self._withheld:
            request.headers.pop(name, None)
        response = await super().send(request, **{**options, "stream": True})
        body = bytearray()
        try:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > self._max_bytes:
                    raise ModelTooLong(f"the answer has more than {self._max_bytes} bytes")
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in CODED]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)
