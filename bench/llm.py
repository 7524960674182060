"""What a call of a language model costs here: calls a second and core, beside the bare SDK and beside bare HTTP.

    python -m bench.llm [--calls 1000] [--rounds 5] [--in-flight 32] [--agents 2000] [--json]

The same request, over loopback, to a small server in another process that has its answer ready: so what is measured is
the way there and back, of which a real model's seconds would show nothing. The ways take turns in each round. CPU time
of this process counts; `ratio` is the median over rounds of a way's calls a second by the bare SDK's of that round.
`failover_ms` is what a call takes, by the clock, whose first route's connection is refused. `agents` are the ways again
with so many agents at once, as a cell has them: each makes a call, by a handle of its own
(`shared_model`) on the one pool of connections that all have; the bare ways have one client of the same limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from chimera.core.clock import SystemClock
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.pool import close_shared, shared_model
from chimera.llm.router import Route, Router

QUESTION = "What is the answer? " * 20

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content=QUESTION),), max_tokens=256)

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 256,
    "temperature": 0.0,
    "stream": False,
}

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Forty-two. " * 40}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 120, "total_tokens": 220},
    }
).encode()

Ask = Callable[[], Awaitable[object]]

SDK = "bare openai SDK"

CONNECTIONS = 100
"""In each way's pool: with many more in use at once, `httpx2`'s own search for a free one would be all one sees."""


@dataclass(frozen=True)
class Cost:
    """A way to ask. `calls_per_s` is by CPU time, the median over rounds."""

    way: str
    calls_per_s: int
    ms_a_call: float
    ratio: float


class Server(asyncio.Protocol):
    """Answers each request with ANSWER, and keeps the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            headers = self._got[:end].lower()
            length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._got) < end + 4 + length:
                return
            self._got = self._got[end + 4 + length :]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
            self._transport.write(head.encode() + ANSWER)


def serve(told: Connection) -> None:
    """Tell the port, and serve until the other end is closed."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        with suppress(EOFError):
            await asyncio.to_thread(told.recv)

    asyncio.run(run())


async def cpu_s(ask: Ask, calls: int, in_flight: int) -> float:
    """CPU seconds that so many calls take, so many at a time."""
    left = iter(range(calls))

    async def go_on() -> None:
        for _ in left:
            await ask()

    started = time.process_time()
    await asyncio.gather(*(go_on() for _ in range(in_flight)))
    return time.process_time() - started


async def measure_agents(url: str, *, agents: int, rounds: int) -> list[Cost]:
    """The cost of each way with so many agents at once."""
    import httpx2
    import openai

    def opens(name: str) -> ChatModel:
        return OpenAIProvider(name, model="m", base_url=url, connections=CONNECTIONS)

    async with AsyncExitStack() as stack:
        limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        http, own = [await stack.enter_async_context(httpx2.AsyncClient(limits=limits, timeout=60.0)) for _ in range(2)]
        sdk = openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0, http_client=own)
        stack.push_async_callback(close_shared)
        ways: dict[str, Ask] = {
            "bare httpx2": lambda: http.post(f"{url}/chat/completions", json=BODY),
            SDK: lambda: sdk.chat.completions.create(**BODY),
            "port, shared": lambda: shared_model("m", open=opens).chat(REQUEST),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for ask in ways.values():
            await cpu_s(ask, 2 * CONNECTIONS, CONNECTIONS)  # connections are opened
        for _ in range(rounds):
            for way, ask in ways.items():
                took[way].append(await cpu_s(ask, agents, agents))
    return [_cost(way, took, agents) for way in ways]


async def failover_ms(url: str) -> float:
    """What a call takes whose first route's connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        models = [OpenAIProvider(name, model="m", base_url=at) for name, at in (("dead", dead), ("live", url))]
        async with Router([Route(model) for model in models], clock=SystemClock(), rng=random.Random(0)) as router:
            took = []
            for _ in range(4):  # after five the dead one would not be asked
                started = time.perf_counter()
                await router.chat(REQUEST)
                took.append(1e3 * (time.perf_counter() - started))
    return statistics.median(took)


async def measure(url: str, *, calls: int, rounds: int, in_flight: int) -> tuple[list[Cost], float]:
    """The cost of each way, and the fail-over's milliseconds."""
    import httpx2
    import openai

    async with AsyncExitStack() as stack:
        limits = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)
        http = await stack.enter_async_context(httpx2.AsyncClient(limits=limits))
        own = await stack.enter_async_context(httpx2.AsyncClient(limits=limits))
        sdk = openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0, http_client=own)
        port = await stack.enter_async_context(OpenAIProvider("port", model="m", base_url=url))
        routes = [
            Route(OpenAIProvider(name, model="m", base_url=url), max_concurrent=in_flight, start_concurrent=in_flight)
            for name in ("first", "second")
        ]
        router = await stack.enter_async_context(Router(routes, clock=SystemClock(), rng=random.Random(0)))

        async def bare() -> object:
            response = await http.post(f"{url}/chat/completions", json=BODY)
            return response.json()["choices"][0]["message"]["content"]

        ways: dict[str, Ask] = {
            "bare httpx2": bare,
            SDK: lambda: sdk.chat.completions.create(**BODY),
            "port": lambda: port.chat(REQUEST),
            "port and router": lambda: router.chat(REQUEST),
        }
        for ask in ways.values():
            await cpu_s(ask, max(1, calls // 5), in_flight)  # connections, imports and caches are there
        took: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, ask in ways.items():
                took[way].append(await cpu_s(ask, calls, in_flight))
        return [_cost(way, took, calls) for way in ways], await failover_ms(url)


def _cost(way: str, took: dict[str, list[float]], calls: int) -> Cost:
    middle = statistics.median(took[way])
    ratio = statistics.median(sdk / own for own, sdk in zip(took[way], took[SDK], strict=True))
    return Cost(way, round(calls / middle), round(1e3 * middle / calls, 3), round(ratio, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000, help="of each way, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--agents", type=int, default=2_000, help="at once, for `agents`; 0: without them")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=serve, args=(there,), daemon=True)
    server.start()
    there.close()
    try:
        url = f"http://127.0.0.1:{here.recv()}/v1"
        costs, failover = asyncio.run(
            measure(url, calls=options.calls, rounds=options.rounds, in_flight=options.in_flight)
        )
        crowd = asyncio.run(measure_agents(url, agents=options.agents, rounds=2)) if options.agents else []
    finally:
        here.close()
        server.join(5)
        server.kill()
    if options.json:
        ways, agents = ([asdict(cost) for cost in some] for some in (costs, crowd))
        print(json.dumps({"ways": ways, "failover_ms": round(failover, 2), "agents": agents}))
        return
    for title, some in ((f"{options.in_flight} in flight", costs), (f"{options.agents:,} agents at once", crowd)):
        print(f"{title:21} calls/s a core   ms a call   by the SDK" if some else "")
        for cost in some:
            print(f"{cost.way:20} {cost.calls_per_s:15,} {cost.ms_a_call:11.3f} {cost.ratio:11.2f}x")
    print(f"a call whose first route refuses the connection: {failover:.1f} ms")


if __name__ == "__main__":
    main()
