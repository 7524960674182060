"""What every source of readings does: what is sent by its own protocol comes out as the same readings."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
from aiohttp import web

from chimera.anomaly.sources.opening import PushSource, SourceOptions, open_source
from chimera.anomaly.sources.source import MAX_BATCH, Source
from chimera.core.clock import ManualClock
from chimera.core.errors import SourceError
from chimera.core.watching import Reading

NOW = 1_700_000_000.0

SENT = [
    Reading("m_a", NOW, 1.5),
    Reading("m_b", NOW, -2.0),
    Reading("m_big", NOW, 1e308),
    Reading("m_zero", NOW, 0.0),
]

OPTIONS = SourceOptions(metrics=("m_*",), queries=("m",), interval_s=0.05, history_s=0)

NAMES = ["csv", "http", "otlp", "prometheus", "push", "scrape", "statsd"]

Send = Callable[[Sequence[Reading]], Awaitable[None]]
SendGarbage = Callable[[], Awaitable[None]]

Wire = tuple[Source, Send, SendGarbage]


def clock() -> ManualClock:
    return ManualClock(NOW)


@asynccontextmanager
async def csv_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    path = tmp_path / "readings.csv"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)

    async def write(data: bytes) -> None:
        await asyncio.to_thread(_write_all, pipe, data)

    async def send(readings: Sequence[Reading]) -> None:
        rows = "".join(f"{r.timestamp},{r.metric},{r.value!r}\r\n" for r in readings)
        await write(("time,metric,value\n" + rows).encode())

    async def garbage() -> None:
        await write(b"\xff\xfe\x00\n1,2\nx,m_a,1\n1e999,m_a,1\n1,m_a,one\n1,,1\n" + b'"\n' * 3)

    try:
        yield open_source(str(path), options=OPTIONS), send, garbage
    finally:
        os.close(pipe)


def _write_all(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


@asynccontextmanager
async def http_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    source = open_source("http:127.0.0.1:0", options=OPTIONS, clock=clock())

    async def send(readings: Sequence[Reading]) -> None:
        lines = "\n".join(json.dumps(r._asdict()) for r in readings)
        assert await post(source, "/readings", lines.encode(), "application/x-ndjson") == 202

    async def garbage() -> None:
        for body in (b"\xff\x00", b"[" * 100_000, b'{"metric":"","value":1}', b'[{"metric":"m_a","value":1},7]'):
            assert await post(source, "/readings", body, "application/json") == 400
        await raw_bytes(source, b"\x16\x03\x01 no http at all\r\n\r\n")

    yield source, send, garbage


@asynccontextmanager
async def otlp_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    source = open_source("otlp:127.0.0.1:0", options=OPTIONS, clock=clock())

    async def send(readings: Sequence[Reading]) -> None:
        metrics = [
            {
                "name": r.metric,
                "gauge": {"dataPoints": [{"timeUnixNano": str(int(r.timestamp * 1e9)), "asDouble": r.value}]},
            }
            for r in readings
        ]
        body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
        assert await post(source, "/v1/metrics", json.dumps(body).encode(), "application/json") == 200

    async def garbage() -> None:
        for kind in ("application/json", "application/x-protobuf"):
            assert await post(source, "/v1/metrics", b"\xff\x00 garbage" * 100, kind) == 400
        await raw_bytes(source, b"POST /v1/metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n")

    yield source, send, garbage


@asynccontextmanager
async def push_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    source = PushSource(options=OPTIONS)

    async def send(readings: Sequence[Reading]) -> None:
        await source.push(readings)

    async def garbage() -> None:
        await source.push([("", NOW, 1.0), (7, NOW, 1.0), ("m_a", float("inf"), 1.0), ("m_a", NOW, "one")])
        await source.push([None, 7, (), ("m_a",), ("m_a", NOW, 1.0, 1.0)])  # type: ignore[list-item]

    yield source, send, garbage


@asynccontextmanager
async def prometheus_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    vector: list[object] = []

    async def answer(request: web.Request) -> web.Response:
        assert (await request.post())["query"] == "m"
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": vector}})

    async def send(readings: Sequence[Reading]) -> None:
        vector[:] = [{"metric": {"__name__": r.metric}, "value": [r.timestamp, repr(r.value)]} for r in readings]

    async def garbage() -> None:
        vector[:] = [
            {"metric": {"__name__": "m_a"}, "value": value}
            for value in (None, [], ["x", "1"], [1, "one"], [1, "1", 1], {"a": 1})
        ]

    async with serve({"/api/v1/query": answer}) as url:
        time = Ticking()
        yield open_source(f"prometheus:{url}", options=OPTIONS, clock=time), send, garbage


class Ticking(ManualClock):
    """Every look at it is an interval later, so that there always is something new to ask for."""

    def __init__(self) -> None:
        super().__init__(NOW)

    def now(self) -> float:
        self.advance(0.05)
        return super().now()


@asynccontextmanager
async def scrape_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    page = [b""]

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=page[0], content_type="text/plain")

    async def send(readings: Sequence[Reading]) -> None:
        page[0] = "".join(f"{r.metric} {r.value!r}\n" for r in readings).encode()

    async def garbage() -> None:
        page[0] = b'\xff\xfe{\nm_a\nm_a one\nm_a{x="1 2\n{} 3\n' + b"m" * 10_000 + b" 1\nm_a " + b"9" * 500 + b"\n"

    async with serve({"/metrics": answer}) as url:
        yield open_source(f"scrape:{url}/metrics", options=OPTIONS, clock=clock()), send, garbage


@asynccontextmanager
async def statsd_wire(tmp_path: Path) -> AsyncIterator[Wire]:
    source = open_source("statsd:127.0.0.1:0", options=OPTIONS, clock=clock())

    async def send(readings: Sequence[Reading]) -> None:
        for start in range(0, len(readings), 100):
            some = readings[start : start + 100]
            # a sign makes it a change, so a negative gauge begins at 0
            await datagram(source, "\n".join(f"{r.metric}:0|g\n{r.metric}:{r.value!r}|g" for r in some).encode())

    async def garbage() -> None:
        for packet in (b"\xff\xfe", b"m_a", b"m_a:|g", b"m_a:1", b"m_a:1|zz", b":1|g", b"m_a:nan|g", b"m_a:1|c|@0"):
            await datagram(source, packet)

    yield source, send, garbage


WIRES = {
    "csv": csv_wire,
    "http": http_wire,
    "otlp": otlp_wire,
    "prometheus": prometheus_wire,
    "push": push_wire,
    "scrape": scrape_wire,
    "statsd": statsd_wire,
}


@pytest.fixture(params=NAMES)
async def wire(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    async with WIRES[request.param](tmp_path) as made, asyncio.timeout(60):
        yield made


@asynccontextmanager
async def serve(routes: dict[str, Callable[[web.Request], Awaitable[web.Response]]]) -> AsyncIterator[str]:
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def post(source: Source, path: str, body: bytes, kind: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(urljoin(source.address or "", path), data=body, headers={"Content-Type": kind}) as response,
    ):
        return response.status


async def raw_bytes(source: Source, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*host_port(source))
    writer.write(data)
    answer = await reader.read(1_000)
    writer.close()
    return answer


async def datagram(source: Source, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, host_port(source))
    await asyncio.sleep(0)


def host_port(source: Source) -> tuple[str, int]:
    address = urlsplit(source.address or "")
    return str(address.hostname), address.port or 0


class Watcher:
    """Opens a source and iterates it in a task of its own, from beginning to end."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[Reading] = []
        self.largest = 0
        self.ended = False

    async def __aenter__(self) -> Watcher:
        await self.source.__aenter__()
        self.task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.source.__aexit__(*exc)
        await self.task
        self.ended = True

    async def until(self, fact: Callable[[], bool]) -> None:
        while not fact():
            assert not self.task.done() or self.task.result() is not None
            await asyncio.sleep(0.01)

    async def _watch(self) -> None:
        async for batch in self.source.batches():
            self.largest = max(self.largest, len(batch))
            self.found += batch

    def names(self) -> set[str]:
        return {reading.metric for reading in self.found}


