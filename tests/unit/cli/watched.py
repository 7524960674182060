"""Alerts, views and counts of a watch, as tests want them."""

from __future__ import annotations

from typing import Any

from chimera.anomaly.views import EngineStatus, MetricView
from chimera.core.watching import AnomalyDetected, AnomalyKind, Evidence, FailurePredicted

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r\n[bold]x[/] :smile: " + "宽" * 40

NOW = 1_700_000_000.0


def anomaly(metric: str = "cpu", at: float = NOW, **fields: Any) -> AnomalyDetected:
    evidence = (Evidence(channel="up", score=5.0, distance=12.3, unit="spreads", since=at - 60),)
    known = {"value": 93.1, "kind": AnomalyKind.SPIKE, "score": 7.5, "since": at - 60, "expected": 41.2}
    return AnomalyDetected(**{"metric": metric, "timestamp": at, "evidence": evidence, **known, **fields})


def failure(metric: str = "disk", at: float = NOW, **fields: Any) -> FailurePredicted:
    known = {"value": 85.0, "limit": 90.0, "side": "above", "in_s": 420.0, "earliest_s": 300.0, "forecast": 90.2}
    return FailurePredicted(**{"metric": metric, "timestamp": at, **known, **fields})


def view(metric: str, score: float | None = 1.0, at: float = NOW) -> MetricView:
    return MetricView(
        metric=metric, timestamp=at, value=1.5, expected=1.4, low=1.0, high=2.0, score=score, kind=None, alerted=None,
        ready=True, refused=0, missing=0, interval_s=10.0,
    )  # fmt: skip


def status(**fields: Any) -> EngineStatus:
    known: dict[str, Any] = dict.fromkeys(EngineStatus.model_fields, 0)
    return EngineStatus(**known | {"refused": {}, "failed": {}} | fields)
