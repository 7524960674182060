"""A Prometheus server asked for its past and its present: its API as documented, and a real one where there is one."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from chimera.anomaly.sources import prometheus
from chimera.anomaly.sources.prometheus import PrometheusSource
from chimera.anomaly.sources.prometheus_api import read_answer
from chimera.anomaly.sources.source import SourceOptions
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, QueryRefused, SourceError
from chimera.core.watching import Reading
from tests.servers import free_port

NOW = 1_700_000_000.0


class Api:
    """The query API over one series, `x{a="1"}`, whose value is the time; a new one every second."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tokens: set[str | None] = set()
        self.series = 1
        self.down = False
        self.asked_while_down = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked.append((request.path.rpartition("/")[2], form))
        self.tokens.add(request.headers.get("Authorization"))
        if self.down:
            self.asked_while_down.set()
            return web.Response(status=503, text="<html>down</html>")
        if form["query"] == "bad(":
            error = {"status": "error", "errorType": "bad_data", "error": "1:5: parse error: unclosed left parenthesis"}
            return web.json_response(error, status=400)
        named = [{"__name__": "x", "a": str(at + 1)} for at in range(self.series)]
        if request.path.endswith("query"):
            stamp = float(form["time"])
            result = [{"metric": labels, "value": [stamp, str(stamp)]} for labels in named]
            return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})
        start, end, step = (float(form[key]) for key in ("start", "end", "step"))
        stamps = [start + at * step for at in range(round((end - start) / step) + 1)]
        assert len(stamps) <= 11_000
        result = [{"metric": labels, "values": [[stamp, str(stamp)] for stamp in stamps]} for labels in named]
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    async with serving(api.answer) as api.url:
        yield api


@asynccontextmanager
async def serving(handler: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def take(source: PrometheusSource, count: int) -> list[Reading]:
    found: list[Reading] = []
    async with asyncio.timeout(30):
        async for batch in source.batches():
            found += batch
            if len(found) >= count:
                break
    return found


async def test_the_past_comes_first_in_pages_without_a_gap_or_a_repeat(api: Api) -> None:
    options = SourceOptions(queries=("x",), interval_s=1, history_s=25_000)
    async with PrometheusSource(api.url, options=options, clock=ManualClock(NOW)) as source:
        found = await take(source, 25_000)
    assert [reading.timestamp for reading in found] == [NOW - 25_000 + at for at in range(1, 25_001)]
    assert {reading.metric for reading in found} == {'x{a="1"}'}
    assert [path for path, _ in api.asked] == ["query", "query_range", "query_range", "query_range"]


async def test_a_page_has_fewer_points_where_there_are_many_series(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_PAGE_SAMPLES", 100)
    api.series = 10
    options = SourceOptions(queries=("x",), interval_s=1, history_s=40)
    async with PrometheusSource(api.url, options=options, clock=ManualClock(NOW)) as source:
        found = await take(source, 400)
    assert len(found) == 400 and [path for path, _ in api.asked].count("query_range") == 4
    assert [reading.timestamp for reading in found] == sorted(reading.timestamp for reading in found)


async def test_what_was_missed_while_it_was_down_is_asked_for_afterwards(api: Api) -> None:
    clock = ManualClock(NOW)
    options = SourceOptions(queries=("x",), interval_s=0.05, history_s=0)
    async with PrometheusSource(api.url, options=options, clock=clock) as source, asyncio.timeout(30):
        batches = source.batches()
        waiting = asyncio.ensure_future(anext(batches))
        clock.advance(0.05)
        assert [reading.timestamp for reading in await waiting] == [pytest.approx(NOW + 0.05)]
        api.down = True
        waiting = asyncio.ensure_future(anext(batches))
        clock.advance(1.0)
        await api.asked_while_down.wait()
        api.down = False
        stamps = [reading.timestamp for reading in await waiting]
        assert source.refused["unreachable"] >= 1
    assert stamps == [pytest.approx(NOW + 0.05 * at, abs=2e-3) for at in range(2, 22)]


async def test_a_query_that_is_wrong_is_told_in_prometheus_words(api: Api) -> None:
    with pytest.raises(SourceError, match=r"refuses 'bad\(': bad_data: 1:5: parse error: unclosed left parenthesis"):
        async with PrometheusSource(api.url, options=SourceOptions(queries=("bad(",))):
            pass


async def test_a_server_that_is_none_is_told(api: Api) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SourceError, match="cannot be reached"):
        await PrometheusSource(nobody, options=SourceOptions(queries=("x",))).__aenter__()
    api.down = True
    with pytest.raises(SourceError, match="status 503, and no answer of Prometheus' API"):
        await PrometheusSource(api.url, options=SourceOptions(queries=("x",))).__aenter__()


async def test_the_token_goes_to_prometheus_and_to_nobody_else(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROM_TOKEN", "s3cret")
    options = SourceOptions(queries=("x",), token_env="PROM_TOKEN", history_s=0)
    async with PrometheusSource(api.url, options=options):
        assert api.tokens == {"Bearer s3cret"}
    api.tokens.clear()

    async def elsewhere(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{api.url}/api/v1/query")

    async with serving(elsewhere) as url:
        with pytest.raises(SourceError, match="status 307"):
            await PrometheusSource(url, options=options).__aenter__()
    assert api.tokens == set()


async def test_an_answer_without_end_and_one_that_never_comes_are_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 1_000_000)

    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(3_600)
        raise AssertionError

    async def packed(_request: web.Request) -> web.Response:
        return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})

    cases = ((endless, 60.0, "longer than 33,554,432 bytes"), (silent, 0.5, "in 0.5 s"), (packed, 60.0, "compressed"))
    for handler, timeout_s, told in cases:
        async with serving(handler) as url:
            options = SourceOptions(queries=("x",), timeout_s=timeout_s)
            with pytest.raises(SourceError, match=told):
                await PrometheusSource(url, options=options).__aenter__()


