"""What a watch over metrics takes and tells: readings in, anomalies and coming failures out, for others to act upon."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from chimera.core.types import Frozen

MAX_METRIC_CHARS = 512

MetricName = Annotated[str, Field(min_length=1, max_length=MAX_METRIC_CHARS)]
"""A metric with its labels, such as `node_cpu_seconds{cpu="0"}`. One name is one series."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class Reading(NamedTuple):
    """One value of one metric. `timestamp` is seconds since the epoch. A value of NaN was looked for and is missing.

    A plain tuple, because millions of them pass.
    """

    metric: str
    timestamp: float
    value: float


class AnomalyKind(StrEnum):
    """What an anomaly looks like."""

    SPIKE = "spike"
    """Above what was to be expected, at once."""
    DROP = "drop"
    """Below it, at once."""
    TREND = "trend"
    """The level or the slope has changed over many readings."""
    PATTERN = "pattern"
    """The values may be usual; their order or spread is not: a season that stops, a sensor that is stuck."""


class Evidence(Frozen):
    """What one channel saw. `score` is -log10 of how rarely it says so; `distance` how far the metric is from usual.

    `distance` is in the channel's own unit, which `unit` names. `since` is the timestamp of the first reading that this
    channel counts to the anomaly.
    """

    channel: str
    score: Number
    distance: Number
    unit: str
    since: Number


class AnomalyDetected(Frozen):
    """A metric behaves as it did not before. `score` may be compared between metrics.

    It is told at `timestamp`, a few readings late, because what comes next tells its kind. `value` is that of the
    oddest reading until then, at `peaked`, `expected` what the past predicted for it, and `evidence` what was seen in
    it. `since` is when it began, by the channels that saw it. `escalated` says that this one came within the cooldown
    of another, and is much larger.
    """

    event: Literal["anomaly_detected"] = "anomaly_detected"
    metric: MetricName
    timestamp: Number
    value: Number
    kind: AnomalyKind
    score: Number
    since: Number
    peaked: Number | None = None
    """None: at `timestamp`."""
    expected: Number
    evidence: tuple[Evidence, ...] = ()
    escalated: bool = False


class FailurePredicted(Frozen):
    """A metric is on its way over (or under) its limit. `in_s` is the central estimate, `earliest_s` and `latest_s` its
    90 % band, all in seconds from `timestamp`; `latest_s` is None when the band's far side stays within the limit."""

    event: Literal["failure_predicted"] = "failure_predicted"
    metric: MetricName
    timestamp: Number
    value: Number
    limit: Number
    side: Literal["above", "below"]
    in_s: Number
    earliest_s: Number
    latest_s: Number | None = None
    forecast: Number
    """The forecast value at the crossing."""


Alert = AnomalyDetected | FailurePredicted
