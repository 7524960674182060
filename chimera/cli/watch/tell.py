"""An alert in words, and as a JSON object. Names of metrics are a stranger's: nothing in them is obeyed."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from chimera.cli.arena import command
from chimera.core.watching import Alert, AnomalyDetected, FailurePredicted

FAILURE = "failure"
"""The kind of a failure warning, beside those of anomalies."""

EPOCH_LEAST = 1e8
"""A smaller timestamp counts from somewhere else than 1970, and is told as a number."""


def kind_of(alert: Alert) -> str:
    return alert.kind.value if isinstance(alert, AnomalyDetected) else FAILURE


def document(alert: Alert, score: float) -> dict[str, Any]:
    """The object of an alert. `score` is that of the reading itself, which a failure warning does not have.

    metric, timestamp, value, kind and score come first, whatever kind it is; the alert's own fields follow.
    """
    fields = alert.model_dump(mode="json")
    told = {"kind": kind_of(alert), "score": fields.get("score", score)}
    first = {name: (fields | told)[name] for name in ("metric", "timestamp", "value", "kind", "score")}
    return first | {name: value for name, value in fields.items() if name not in first}


def log_line(alert: Alert) -> str:
    """A line of a log: when, what kind, which metric, and why."""
    said = anomaly(alert) if isinstance(alert, AnomalyDetected) else failure(alert)
    return f"{moment(alert.timestamp)}  {kind_of(alert):<7}  {command.one_line(alert.metric)}  {said}"


def anomaly(alert: AnomalyDetected) -> str:
    """Why it is one: `93.1, expected 41.2, score 4.2, since ... (residual 12.3 sigma)`."""
    said = f"{number(alert.value)}, expected {number(alert.expected)}, score {alert.score:.1f}"
    if alert.since < alert.timestamp:
        said += f", for {span(alert.timestamp - alert.since)}"
    if alert.escalated:
        said += ", worse than before"
    seen = ", ".join(f"{each.channel} {number(each.distance)} {each.unit}" for each in alert.evidence)
    return f"{said} ({command.one_line(seen)})" if seen else said


def failure(alert: FailurePredicted) -> str:
    """What is coming: `85.1, over 90 in 7 min (5 min to 12 min)`."""
    late = "or never" if alert.latest_s is None else f"to {span(alert.latest_s)}"
    over = "over" if alert.side == "above" else "under"
    where = f"{over} {number(alert.limit)} in {span(alert.in_s)}"
    return f"{number(alert.value)}, {where} ({span(alert.earliest_s)} {late})"


def moment(timestamp: float) -> str:
    """A time of day in UTC, or the number itself where it is none."""
    if not EPOCH_LEAST <= timestamp < 253_402_300_800:
        return f"{timestamp:.10g}"
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def number(value: float | None) -> str:
    """Four digits that tell, without an exponent where that is short; nothing for None."""
    if value is None or not math.isfinite(value):
        return ""
    if value == 0.0 or not 1e-3 <= abs(value) < 1e7:
        return f"{value:.4g}"
    whole = math.floor(math.log10(abs(value)))
    text = f"{value:,.{max(0, 3 - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(seconds: float) -> str:
    """How long, in the unit that suits."""
    for unit, length_s in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{number(round(seconds / length_s, 1))} {unit}"
    return f"{number(round(seconds, 1 if seconds < 10 else 0))} s"


def many(count: int, one: str, more: str = "") -> str:
    """A count with its noun, such as `1 metric`, `2,000 metrics`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
