"""Traces as a collector receives them: over HTTP, in OpenTelemetry's own protobuf."""

from __future__ import annotations

import builtins
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from chimera.actors import tracing
from chimera.actors.tracing import MAX_BATCH, Tracer, open_tracer
from chimera.core.events import Event, EventKind
from chimera.swarm.trace import spans
from tests.unit.swarm.test_trace import mission


class Collector:
    """A server that keeps what is exported to it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        self.status = 200
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(kept.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


class Held(SpanExporter):
    """Takes nothing before it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(30)
        self.batches.append(len(spans))
        return SpanExportResult.SUCCESS


def many(count: int) -> list[Event]:
    return [Event(mission_id="m", seq=i + 1, kind=EventKind.TASK_DECIDED, at_s=1.0, task_id="t") for i in range(count)]


def test_a_collector_receives_the_spans_of_a_mission(collector: Collector) -> None:
    tracer = open_tracer()
    assert tracer is not None
    tracer.send(mission())
    tracer.send(mission(mission_id="mission-2", failure="it broke"))
    tracer.close()
    expected = {
        span.span_id: span for span in spans(mission()) + spans(mission(mission_id="mission-2", failure="it broke"))
    }
    assert [path for path, _ in collector.requests] == ["/v1/traces"], "one request for both"
    assert len(collector.spans) == len(expected)
    for got in collector.spans:
        span = expected[int.from_bytes(got.span_id)]
        assert int.from_bytes(got.trace_id) == span.trace_id
        assert (int.from_bytes(got.parent_span_id) if got.parent_span_id else None) == span.parent_id
        assert (got.name, got.start_time_unix_nano / 1e9) == (span.name, pytest.approx(span.start_s))
        assert got.end_time_unix_nano / 1e9 == pytest.approx(span.end_s)
        assert {a.key for a in got.attributes} == set(span.attributes)
        assert (got.status.code, got.status.message) == ((2, span.error) if span.error else (0, ""))
    [resource] = collector.requests[0][1].resource_spans
    assert ("service.name", "chimera") in {(a.key, a.value.string_value) for a in resource.resource.attributes}
    assert tracer.dropped == 0


def test_what_a_collector_refuses_is_counted(collector: Collector) -> None:
    collector.status = 400
    tracer = open_tracer()
    assert tracer is not None
    tracer.send(mission())
    tracer.close()
    assert tracer.dropped == len(spans(mission()))


def test_a_slow_collector_holds_nobody_up_and_costs_no_more_than_the_limit() -> None:
    held = Held()
    tracer = Tracer(held, max_waiting=1_000)
    for _ in range(30):
        tracer.send(many(100))
    assert tracer.dropped == 2_000
    held.go.set()
    tracer.close()
    assert (tracer.dropped, held.batches) == (2_000, [MAX_BATCH, 1_000 - MAX_BATCH])
    before = tracer.dropped
    tracer.send(many(1))
    tracer.close()
    assert tracer.dropped == before + 1, "after the end nothing is taken"


def test_what_was_sent_makes_room() -> None:
    held = Held()
    tracer = Tracer(held, max_waiting=10)
    tracer.send(many(10))
    held.go.set()
    tries = 0
    while tracer.dropped == tries and tries < 3_000:
        time.sleep(0.01)
        tracer.send(many(1))
        tries += 1
    tracer.close()
    assert (tracer.dropped, sum(held.batches)) == (tries - 1, 11)


def test_a_mission_that_is_no_trace_spoils_no_other(collector: Collector) -> None:
    tracer = open_tracer()
    assert tracer is not None
    tracer.send([event.model_copy(update={"at_s": float("nan")}) for event in mission(mission_id="mission-2")])
    tracer.send(mission())
    tracer.close()
    assert (tracer.dropped, len(collector.spans)) == (5, 5)


def test_an_exporter_that_raises_ends_nothing() -> None:
    class Raises(Held):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            if not self.batches:
                self.batches.append(0)
                raise OSError("no")
            return super().export(spans)

    raises = Raises()
    raises.go.set()
    tracer = Tracer(raises)
    tracer.send(many(MAX_BATCH + 1))
    tracer.close()
    assert (tracer.dropped, raises.batches) == (MAX_BATCH, [0, 1])


ON, OFF = True, False


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, ON),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, ON),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ON),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, OFF),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, OFF),
    ],
)
def test_off_unless_an_exporter_is_set(environ: Mapping[str, str], wanted: bool) -> None:
    tracer = open_tracer(environ)
    assert (tracer is not None) is wanted
    if tracer:
        tracer.close()


def test_where_it_is_off_opentelemetry_is_not_imported() -> None:
    program = (
        "import sys; from chimera.actors.tracing import open_tracer; assert open_tracer({}) is None; "
        "assert not [m for m in sys.modules if m.startswith('opentelemetry.exporter.otlp')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_extra_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter.otlp")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry.exporter.otlp"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with caplog.at_level(logging.WARNING, tracing.__name__):
        assert open_tracer({"OTEL_TRACES_EXPORTER": "otlp"}) is None
    [record] = caplog.records
    assert "pip install 'chimera[otel]'" in record.getMessage()
