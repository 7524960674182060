"""A client that is pointed at something else than a node is told so."""

from __future__ import annotations

import httpx2
import pytest

from chimera.core.errors import ClusterError
from chimera.http_client.transport import Transport


@pytest.mark.parametrize("page", [b"<!doctype html><p>Welcome", b"{", b"\xff\xfe"])
async def test_a_page_of_another_server_is_no_answer(page: bytes) -> None:
    other = httpx2.MockTransport(lambda request: httpx2.Response(200, content=page))
    transport = Transport("http://127.0.0.1:8700", "token", transport=other)
    try:
        with pytest.raises(ClusterError, match="no node: its answer is not JSON"):
            await transport.get("/api/swarm")
    finally:
        await transport.close()