def refusals(source: Source) -> int:
    return sum(source.refused.values())


async def test_what_is_sent_comes_out_and_what_nobody_asked_for_does_not(wire: Wire) -> None:
    source, send, _ = wire
    await before(source, send, [*SENT, Reading("unasked", NOW, 7.0)])
    async with Watcher(source) as watcher:
        await after(source, send, [*SENT, Reading("unasked", NOW, 7.0)])
        await watcher.until(lambda: len(watcher.found) >= len(SENT))
        assert set(watcher.found) == set(SENT)
        assert refusals(source) == 0


async def test_garbage_changes_what_is_refused_and_nothing_else(wire: Wire) -> None:
    source, send, garbage = wire
    await before(source, send, SENT)
    async with Watcher(source) as watcher:
        await after(source, send, SENT)
        await watcher.until(lambda: watcher.names() == {reading.metric for reading in SENT})
        assert refusals(source) == 0
        await garbage()
        await watcher.until(lambda: refusals(source) > 0)
        watcher.found.clear()
        await send(SENT)
        await watcher.until(lambda: watcher.names() == {reading.metric for reading in SENT})
        assert set(watcher.found) == set(SENT)


async def test_to_close_ends_the_iteration_in_the_middle_of_waiting(wire: Wire) -> None:
    source, send, _ = wire
    await before(source, send, SENT)
    async with Watcher(source) as watcher:
        await asyncio.sleep(0.1)
        assert not watcher.task.done()
    assert watcher.ended


