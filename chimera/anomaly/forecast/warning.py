"""Limits, and warnings that a metric is on its way over one. Pure: forecasts go in, `FailurePredicted` comes out.

One forecast that crosses is noise as often as not; two in a row are a warning. It is given once: again only when the
forecast has turned away from the limit and come back, or when it still says so after a cooldown.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chimera.anomaly.forecast.engine import MAX_HORIZON, Forecast
from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.core.watching import MAX_METRIC_CHARS, FailurePredicted, MetricName, Number

EVERY = 5
"""A forecast is due every so many points."""

IN_A_ROW = 2
"""Forecasts that must cross before a warning, and that must not before the next one."""

LATE = 3.0
"""Forecasts this many times further apart than they are due are not in a row."""

MAX_LIMITS = 1_000

MAX_STATES = 100_000
"""Metrics on their way over a limit that are remembered. Of more, the one that moved longest ago is forgotten."""

Side = Literal["above", "below"]

_SIDES: dict[str, Side] = {"=": "above", ">": "above", ">=": "above", "<": "below", "<=": "below"}

_LIMIT = re.compile(r"(?P<metric>.*?[^\s<>=])\s*(?P<sign><=|>=|[<>=])\s*(?P<value>[^\s<>=]+)", re.DOTALL)


class Limit(Frozen):
    """A metric fails when it is at or `above` (or `below`) `value`. In `metric`, each `*` stands for any text."""

    metric: MetricName
    value: Number
    side: Side = "above"

    def covers(self, metric: str) -> bool:
        """Whether the limit is one for `metric`. Linear in its length, whatever the pattern."""
        first, *others = self.metric.split("*")
        if not others:
            return metric == self.metric
        *middle, last = others
        if len(metric) < len(first) + len(last) or not (metric.startswith(first) and metric.endswith(last)):
            return False
        at, end = len(first), len(metric) - len(last)
        for part in middle:
            found = metric.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    def passed(self, values: float | NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of `values` are at the limit or past it, in the shape of `values`."""
        return np.asarray(values >= self.value if self.side == "above" else values <= self.value)


