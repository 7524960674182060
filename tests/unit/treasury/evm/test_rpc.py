"""The node over JSON-RPC: what differs between chains, and what no message shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chimera.core.errors import ChainError, InputError
from chimera.treasury.evm.rpc import RpcChain

BLOCK = {
    "number": "0x10",
    "hash": "0x" + "ab" * 32,
    "parentHash": "0x" + "cd" * 32,
    "baseFeePerGas": "0x6fc23ac00",
    "extraData": "0x" + "00" * 97,
    "timestamp": "0x1",
}
"""Of Polygon: its validators' signatures are in the extra data, which Ethereum's 32 bytes could not hold."""


class Node(BaseHTTPRequestHandler):
    """Answers every question with the same block, or fails the first times."""

    fails = 0

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Node.fails:
            Node.fails -= 1
            self.connection.close()
            return
        answer = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": BLOCK}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def node() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


async def test_a_block_of_polygon_is_read(node: str) -> None:
    chain = RpcChain(url=node, chain_id=137)
    head = await chain.head()
    assert (head.number, head.base_fee) == (16, 30 * 10**9)
    await chain.close()


async def test_what_only_reads_is_asked_again_a_few_times(node: str) -> None:
    chain = RpcChain(url=node, chain_id=137)
    Node.fails = 2
    assert (await chain.head()).number == 16
    Node.fails = 100
    with pytest.raises(ChainError, match="does not answer"):
        await chain.head()
    assert Node.fails >= 90
    Node.fails = 0
    await chain.close()


@pytest.mark.parametrize("url", ["ws://127.0.0.1", "127.0.0.1:8545", "file:///etc/passwd"])
def test_what_is_no_node_over_http_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no node"):
        RpcChain(url=url, chain_id=1)