def test_bad_urls_and_missing_queries_are_told() -> None:
    options = SourceOptions(queries=("x",))
    for url in ("", "127.0.0.1:9090", "ftp://h", "http://", "http://h:99999", "file:///etc/passwd", "http://h\n"):
        with pytest.raises(InputError, match="is not a URL"):
            PrometheusSource(url, options=options)
    with pytest.raises(InputError, match="a PromQL query such as 'up'"):
        PrometheusSource("http://h", options=SourceOptions())
    assert "s3cret" not in PrometheusSource("http://me:s3cret@h:9090", options=options).name


@pytest.mark.parametrize(
    ("kind", "result", "expected"),
    [
        ("scalar", [5, "1"], [("q", 5.0, 1.0)]),
        ("vector", [{"metric": {}, "value": [5, "1"]}], [("q", 5.0, 1.0)]),
        ("vector", [{"metric": {"b": "2", "a": "1"}, "value": [5, "+Inf"]}], [('q{a="1",b="2"}', 5.0, float("inf"))]),
        ("vector", [], []),
    ],
)
def test_a_series_without_a_name_is_called_by_its_query(kind: str, result: Any, expected: Any) -> None:
    body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
    assert read_answer(200, body, query="q")[0] == expected


def test_text_is_no_reading() -> None:
    body = b'{"status":"success","data":{"resultType":"string","result":[1,"x"]}}'
    with pytest.raises(QueryRefused, match="gives a string"):
        read_answer(200, body, query="q")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metric", "value", "values", "__name__"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(result=JSON, kind=st.sampled_from(["vector", "matrix", "scalar"]), raw=st.binary(max_size=50))
def test_no_answer_raises_anything_but_source_error(result: Any, kind: str, raw: bytes) -> None:
    body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
    for answer in (body, raw, json.dumps(result).encode(), b"[" * 100_000):
        try:
            values, _, _ = read_answer(200, answer, query="q")
        except SourceError:
            continue
        assert all(isinstance(value, float) for _, _, value in values)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here")
async def test_a_real_prometheus(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("tank_level", "litres", ["tank"], registry=registry)
    gauge.labels("a").set(42)
    exporter, _ = start_http_server(0, "127.0.0.1", registry)
    config = tmp_path / "prometheus.yml"
    target = f"127.0.0.1:{exporter.server_port}"
    config.write_text(
        "global: {scrape_interval: 100ms}\n"
        f"scrape_configs: [{{job_name: tanks, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"]
    log = (tmp_path / "log").open("wb")
    listen = f"--web.listen-address=127.0.0.1:{port}"
    server = await asyncio.create_subprocess_exec(*command, listen, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60):
            await _has(url, "count_over_time(tank_level[1m]) > 5")
            options = SourceOptions(
                queries=("tank_level", "max_over_time(tank_level[5s])"), interval_s=0.2, history_s=2
            )
            async with PrometheusSource(url, options=options) as source:
                found: list[Reading] = []
                async for batch in source.batches():
                    found += batch
                    if any(reading.value == 43.0 for reading in found):
                        break
                    if len(found) > 10:
                        gauge.labels("a").set(43)
            with pytest.raises(SourceError, match="bad_data"):
                await PrometheusSource(url, options=SourceOptions(queries=("sum(",))).__aenter__()
    finally:
        server.terminate()
        await server.wait()
        exporter.shutdown()
        log.close()
    labels = f'{{instance="{target}",job="tanks",tank="a"}}'
    assert {reading.metric for reading in found} == {f"tank_level{labels}", f"max_over_time(tank_level[5s]){labels}"}
    assert {reading.value for reading in found} == {42.0, 43.0}
    mine = [reading.timestamp for reading in found if reading.metric.startswith("tank_level")]
    assert mine == sorted(set(mine)) and not source.refused


async def _has(url: str, query: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/api/v1/query", params={"query": query}) as response:
                    if (await response.json(content_type=None))["data"]["result"]:
                        return
            except (aiohttp.ClientError, ValueError, KeyError):
                pass
            await asyncio.sleep(0.1)


class SetBack(ManualClock):
    """A second a look; after the tenth, an hour back."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.looks = 0

    def now(self) -> float:
        self.looks += 1
        self.advance(1.0)
        return super().now() - (3_600.0 if self.looks > 10 else 0.0)


async def test_after_the_clock_is_set_back_it_goes_on_from_there(api: Api) -> None:
    options = SourceOptions(queries=("x",), interval_s=0.01, history_s=0)
    async with PrometheusSource(api.url, options=options, clock=SetBack()) as source:
        stamps: list[float] = []
        async with asyncio.timeout(20):
            async for batch in source.batches():
                stamps += [reading.timestamp for reading in batch]
                if min(stamps) < NOW:
                    break
    assert source.refused == {"clock": 1}
    assert NOW - 3_600 < min(stamps) <= NOW - 3_500, "the hour before is not asked for again"
