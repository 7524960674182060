"""Several targets, that come and go and fail, and what a real exporter serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, start_http_server

from chimera.anomaly.sources import scrape
from chimera.anomaly.sources.scrape import ScrapeSource
from chimera.anomaly.sources.source import SourceOptions
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, SourceError
from chimera.core.watching import Reading
from tests.servers import free_port

NOW = 1_700_000_000.0

FAST = SourceOptions(interval_s=0.05, timeout_s=2)


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """A host and port that serve `m 1` at /metrics, garbage at /garbage, 404 elsewhere."""

    async def answer(request: web.Request) -> web.Response:
        if request.path not in ("/metrics", "/garbage"):
            raise web.HTTPNotFound
        return web.Response(text="m 1\n" if request.path == "/metrics" else "<html>\n")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def until(source: ScrapeSource, *wanted: Reading) -> set[Reading]:
    found: set[Reading] = set()
    async with asyncio.timeout(30):
        async for batch in source.batches():
            found |= set(batch)
            if found >= set(wanted):
                break
    return found


async def test_one_target_keeps_its_names_and_several_are_told_apart(target: str) -> None:
    url, dead = f"http://{target}/metrics", f"http://127.0.0.1:{free_port()}/metrics"
    up, down = Reading(f'up{{target="{url}"}}', NOW, 1.0), Reading(f'up{{target="{dead}"}}', NOW, 0.0)
    async with ScrapeSource(url, options=FAST, clock=ManualClock(NOW)) as source:
        assert await until(source, up) == {up, Reading("m", NOW, 1.0)}
    async with ScrapeSource([url, dead], options=FAST, clock=ManualClock(NOW)) as source:
        found = await until(source, up, down)
        assert found == {up, down, Reading(f'm{{instance="{target}"}}', NOW, 1.0)}
        assert source.refused["target"] >= 1


async def test_targets_may_change_and_discovery_may_fail(target: str) -> None:
    first, second = f"http://{target}/metrics", f"http://{target}/missing"
    answers: list[object] = [[], OSError("no list"), [first, "not a url", 7, first], [second]]

    async def discover() -> list[str]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    async with ScrapeSource(discover, options=FAST, clock=ManualClock(NOW)) as source:
        gone = Reading(f'up{{target="{second}"}}', NOW, 0.0)
        found = await until(source, gone)
    assert found == {
        gone,
        Reading(f'up{{target="{first}"}}', NOW, 1.0),
        Reading(f'm{{instance="{target}"}}', NOW, 1.0),
    }
    assert source.refused["targets"] == 3


async def test_nothing_at_all_to_scrape_is_told_at_first_and_lived_with_later(target: str) -> None:
    for path, told in (("garbage", "not in Prometheus' text format"), ("missing", "status 404")):
        async with ScrapeSource(f"http://{target}/{path}", options=FAST) as source:
            with pytest.raises(SourceError, match=told):
                await until(source)
    async with ScrapeSource(f"http://127.0.0.1:{free_port()}/metrics", options=FAST) as source:
        with pytest.raises(SourceError, match="cannot be reached"):
            await until(source)


async def test_a_target_that_dies_is_down_and_comes_back() -> None:
    registry = CollectorRegistry()
    Counter("jobs", "done", registry=registry).inc(3)
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    up, down = Reading(f'up{{target="{url}"}}', NOW, 1.0), Reading(f'up{{target="{url}"}}', NOW, 0.0)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    async with ScrapeSource(url, options=FAST, clock=ManualClock(NOW)) as source, asyncio.timeout(60):
        seen: list[Reading] = []
        async for batch in source.batches():
            seen += batch
            if len(seen) == len(batch):
                assert Reading("jobs_total", NOW, 3.0) in batch
                await asyncio.to_thread(_stop, server)
            elif down in batch and server is not None:
                server, thread = start_http_server(port, "127.0.0.1", registry)
            if down in seen and batch[0] == up and seen.index(down) < len(seen) - len(batch):
                break
    await asyncio.to_thread(_stop, server)
    thread.join(10)


def _stop(server: object) -> None:
    server.shutdown()  # type: ignore[attr-defined]
    server.server_close()  # type: ignore[attr-defined]


async def test_a_slow_target_does_not_hold_up_the_others(target: str) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    slow = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = slow.sockets[0].getsockname()[1]
    url = f"http://{target}/metrics"
    options = SourceOptions(interval_s=0.05, timeout_s=60)
    async with ScrapeSource(
        [f"http://127.0.0.1:{port}/metrics", url], options=options, clock=ManualClock(NOW)
    ) as source:
        await until(source, Reading(f'up{{target="{url}"}}', NOW, 1.0))
    slow.close()


async def test_targets_have_a_limit(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(scrape, "MAX_TARGETS", 2)
    with pytest.raises(InputError, match="3 targets"):
        ScrapeSource(["http://a", "http://b", "http://c"])
    urls = [f"http://{target}/metrics{at}" for at in range(3)]
    async with ScrapeSource(lambda: urls, options=FAST, clock=ManualClock(NOW)) as source:
        found = await until(source, Reading(f'up{{target="{urls[1]}"}}', NOW, 0.0))
        assert f'up{{target="{urls[2]}"}}' not in {reading.metric for reading in found}
        assert source.refused["targets"] == 1


async def test_no_secret_is_shown_and_targets_that_differ_by_one_are_told_apart(target: str) -> None:
    urls = [
        f"http://me:s3cret@{target}/{path}?token=s3cret{at}" for at, path in enumerate(["metrics", "metrics", "no"])
    ]
    shown = [f'up{{target="http://{target}/{path}?...{more}"}}' for path, more in [("metrics", ""), ("metrics", "#2")]]
    async with ScrapeSource(urls, options=FAST, clock=ManualClock(NOW)) as source:
        found = await until(source, *(Reading(name, NOW, 1.0) for name in shown))
    assert "s3cret" not in f"{source.name}{found}"
    async with ScrapeSource(urls[2], options=FAST) as source:
        with pytest.raises(SourceError, match=r"/no\?\.\.\.: it answers with status 404") as told:
            await until(source, Reading("never", NOW, 1.0))
    assert "s3cret" not in f"{source.name}{told.value}"


async def test_a_server_that_speaks_no_http_does_not_bring_the_secret_out() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 what\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics?token=s3cret"
    async with ScrapeSource(url, options=FAST) as source:
        with pytest.raises(SourceError, match="metrics") as told:
            await until(source, Reading("never", NOW, 1.0))
    assert "s3cret" not in str(told.value)
    server.close()
