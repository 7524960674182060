"""Readings of programs that export OpenTelemetry's metrics, over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from chimera.anomaly.sources.intake import Sieve
from chimera.anomaly.sources.otlp_points import Points, TooMany, read_request
from chimera.anomaly.sources.serving import Answer, Post, Refusal, ServerSource, check_json, too_many
from chimera.anomaly.sources.source import Readings

DEFAULT_PORT = 4318

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class OtlpSource(ServerSource):
    """POST /v1/metrics as OTLP/HTTP says (opentelemetry.io/docs/specs/otlp), in protobuf or JSON, plain or gzip.

    What a point becomes, `Points` says. Points that are refused are counted, and told to the exporter as partial
    success; 429 asks it to come again when there is no room.
    """

    scheme = "otlp"
    default_port = DEFAULT_PORT
    path = "/v1/metrics"
    kinds = (PROTOBUF, JSON)

    async def __aenter__(self) -> Self:
        self._points = Points()
        self._one_by_one = asyncio.Lock()
        return await super().__aenter__()

    async def take(self, post: Post) -> Answer:
        """Raises Refusal."""
        sieve = self._sieve.apart()
        async with self._one_by_one:
            self.accept(await asyncio.to_thread(self._read, post, sieve))
            self._points.keep()  # only now: an exporter that is refused sends the same again
        self._sieve.add(sieve)
        rejected = sieve.refused.total()
        if post.kind == JSON:
            partial = {"rejectedDataPoints": str(rejected), "errorMessage": _why(rejected)} if rejected else {}
            return Answer(200, json.dumps({"partialSuccess": partial} if partial else {}).encode())
        response = ExportMetricsServiceResponse()
        if rejected:
            response.partial_success.rejected_data_points = rejected
            response.partial_success.error_message = _why(rejected)
        return Answer(200, response.SerializeToString(), PROTOBUF)

    def _read(self, post: Post, sieve: Sieve) -> Readings:
        if post.kind == JSON:
            check_json(post.body)
        try:
            return sieve.sift(self._points.values(read_request(post.body, as_json=post.kind == JSON)))
        except TooMany:
            raise too_many() from None
        except (ValueError, RecursionError, OverflowError) as error:
            raise Refusal(400, "body", f"the body is no ExportMetricsServiceRequest: {error}"[:400]) from None


def _why(rejected: int) -> str:
    return f"{rejected} values were refused: a name has 1 to 512 printable characters with its labels"
