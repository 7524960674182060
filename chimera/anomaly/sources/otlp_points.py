"""OpenTelemetry's metrics, as they are exported, to names and values. Bounded by what came in."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.json_format import Parse, ParseError  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from chimera.anomaly.sources.intake import Raw
from chimera.anomaly.sources.naming import canonical
from chimera.anomaly.sources.serving import MAX_ELEMENTS
from chimera.core.watching import MAX_METRIC_CHARS

RESOURCE_LABELS = {"service.name": "job", "service.instance.id": "instance"}
"""Which of a resource's attributes tell series apart, and what Prometheus calls them."""

MAX_REMEMBERED = 20_000

NO_VALUE = 1
"""The flag of a point that says that there is none."""


def read_request(body: bytes, *, as_json: bool) -> ExportMetricsServiceRequest:
    """Raises ValueError for what is no export of metrics."""
    request = ExportMetricsServiceRequest()
    try:
        if as_json:
            Parse(body, request, ignore_unknown_fields=True)
        else:
            request.ParseFromString(body)
    except (DecodeError, ParseError, UnicodeError, RecursionError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}"[:300]) from None
    return request


class TooMany(Exception):
    """A request has more points than are taken at once."""


class Points:
    """Makes values of exported points.

    A gauge, and a sum that may fall or that tells what came since the last export, become `name`; a sum that only
    grows becomes `name_total`, a counter. A histogram becomes `name_count`, `name_sum` and `name_mean`: the mean of
    what came since the export before, which is the one that `keep` was called after. Attributes become labels, with
    the service as `job` and `instance`. A name that is too long with its labels is never made: "" stands for it.
    """

    def __init__(self) -> None:
        self._before: OrderedDict[str, tuple[int, float, float]] = OrderedDict()
        self._now: dict[str, tuple[int, float, float]] = {}
        self._room = 0

    def values(self, request: ExportMetricsServiceRequest) -> Iterator[Raw]:
        """Raises TooMany."""
        self._now, self._room = {}, MAX_ELEMENTS
        for resource in request.resource_metrics:
            labels = _labels(resource.resource.attributes)
            told = {RESOURCE_LABELS[key]: labels[key] for key in RESOURCE_LABELS if key in labels}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    yield from self._metric(metric, told)

    def keep(self) -> None:
        """What `values` gave last was taken in: the next means begin there."""
        for name, now in self._now.items():
            self._before.pop(name, None)
            self._before[name] = now
            if len(self._before) > MAX_REMEMBERED:
                self._before.popitem(last=False)
        self._now = {}

    def _spend(self, points: int) -> None:
        self._room -= points
        if self._room < 0:
            raise TooMany

    def _metric(self, metric: Metric, told: Mapping[str, str]) -> Iterator[Raw]:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data: Any = getattr(metric, kind)
        counter = kind == "sum" and data.is_monotonic and _is_cumulative(data) and not metric.name.endswith("_total")
        self._spend(len(data.data_points))
        for point in data.data_points:
            labels = {**told, **_labels(point.attributes)}
            stamp = point.time_unix_nano / 1e9
            missing = bool(point.flags & NO_VALUE)
            if kind in ("gauge", "sum"):
                name = f"{metric.name}_total" if counter and metric.name else metric.name
                yield _name(name, labels), stamp, math.nan if missing else _number(point)
            elif not missing and metric.name:
                yield from self._distribution(metric.name, kind, data, point, labels)

    def _distribution(self, name: str, kind: str, data: Any, point: Any, labels: dict[str, str]) -> Iterator[Raw]:
        stamp = point.time_unix_nano / 1e9
        if not (counted := _name(f"{name}_count", labels)):
            yield counted, stamp, 0.0
            return
        yield counted, stamp, float(point.count)
        if kind == "summary":
            self._spend(len(point.quantile_values))
            for quantile in point.quantile_values:
                yield _name(name, {**labels, "quantile": f"{quantile.quantile:g}"}), stamp, quantile.value
        elif not point.HasField("sum"):
            return
        yield _name(f"{name}_sum", labels), stamp, point.sum
        mean = _name(f"{name}_mean", labels)
        delta = kind != "summary" and not _is_cumulative(data)
        count, total = (point.count, point.sum) if delta else self._since(mean, point)
        if count > 0:
            yield mean, stamp, total / count

    def _since(self, name: str, point: Any) -> tuple[float, float]:
        """Count and sum since the export before, or since the start where there was none."""
        now = (point.start_time_unix_nano, float(point.count), point.sum)
        before = self._now.get(name) or self._before.get(name)
        self._now[name] = now
        if before is None or before[0] != now[0] or before[1] > now[1]:
            return now[1], now[2]
        return now[1] - before[1], now[2] - before[2]


def _name(name: str, labels: Mapping[str, str]) -> str:
    if not name or len(name) + sum(len(key) + len(text) for key, text in labels.items()) > MAX_METRIC_CHARS:
        return ""
    return canonical(name, labels)


def _is_cumulative(data: Any) -> bool:
    return bool(data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE)


def _number(point: Any) -> float:
    kind = point.WhichOneof("value")
    return math.nan if kind is None else float(getattr(point, kind))


def _labels(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: _text(each.value) for each in attributes}


def _text(value: Any) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    plain = getattr(value, kind)
    if kind == "bool_value":
        return "true" if plain else "false"
    if kind == "array_value":
        return ",".join(_text(each) for each in plain.values)
    if kind == "kvlist_value":
        return ",".join(f"{each.key}={_text(each.value)}" for each in plain.values)
    return plain.hex() if isinstance(plain, bytes) else str(plain)