async def test_a_closed_source_gives_nothing_more(wire: Wire) -> None:
    source, send, _ = wire
    await before(source, send, SENT)
    async with source:
        pass
    assert [batch async for batch in source.batches()] == []


async def test_to_finish_hands_out_what_was_taken_in_and_ends(wire: Wire) -> None:
    source, send, _ = wire
    await before(source, send, SENT)
    async with Watcher(source) as watcher:
        await after(source, send, SENT)
        await watcher.until(lambda: watcher.names() == {reading.metric for reading in SENT})
        source.finish()
        source.finish()
        await watcher.task
        assert set(watcher.found) == set(SENT)


@pytest.mark.parametrize(("kind", "path"), [("http", "/readings"), ("otlp", "/v1/metrics")])
async def test_who_posts_after_the_end_is_refused_and_who_posted_before_is_not_lost(kind: str, path: str) -> None:
    async with WIRES[kind](Path()) as (source, send, _), source:
        await send(SENT)
        source.finish()
        with pytest.raises(AssertionError, match="503"):
            await send(SENT)
        assert (source.address or "").endswith(path) and source.refused == {"closed": 1}
        assert [reading for batch in [each async for each in source.batches()] for reading in batch] == SENT


async def test_only_who_listens_has_an_address_and_only_while_open(wire: Wire) -> None:
    source, send, _ = wire
    assert source.address is None
    await before(source, send, SENT)
    async with source:
        scheme = {"statsd": "udp", "http": "http", "otlp": "http"}.get(source.name.partition(":")[0], "")
        assert (source.address or "").partition(":")[0] == scheme


async def test_a_batch_has_its_limit_and_nothing_is_lost_by_it(wire: Wire) -> None:
    source, send, _ = wire
    many = [Reading(f"m_{at}", NOW, float(at)) for at in range(9_999 if "statsd" in source.name else 25_000)]
    await before(source, send, many)
    async with Watcher(source) as watcher:
        await after(source, send, many)
        await watcher.until(lambda: len(watcher.names()) == len(many))
        assert set(watcher.found) == set(many)
        assert watcher.largest <= MAX_BATCH


async def before(source: Source, send: Send, readings: Sequence[Reading]) -> None:
    """Who asks others finds at once what is there: it must be there before."""
    if source.name.startswith(("prometheus", "scrape")):
        await send(readings)


async def after(source: Source, send: Send, readings: Sequence[Reading]) -> None:
    if not source.name.startswith(("prometheus", "scrape")):
        await send(readings)


@pytest.mark.parametrize("kind", ["http", "otlp", "statsd"])
async def test_an_address_that_is_taken_is_told(kind: str) -> None:
    async with open_source(f"{kind}:127.0.0.1:0") as first:
        with pytest.raises(SourceError, match="cannot listen there"):
            async with open_source(first.name):
                pass


@pytest.mark.parametrize("kind", ["http", "otlp", "statsd"])
async def test_a_closed_address_is_free_again(kind: str) -> None:
    async with open_source(f"{kind}:127.0.0.1:0") as first:
        address = first.address
    async with open_source(first.name) as second:
        assert second.address == address
