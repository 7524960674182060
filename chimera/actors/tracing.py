"""Missions as OpenTelemetry traces, sent to the collector that OpenTelemetry's own environment variables name.

A thread of its own makes the spans and sends them; whoever hands a mission over never waits. What a slow collector
cannot take is dropped and counted, for a trace is worth less than the mission that it is of.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from chimera.core.errors import MissingExtra
from chimera.core.events import Event
from chimera.swarm.trace import ENDS, Span, spans, without_content

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

MAX_WAITING_SPANS = 50_000
"""Spans of missions that wait to be sent; about 1 KB each."""

MAX_BATCH = 512
"""Spans in one request."""

LINGER_S = 1.0
"""How long a mission waits for others to be sent with it."""

CLOSE_S = 5.0
"""How long a close waits for what is still to be sent."""


def open_tracer(environ: Mapping[str, str] = os.environ) -> Tracer | None:
    """The tracer that the environment asks for; None, and nothing imported, where it asks for none.

    On with OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_TRACES_EXPORTER=otlp. Where the
    extra `otel` is missing, a warning says so: a swarm does not fail for want of its traces.
    """
    if not _asked_for(environ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning("no traces: %s", MissingExtra("opentelemetry-exporter-otlp-proto-http", "otel"))
        return None
    return Tracer(OTLPSpanExporter())


class Tracer:
    """Sends the spans of missions through `exporter`."""

    def __init__(self, exporter: SpanExporter, *, max_waiting: int = MAX_WAITING_SPANS) -> None:
        self._exporter = exporter
        self._max_waiting = max_waiting
        self._lock = threading.Condition()
        self._missions: deque[Sequence[Event]] = deque()
        self._waiting = 0
        self._dropped = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Spans that were not sent: too many waited, the collector did not take them, or this was closed."""
        return self._dropped

    def send(self, events: Sequence[Event]) -> None:
        """Hand over a mission that has ended, as its events from the first on. Returns at once."""
        count = sum(event.kind in ENDS for event in events)
        with self._lock:
            if self._closing.is_set() or self._waiting + count > self._max_waiting:
                self._drop(count)
                return
            self._missions.append([without_content(event) for event in events])
            self._waiting += count
            self._lock.notify()

    def close(self) -> None:
        """Send what waits, for at most five seconds; call it off the event loop. Safe to repeat."""
        with self._lock:
            self._closing.set()
            self._lock.notify()
        self._thread.join(CLOSE_S)
        if self._dropped:
            log.warning("%d spans were not sent", self._dropped)

    def _run(self) -> None:
        resource = _resource()
        while missions := self._take():
            made: list[ReadableSpan] = []
            for events in missions:
                made += self._make(events, resource)
                full = len(made) // MAX_BATCH * MAX_BATCH
                for start in range(0, full, MAX_BATCH):
                    self._export(made[start : start + MAX_BATCH])
                made = made[full:]
            if made:
                self._export(made)
        self._exporter.shutdown()

    def _take(self) -> list[Sequence[Event]]:
        """All that waits, once there is any; nothing when this is closed and nothing is left."""
        with self._lock:
            self._lock.wait_for(lambda: self._missions or self._closing.is_set())
        self._closing.wait(LINGER_S)
        with self._lock:
            missions = list(self._missions)
            self._missions.clear()
        return missions

    def _make(self, events: Sequence[Event], resource: Resource) -> list[ReadableSpan]:
        try:
            return [_readable(span, resource) for span in spans(events)]
        except Exception:  # whatever this mission holds, the others are traced
            log.exception("a trace could not be made")
            self._settle(sum(event.kind in ENDS for event in events), sent=False)
            return []

    def _export(self, batch: list[ReadableSpan]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # an exporter may raise what it likes
            log.exception("the exporter of traces failed")
            sent = False
        self._settle(len(batch), sent=sent)

    def _settle(self, count: int, *, sent: bool) -> None:
        with self._lock:
            self._waiting -= count
            if not sent:
                self._drop(count)

    def _drop(self, count: int) -> None:
        if not self._dropped:
            log.warning("traces are being dropped: the collector does not take them, or not as fast as they come")
        self._dropped += count


def _asked_for(environ: Mapping[str, str]) -> bool:
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or wanted not in ("", "otlp"):
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return wanted == "otlp" or any(environ.get(name) for name in endpoints)


def _resource() -> Resource:
    """Who sends: `chimera`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says otherwise."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    named = Resource.create()
    if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return named.merge(Resource({SERVICE_NAME: "chimera"}))
    return named


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode

    def context(span_id: int) -> SpanContext:
        return SpanContext(span.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        span.name,
        context=context(span.span_id),
        parent=None if span.parent_id is None else context(span.parent_id),
        resource=resource,
        attributes=span.attributes,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=int(span.start_s * 1e9),
        end_time=int(span.end_s * 1e9),
        instrumentation_scope=InstrumentationScope("chimera"),
    )
