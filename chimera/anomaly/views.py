"""What can be seen of a watch from outside: a metric as it stands, and the watch as a whole."""

from __future__ import annotations

from chimera.core.types import Frozen
from chimera.core.watching import AnomalyKind


class MetricView(Frozen):
    """A metric as of its last reading. A counter's `value` is its rate a second.

    `expected` is what the past said this reading would be; `low` to `high` is the 90 % band of the *next* one, which is
    there for metrics with a limit, and where it was asked for. `kind` is that of its last anomaly, which was told at
    the timestamp `alerted`. `ready`: it has been seen long enough to be judged. `missing` readings did not come when
    they were due, and `refused` could not be taken. `interval_s` is the usual time between two.
    """

    metric: str
    timestamp: float | None
    value: float | None
    expected: float | None
    low: float | None
    high: float | None
    score: float | None
    kind: AnomalyKind | None
    alerted: float | None
    ready: bool
    refused: int
    missing: int
    interval_s: float | None


class EngineStatus(Frozen):
    """A watch as a whole. `readings` were sound in themselves, some may have come too late; `refused` are counted by
    reason. `learned` and `learning_failed` are studies in the background; `failed` are rounds in which a further
    detector gave no scores, by its name; `clock_resets` are metrics whose time was set back.
    """

    metrics: int
    readings: int
    refused: dict[str, int]
    alerts: int
    warnings: int
    failed: dict[str, int]
    learned: int
    learning_failed: int
    clock_resets: int
    state_bytes: int
