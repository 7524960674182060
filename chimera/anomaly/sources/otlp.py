"""Readings of programs that export OpenTelemetry's metrics, over HTTP."""

from __future__ import annotations

import asyncio
import json

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from chimera.anomaly.sources.addresses import LOOPBACK
from chimera.anomaly.sources.intake import Raw
from chimera.anomaly.sources.otlp_points import Points, read_request
from chimera.anomaly.sources.serving import Answer, Post, Refusal, ServerSource
from chimera.anomaly.sources.source import SourceOptions
from chimera.core.clock import Clock

DEFAULT_PORT = 4318

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class OtlpSource(ServerSource):
    """POST /v1/metrics as OTLP/HTTP says (opentelemetry.io/docs/specs/otlp), in protobuf or JSON, plain or gzip.

    What a point becomes, `Points` says. Points that are refused are counted, and told to the exporter as partial
    success; 429 asks it to come again when there is no room.
    """

    scheme = "otlp"
    path = "/v1/metrics"
    kinds = (PROTOBUF, JSON)

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        *,
        options: SourceOptions | None = None,
        clock: Clock | None = None,
        **limits: float,
    ) -> None:
        super().__init__(host, port, options=options, clock=clock, **limits)
        self._points = Points()

    async def take(self, post: Post) -> Answer:
        """Raises Refusal."""
        raw = await asyncio.to_thread(self._read, post)
        faults = self._sieve.refused.total()
        readings = self._sieve.sift(raw)
        rejected = self._sieve.refused.total() - faults
        self.accept(readings)
        if post.kind == JSON:
            partial = {"rejectedDataPoints": str(rejected), "errorMessage": _why(rejected)} if rejected else {}
            return Answer(200, json.dumps({"partialSuccess": partial} if partial else {}).encode())
        response = ExportMetricsServiceResponse()
        if rejected:
            response.partial_success.rejected_data_points = rejected
            response.partial_success.error_message = _why(rejected)
        return Answer(200, response.SerializeToString(), PROTOBUF)

    def _read(self, post: Post) -> list[Raw]:
        try:
            return list(self._points.values(read_request(post.body, as_json=post.kind == JSON)))
        except (ValueError, RecursionError, OverflowError) as error:
            raise Refusal(400, "body", f"the body is no ExportMetricsServiceRequest: {error}"[:400]) from None


def _why(rejected: int) -> str:
    return f"{rejected} values were refused: a name has 1 to 512 printable characters with its labels"
