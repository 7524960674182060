"""The server that strangers send to: what it takes in, what it refuses, and what no attack gets from it."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from chimera.anomaly.sources import http_push, serving
from chimera.anomaly.sources.http_push import HttpSource
from chimera.anomaly.sources.source import SourceOptions
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError
from chimera.core.watching import Reading

NOW = 1_700_000_000.0

LINES = "application/x-ndjson"


@pytest.fixture
async def source() -> AsyncIterator[HttpSource]:
    options = SourceOptions(max_queued=100)
    async with HttpSource(port=0, options=options, clock=ManualClock(NOW), read_s=0.5) as opened:
        yield opened


async def post(
    source: HttpSource, body: bytes, kind: str = "application/json", **headers: str
) -> tuple[int, dict[str, Any]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(source.address or "", data=body, headers={"Content-Type": kind, **named}) as response,
    ):
        answer = json.loads(await response.read())
        return response.status, {**answer, "retry_after": response.headers.get("Retry-After")}


async def taken(source: HttpSource) -> list[Reading]:
    await source.__aexit__()
    return [reading for batch in [batch async for batch in source.batches()] for reading in batch]


def parts(source: HttpSource) -> tuple[str, int]:
    address = urlsplit(source.address or "")
    return str(address.hostname), address.port or 0


async def test_an_object_an_array_and_lines_are_taken(source: HttpSource) -> None:
    assert (await post(source, b'{"metric": "a", "value": 1}'))[0] == 202
    array = b'[{"metric": "b", "timestamp": "2023-11-14T22:13:20Z", "value": 2}, {"metric": "c", "value": 3.5}]'
    assert (await post(source, array))[1]["accepted"] == 2
    assert (await post(source, b'\n{"metric": "d", "timestamp": 5, "value": 4}\n\n', LINES))[1]["accepted"] == 1
    assert await taken(source) == [
        Reading("a", NOW, 1.0),
        Reading("b", NOW, 2.0),
        Reading("c", NOW, 3.5),
        Reading("d", 5.0, 4.0),
    ]


async def test_null_is_a_reading_that_is_missing(source: HttpSource) -> None:
    assert (await post(source, b'{"metric": "a", "value": null}'))[0] == 202
    (reading,) = await taken(source)
    assert math.isnan(reading.value)


async def test_the_answer_names_each_line_that_is_wrong_and_nothing_is_taken(source: HttpSource) -> None:
    lines = [
        b'{"metric": "a", "value": 1}',
        b"{",
        b'{"metric": "", "value": 1}',
        b'{"metric": "a", "value": "1"}',
        b'{"metric": "a", "value": true}',
        b'{"metric": "a", "value": 1, "timestamp": 1e999}',
        b'{"metric": "a", "value": 1, "timestamp": "soon"}',
        b'{"metric": "a", "value": 1, "colour": "red"}',
        b'"text"',
        b'{"metric": "a", "value": ' + b"9" * 400 + b"}",
        b'{"metric": "\\ud800", "value": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
    ]
    status, answer = await post(source, b"\n".join(lines), LINES)
    assert status == 400 and answer["error"]["reason"] == "json"
    assert [(fault["line"], fault["reason"]) for fault in answer["error"]["faults"]] == [
        (2, "json"),
        (3, "name"),
        (4, "value"),
        (5, "value"),
        (6, "timestamp"),
        (7, "timestamp"),
        (8, "field"),
        (9, "field"),
        (10, "value"),
        (11, "name"),
        (12, "json"),
        (13, "json"),
    ]
    assert source.refused == {"json": 3, "name": 2, "value": 3, "timestamp": 2, "field": 2}
    assert await taken(source) == []


async def test_faults_are_all_counted_and_twenty_are_named(source: HttpSource) -> None:
    status, answer = await post(source, b"[" + b",".join([b"7"] * 1_000) + b"]")
    assert status == 400 and len(answer["error"]["faults"]) == 20 and "999 more" in answer["error"]["message"]
    assert source.refused == {"field": 1_000}


async def test_a_full_queue_says_when_to_come_again_and_takes_all_or_none(source: HttpSource) -> None:
    def some(count: int) -> bytes:
        return json.dumps([{"metric": "a", "value": at} for at in range(count)]).encode()

    assert (await post(source, some(101)))[0] == 413
    assert (await post(source, some(60)))[0] == 202
    status, answer = await post(source, some(60))
    assert (status, answer["error"]["reason"], answer["retry_after"]) == (429, "overloaded", "1")
    assert len(await anext(source.batches())) == 60  # type: ignore[arg-type]
    assert (await post(source, some(60)))[0] == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "http://evil.example"}, 403), ({"Content_Encoding": "br"}, 415), ({"Content_Encoding": "gzip"}, 400)],
)
async def test_what_no_program_of_ours_sends_is_refused(
    source: HttpSource, headers: dict[str, str], status: int
) -> None:
    assert (await post(source, b'{"metric": "a", "value": 1}', **headers))[0] == status
    assert await taken(source) == []


async def test_a_form_of_a_web_page_is_refused(source: HttpSource) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert (await post(source, b'{"metric": "a", "value": 1}', kind))[0] == 415
    assert await taken(source) == []


async def test_health_and_other_paths(source: HttpSource) -> None:
    host, port = parts(source)
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        async with session.get("/health") as response:
            assert (response.status, (await response.json())["status"]) == (200, "ok")
        async with session.get("/readings") as response:
            assert response.status == 405
        async with session.post("/elsewhere") as response:
            assert response.status == 404


async def test_with_a_token_only_who_has_it_may_send(monkeypatch: pytest.MonkeyPatch) -> None:
    options = SourceOptions(token_env="READINGS_TOKEN")
    monkeypatch.delenv("READINGS_TOKEN", raising=False)
    with pytest.raises(InputError, match="READINGS_TOKEN"):
        HttpSource(port=0, options=options)
    monkeypatch.setenv("READINGS_TOKEN", "s3cret")
    async with HttpSource(port=0, options=options) as source:
        body = b'{"metric": "a", "value": 1}'
        assert (await post(source, body))[0] == 401
        assert (await post(source, body, Authorization="Bearer wrong"))[0] == 401
        assert (await post(source, body, Authorization="Bearer s3cret"))[0] == 202
        reader, writer = await asyncio.open_connection(*parts(source))
        writer.write(b"POST /readings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
        assert source.refused == {"token": 3}


async def test_gzip_is_inflated_and_a_bomb_is_not(source: HttpSource) -> None:
    packed = gzip.compress(b'{"metric": "a", "value": 1}')
    assert (await post(source, packed, Content_Encoding="gzip"))[0] == 202
    assert (await post(source, packed[:-9], Content_Encoding="gzip"))[0] == 400
    bomb = gzip.compress(b" " * 200_000_000, 9)
    assert len(bomb) < 300_000
    tracemalloc.start()
    status, _ = await post(source, bomb, Content_Encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status == 413 and peak < 4 * serving.MAX_BODY_BYTES


@pytest.mark.parametrize("element", [b"{}", b"[]", b"7", b'{"a":7}'])
@pytest.mark.parametrize("kind", ["application/json", LINES])
async def test_an_array_of_millions_is_refused_before_it_is_made(source: HttpSource, element: bytes, kind: str) -> None:
    body = b"[" + b",".join([element] * (8_000_000 // (len(element) + 1))) + b"]"
    packed = gzip.compress(body)
    tracemalloc.start()
    status, _ = await post(source, packed, kind, Content_Encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status == 413 and source.refused == {"size": 1} and peak < 4 * serving.MAX_BODY_BYTES


@pytest.mark.parametrize("kind", ["application/json", LINES])
async def test_elements_have_a_limit(source: HttpSource, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_push, "MAX_ELEMENTS", 10)
    for count, status in ((10, 202), (11, 413)):
        some = [b'{"metric": "a", "value": 1}'] * count
        body = b"\n".join(some) if kind == LINES else b"[" + b",".join(some) + b"]"
        assert (await post(source, body, kind))[0] == status
    assert len(await taken(source)) == 10


async def test_two_requests_are_read_at_once_and_never_on_the_loop(
    source: HttpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[threading.Thread] = []
    most = 0

    def slowly(item: Any, now: float) -> Any:
        nonlocal most
        busy.append(threading.current_thread())
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(0.02)
        most = max(most, len(busy))
        busy.pop()
        return raw(item, now)

    raw = http_push._raw
    monkeypatch.setattr(http_push, "_raw", slowly)
    body = b"[" + b",".join([b'{"metric": "a", "value": 1}'] * 4) + b"]"
    answers = await asyncio.gather(*(post(source, body) for _ in range(8)))
    assert {status for status, _ in answers} == {202} and most <= 2


async def test_a_body_too_long_is_refused_before_it_is_whole(source: HttpSource) -> None:
    reader, writer = await asyncio.open_connection(*parts(source))
    writer.write(b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    for _ in range(serving.MAX_BODY_BYTES // 0x100000 + 1):
        writer.write(chunk)
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /readings HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n[",
    ],
    ids=["silent", "headers", "body"],
)
async def test_who_sends_a_byte_now_and_then_is_cut_off(source: HttpSource, beginning: bytes) -> None:
    reader, writer = await asyncio.open_connection(*parts(source))
    writer.write(beginning)

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"1" if beginning else b"")

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(20):
        try:
            while await reader.read(1_000):
                pass
        except ConnectionError:
            pass
    dripping.cancel()
    assert (await post(source, b'{"metric": "a", "value": 1}'))[0] == 202


async def test_connections_have_a_limit_and_those_that_are_cut_off_make_room(
    source: HttpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 5)
    idle = [await asyncio.open_connection(*parts(source)) for _ in range(5)]
    reader, _ = await asyncio.open_connection(*parts(source))
    ends = [asyncio.create_task(waiting.read(1)) for waiting, _ in idle]
    assert await reader.read(1) == b""
    assert not any(end.done() for end in ends)
    async with asyncio.timeout(20):
        assert await asyncio.gather(*ends) == [b""] * 5
    assert (await post(source, b'{"metric": "a", "value": 1}'))[0] == 202
    for _, writer in idle:
        writer.close()


async def test_a_million_names_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from chimera.anomaly.sources import intake

    monkeypatch.setattr(intake, "MAX_KNOWN", 1_000)
    async with HttpSource(port=0) as source:
        for start in range(0, 50_000, 10_000):
            lines = "\n".join(f'{{"metric":"n{at}","value":1}}' for at in range(start, start + 10_000))
            assert (await post(source, lines.encode(), LINES))[0] == 202
            assert len(await anext(source.batches())) == 10_000  # type: ignore[arg-type]
            assert len(source._sieve._known) <= 1_000