def parse_limit(text: str) -> Limit:
    """The limit in `text`: `m=90` or `m>90` fails above, `m<10` below; the last sign counts, for labels hold some too.

    Raises InputError, with the forms that are right.
    """
    right = "write METRIC=90 or METRIC>90 (fails above), or METRIC<10 (fails below)"
    found = _LIMIT.fullmatch(text.strip()) if len(text) <= 2 * MAX_METRIC_CHARS else None
    if found is None:
        raise InputError(f"{text[:80]!r} is no limit: {right}")
    if len(found["metric"]) > MAX_METRIC_CHARS:
        raise InputError(f"the metric of a limit has at most {MAX_METRIC_CHARS} characters, not {len(found['metric'])}")
    try:
        value = float(found["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{found['value'][:80]!r} is no finite number: {right}")
    return Limit(metric=found["metric"], value=value, side=_SIDES[found["sign"]])


@dataclass(slots=True)
class _State:
    """What is known of one metric and one limit: forecasts in a row that crossed, or did not, and when it was told."""

    seen_at: float
    crossed: int = 0
    receded: int = 0
    told_at: float | None = None


class FailureWarner:
    """Warns of metrics that are about to pass their limits. Not thread-safe; remembers only metrics on their way."""

    def __init__(
        self,
        limits: Iterable[Limit],
        *,
        soonest_s: float = 0.0,
        latest_s: float = 600.0,
        cooldown_s: float = 1_800.0,
        every: int = EVERY,
    ) -> None:
        """A crossing counts if the forecast has it `soonest_s` to `latest_s` seconds ahead.

        A failure that builds up slowly is seen as soon as it is `latest_s` away. `soonest_s` is 0 by default, because a
        fast one is worth a short warning: set it to 300 for none under five minutes. After `cooldown_s` a warning that
        still stands is repeated. `every` is after how many points a forecast is due.
        """
        self._limits = tuple(limits)
        if len(self._limits) > MAX_LIMITS:
            raise InputError(f"at most {MAX_LIMITS} limits, not {len(self._limits)}")
        if not 0.0 <= soonest_s < latest_s <= 86_400.0:
            raise InputError(f"0 <= soonest_s < latest_s <= 86400 must hold, not {soonest_s} and {latest_s}")
        if not 0.0 < cooldown_s <= 604_800.0:
            raise InputError(f"cooldown_s must be over 0 and at most a week, not {cooldown_s}")
        if not 1 <= every <= 1_000:
            raise InputError(f"every must be in 1..1000, not {every}")
        self.every = every
        self._soonest_s = soonest_s
        self._latest_s = latest_s
        self._cooldown_s = cooldown_s
        self._states: OrderedDict[tuple[str, int], _State] = OrderedDict()

    def watches(self, metric: str) -> bool:
        """Whether any limit is one for `metric`; if not, it needs no forecast."""
        return any(limit.covers(metric) for limit in self._limits)

    def horizon(self, interval_s: float) -> int:
        """How many steps a forecast must look ahead at one point each `interval_s` seconds."""
        return max(1, min(MAX_HORIZON, math.floor(self._latest_s / _interval(interval_s))))

    def learn(
        self, metric: str, timestamp: float, value: float, forecast: Forecast, interval_s: float
    ) -> tuple[FailurePredicted, ...]:
        """The warnings that `forecast`, made at `timestamp` after `value`, gives rise to: at most one for each limit.

        `interval_s` is the time between points. A value that is no number, or a time not after the last one, says
        nothing. Raises InputError for an interval that is not positive and finite.
        """
        _interval(interval_s)
        if not (math.isfinite(value) and math.isfinite(timestamp)):
            return ()
        found = []
        for index, limit in enumerate(self._limits):
            if limit.covers(metric):
                warning = _predicted(metric, timestamp, value, forecast, interval_s, limit)
                in_time = warning is not None and self._soonest_s <= warning.in_s <= self._latest_s
                if self._to_tell((metric, index), timestamp, in_time, interval_s) and warning is not None:
                    found.append(warning)
        return tuple(found)

    def forget(self, metric: str) -> None:
        """Drop what is known of `metric`."""
        for index in range(len(self._limits)):
            self._states.pop((metric, index), None)

    def snapshot(self) -> list[tuple[str, int, float, int, int, float | None]]:
        """What is remembered, in plain values: metric, number of the limit, and the state of the two."""
        return [
            (*key, state.seen_at, state.crossed, state.receded, state.told_at) for key, state in self._states.items()
        ]

    def restore(self, told: Iterable[tuple[str, int, float, int, int, float | None]]) -> None:
        """Go on where a snapshot was taken, of a warner with the same limits. Raises ValueError where it is none."""
        self._states = OrderedDict(
            ((metric, index), _State(seen_at, crossed, receded, told_at))
            for metric, index, seen_at, crossed, receded, told_at in told
        )

    def _to_tell(self, key: tuple[str, int], now: float, crosses: bool, interval_s: float) -> bool:
        """Count one forecast, and say whether it completes a warning."""
        state = self._states.get(key)
        if state is None:
            if not crosses:
                return False
            state = self._states[key] = _State(seen_at=-math.inf)
            while len(self._states) > MAX_STATES:
                self._states.popitem(last=False)
        if now <= state.seen_at:
            return False
        in_a_row = now - state.seen_at <= LATE * self.every * interval_s
        state.seen_at = now
        self._states.move_to_end(key)
        state.crossed = (state.crossed + 1 if in_a_row else 1) if crosses else 0
        state.receded = 0 if crosses else state.receded + 1
        if state.receded >= IN_A_ROW:
            del self._states[key]
            return False
        if state.crossed < IN_A_ROW or (state.told_at is not None and now - state.told_at < self._cooldown_s):
            return False
        state.told_at = now
        return True


def _predicted(
    metric: str, timestamp: float, value: float, forecast: Forecast, interval_s: float, limit: Limit
) -> FailurePredicted | None:
    """The failure that `forecast` has in it, or None: also for a metric that is past its limit already."""
    central = _first(limit.passed(forecast.mean))
    if central is None or limit.passed(value):
        return None
    near, far = (forecast.high, forecast.low) if limit.side == "above" else (forecast.low, forecast.high)
    earliest, latest = _first(limit.passed(near)), _first(limit.passed(far))
    return FailurePredicted(
        metric=metric,
        timestamp=timestamp,
        value=value,
        limit=limit.value,
        side=limit.side,
        in_s=(central + 1) * interval_s,
        earliest_s=(min(central, central if earliest is None else earliest) + 1) * interval_s,
        latest_s=None if latest is None else (max(central, latest) + 1) * interval_s,
        forecast=float(forecast.mean[central]),
    )


def _first(true: NDArray[np.bool_]) -> int | None:
    """The index of the first that is true, or None."""
    index = int(np.argmax(true))
    return index if true[index] else None


def _interval(interval_s: float) -> float:
    if not (math.isfinite(interval_s) and interval_s > 0.0):
        raise InputError(f"the interval between points must be positive and finite, not {interval_s}")
    return interval_s
