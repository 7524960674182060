"""What OpenTelemetry's own exporter sends, and what the other kinds of points become."""

from __future__ import annotations

import asyncio
import math
import tracemalloc
from typing import Any

import aiohttp
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from chimera.anomaly.sources import otlp_points
from chimera.anomaly.sources.otlp import OtlpSource
from chimera.anomaly.sources.otlp_points import Points, read_request
from chimera.anomaly.sources.source import SourceOptions
from chimera.core.watching import Reading


def request(**metric: Any) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    made_metric = resource.scope_metrics.add().metrics.add()
    made_metric.MergeFrom(type(made_metric)(**metric))
    return made


def values(points: Points, made: ExportMetricsServiceRequest) -> dict[str, float]:
    found = {name: value for name, _, value in points.values(made)}
    points.keep()
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("compression", list(Compression))
async def test_the_sdks_exporter_is_understood(compression: Compression) -> None:
    async with OtlpSource(port=0) as source, asyncio.timeout(60):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(source.address, compression=compression), math.inf)
        resource = Resource({"service.name": "shop", "service.instance.id": "i1"})
        provider = MeterProvider([reader], resource=resource)
        meter = provider.get_meter("test")
        meter.create_counter("orders").add(3, {"kind": "b", "at": "a"})
        meter.create_up_down_counter("open").add(-2)
        meter.create_gauge("load").set(0.5)
        for value in (1.0, 3.0):
            meter.create_histogram("wait").record(value)
        await asyncio.to_thread(provider.force_flush)
        await asyncio.to_thread(provider.shutdown)
        found = {reading.metric: reading for reading in await anext(source.batches())}  # type: ignore[arg-type]
    mine = 'instance="i1",job="shop"'
    assert {name: reading.value for name, reading in found.items()} == {
        'orders_total{at="a",instance="i1",job="shop",kind="b"}': 3.0,
        f"open{{{mine}}}": -2.0,
        f"load{{{mine}}}": 0.5,
        f"wait_count{{{mine}}}": 2.0,
        f"wait_sum{{{mine}}}": 4.0,
        f"wait_mean{{{mine}}}": 2.0,
    }
    assert all(1.7e9 < reading.timestamp < 1e10 for reading in found.values()) and not source.refused


async def test_the_exporter_is_told_what_was_refused_and_when_to_come_again() -> None:
    async with OtlpSource(port=0, options=SourceOptions(max_queued=1)) as source:
        body = request(name="x\n", gauge={"data_points": [{"as_double": 1.0}]}).SerializeToString()
        status, answer = await post(source, body)
        told = ExportMetricsServiceResponse.FromString(answer).partial_success
        assert (status, told.rejected_data_points) == (200, 1) and source.refused == {"name": 1}
        good = request(name="x", gauge={"data_points": [{"as_double": 1.0, "time_unix_nano": 10**9}]})
        assert [(await post(source, good.SerializeToString()))[0] for _ in range(2)] == [200, 429]
        assert [batch async for batch in _closed(source)] == [[Reading("x", 1.0, 1.0)]]


async def _closed(source: OtlpSource) -> Any:
    await source.__aexit__()
    async for batch in source.batches():
        yield batch


async def post(source: OtlpSource, body: bytes, kind: str = "application/x-protobuf") -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(source.address or "", data=body, headers={"Content-Type": kind}) as response,
    ):
        return response.status, await response.read()


def histogram(count: int, total: float, *, start: int = 1, temporality: int = 2) -> ExportMetricsServiceRequest:
    point = {"count": count, "sum": total, "start_time_unix_nano": start}
    return request(name="h", histogram={"aggregation_temporality": temporality, "data_points": [point]})


def test_the_mean_is_of_what_came_since_the_export_before() -> None:
    points = Points()
    means = [values(points, histogram(*each)).get("h_mean") for each in [(2, 4.0), (4, 24.0), (4, 24.0), (5, 25.0)]]
    assert means == [2.0, 10.0, None, 1.0]
    assert values(points, histogram(9, 63.0, start=2))["h_mean"] == 7.0, "it was started anew"
    assert values(points, histogram(2, 8.0, start=2))["h_mean"] == 4.0, "it was started anew, and does not say so"
    assert values(points, histogram(2, 6.0, temporality=1))["h_mean"] == 3.0, "each export is for itself"


