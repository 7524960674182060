"""Chimera's own detector and forecaster, as they are evaluated."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from chimera.anomaly.evaluate import run
from chimera.anomaly.evaluate.synthetic import synthetic_series
from chimera.anomaly.evaluation import detector, forecast
from chimera.core.watching import AnomalyKind


@pytest.mark.parametrize("kind", [AnomalyKind.SPIKE, AnomalyKind.DROP])
def test_it_finds_what_is_plain_and_names_it(kind: AnomalyKind) -> None:
    series = synthetic_series("flat", kind, 100)
    trace = run(detector, series)
    for window in series.windows:
        alerts = np.flatnonzero(trace.alerts[window.first : window.last + 1]) + window.first
        assert len(alerts) and trace.kinds[alerts[0]] is kind
    assert (trace.alerts & ~series.inside())[series.probation :].sum() <= 1


def test_a_stream_starts_from_nothing() -> None:
    """No state passes from one series to the next, nor between two that are read in turns."""
    series = synthetic_series("season", AnomalyKind.PATTERN, 100)
    points = list(zip(series.timestamps.tolist(), series.values.tolist(), strict=True))[:700]
    alone = list(detector(iter(points)))
    first, second = detector(iter(points)), detector(iter(points))
    turns = list(zip(first, second, strict=True))
    assert [one for one, _ in turns] == [other for _, other in turns] == alone


def test_what_comes_later_changes_nothing_that_was_said() -> None:
    series = synthetic_series("ar", AnomalyKind.SPIKE, 100)
    points = list(zip(series.timestamps.tolist(), series.values.tolist(), strict=True))[:700]
    other = [*points[:600], *((timestamp, -1e6 * value) for timestamp, value in points[600:])]
    assert list(islice(detector(iter(points)), 600)) == list(islice(detector(iter(other)), 600))


def test_a_forecast_has_a_mean_within_its_band() -> None:
    mean, low, high = forecast(synthetic_series("season", None, 100).values[:500], 10)
    assert len(mean) == len(low) == len(high) == 10
    assert (low < mean).all() and (mean < high).all()
