"""What is kept of a watch to be drawn when it ends: bounded, whatever comes."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.plot import MAX_PANELS, Trace
from chimera.core.errors import InputError
from chimera.core.watching import Alert, Reading

MAX_METRICS = 100
"""The first so many are recorded; those with the most alerts are drawn."""

MAX_POINTS = 40_000
"""Of a metric. When there are more, the older half is forgotten."""

MAX_ALERTS = 1_000
"""Of a metric. Later ones are not drawn."""


class _Track:
    """A metric's points, column by column."""

    def __init__(self) -> None:
        self.columns = {name: array("d") for name in ("timestamps", "values", "expected", "scores")}
        self.alerts: list[Alert] = []

    def add(self, *point: float) -> None:
        for column, number in zip(self.columns.values(), point, strict=True):
            if len(column) >= MAX_POINTS:
                del column[: MAX_POINTS // 2]
            column.append(number)


class Recorder:
    """Notes each reading and what the engine made of it. To be told after each push."""

    def __init__(self, engine: AnomalyDetectionEngine) -> None:
        self._engine = engine
        self._tracks: dict[str, _Track] = {}

    @property
    def metrics(self) -> int:
        return len(self._tracks)

    def note(self, readings: Sequence[Reading], alerts: Sequence[Alert]) -> None:
        for reading in readings:
            self._note(reading)
        for alert in alerts:
            track = self._tracks.get(alert.metric)
            if track is not None and len(track.alerts) < MAX_ALERTS:
                track.alerts.append(alert)

    def _note(self, reading: Reading) -> None:
        track = self._tracks.get(reading.metric)
        if track is None:
            if len(self._tracks) >= MAX_METRICS:
                return
            track = _Track()
        try:
            view = self._engine.view(reading.metric)
        except InputError:  # it has not been taken in
            return
        before = track.columns["timestamps"]
        if view.timestamp != reading.timestamp or (before and before[-1] >= reading.timestamp):
            return  # it was refused
        missing = math.isnan(reading.value) or view.value is None
        said = (math.nan,) * 3 if missing else (view.value, view.expected, view.score)
        track.add(reading.timestamp, *(math.nan if number is None else number for number in said))
        self._tracks[reading.metric] = track

    def traces(self) -> list[Trace]:
        """The metrics to be drawn, in the order in which they came: of too many, those with the most alerts."""
        most = sorted(self._tracks, key=lambda metric: -len(self._tracks[metric].alerts))[:MAX_PANELS]
        return [
            Trace(
                metric=metric,
                alerts=tuple(track.alerts),
                **{name: np.frombuffer(column) for name, column in track.columns.items()},
            )
            for metric, track in self._tracks.items()
            if metric in most
        ]