async def test_what_had_no_room_is_not_known_when_it_comes_again() -> None:
    async with OtlpSource(port=0, options=SourceOptions(max_queued=3)) as source:
        batches = source.batches()
        made = histogram(2, 4.0)
        made.resource_metrics[0].scope_metrics[0].metrics.add(name="\n", gauge={"data_points": [{}]})
        assert (await post(source, made.SerializeToString()))[0] == 200
        made.resource_metrics[0].scope_metrics[0].metrics[0].CopyFrom(
            histogram(4, 24.0).resource_metrics[0].scope_metrics[0].metrics[0]
        )
        assert (await post(source, made.SerializeToString()))[0] == 429
        assert source.refused == {"name": 1, "overloaded": 1}
        await anext(batches)  # type: ignore[arg-type]
        assert (await post(source, made.SerializeToString()))[0] == 200
        assert {each.metric: each.value for each in await anext(batches)}["h_mean"] == 10.0  # type: ignore[arg-type]
        assert source.refused == {"name": 2, "overloaded": 1}


@pytest.mark.parametrize("kind", ["gauge", "histogram", "summary"])
async def test_a_long_label_of_a_resource_is_not_copied_for_every_point(kind: str) -> None:
    made = request(name="x")
    label = made.resource_metrics[0].resource.attributes.add(key="service.name")
    label.value.string_value = "A" * 1_000_000
    points = getattr(made.resource_metrics[0].scope_metrics[0].metrics[0], kind).data_points
    for _ in range(200):
        points.add(**({} if kind == "gauge" else {"count": 1}))
    async with OtlpSource(port=0) as source:
        body = made.SerializeToString()
        tracemalloc.start()
        status, answer = await post(source, body)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        told = ExportMetricsServiceResponse.FromString(answer).partial_success
        assert (status, told.rejected_data_points) == (200, 200) and source.refused == {"name": 200}
    assert peak < 30_000_000


@pytest.mark.parametrize("as_json", [False, True])
async def test_points_of_a_request_have_a_limit(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_points, "MAX_ELEMENTS", 10)
    points = [{"as_double": 1.0} for _ in range(10)]
    quantiles = [{"quantile": at / 10} for at in range(10)]
    for metric, status in [
        ({"gauge": {"data_points": points}}, 200),
        ({"gauge": {"data_points": [*points, {}]}}, 413),
        ({"histogram": {"data_points": [{"flags": 1}] * 11}}, 413),
        ({"summary": {"data_points": [{"quantile_values": quantiles}]}}, 413),
    ]:
        made = request(name="x", **metric)
        body = MessageToJson(made).encode() if as_json else made.SerializeToString()
        async with OtlpSource(port=0) as source:
            kind = "application/json" if as_json else "application/x-protobuf"
            assert (await post(source, body, kind))[0] == status
            assert source.refused == ({"size": 1} if status == 413 else {})


def test_sums_that_grow_are_counters_and_others_are_not() -> None:
    def total(**kind: Any) -> dict[str, float]:
        return values(Points(), request(name="s", sum={"data_points": [{"as_int": 3}], **kind}))

    assert total(is_monotonic=True, aggregation_temporality=2) == {"s_total": 3.0}
    assert total(is_monotonic=True, aggregation_temporality=1) == {"s": 3.0}
    assert total(is_monotonic=False, aggregation_temporality=2) == {"s": 3.0}


def test_a_summary_and_a_point_without_a_value() -> None:
    quantile = {"quantile": 0.5, "value": 2.0}
    made = request(name="q", summary={"data_points": [{"count": 2, "sum": 6.0, "quantile_values": [quantile]}]})
    assert values(Points(), made) == {"q_count": 2.0, 'q{quantile="0.5"}': 2.0, "q_sum": 6.0, "q_mean": 3.0}
    missing = values(Points(), request(name="g", gauge={"data_points": [{"flags": 1, "as_double": 5.0}]}))
    assert math.isnan(missing["g"])


def test_json_says_the_same_as_protobuf() -> None:
    made = histogram(2, 4.0)
    assert read_request(MessageToJson(made).encode(), as_json=True) == made


@given(body=st.binary(max_size=300), as_json=st.booleans(), cut=st.integers(0, 100))
def test_no_bytes_raise_anything_but_value_error(body: bytes, as_json: bool, cut: int) -> None:
    whole = histogram(2, 4.0)
    good = MessageToJson(whole).encode() if as_json else whole.SerializeToString()
    for data in (body, good[:cut] + body + good[cut:]):
        try:
            made = read_request(data, as_json=as_json)
        except ValueError:
            continue
        list(Points().values(made))


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"resourceMetrics":' * 200, b'{"resourceMetrics": 7}', b"null", b"7"]
)
def test_json_that_nests_without_end_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_request(body, as_json=True)
