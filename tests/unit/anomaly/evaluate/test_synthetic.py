"""Made series: what a seed gives, and that what is labelled is there."""

from __future__ import annotations

import numpy as np
import pytest

from chimera.anomaly.evaluate import make_synthetic
from chimera.anomaly.evaluate.synthetic import BASES, GRACE, KINDS, POINTS, PROBATION, synthetic_series
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyKind


def test_a_seed_has_every_base_with_every_kind_and_with_none() -> None:
    series = make_synthetic(2, 100)
    assert len(series) == 60
    assert {each.name for each in series} >= {"flat/spike/100", "drift/clean/101", "count/pattern/100"}
    for each in series:
        assert len(each.values) == POINTS and np.isfinite(each.values).all()
        assert all(window.kind == each.group for window in each.windows)
        assert len(each.windows) == (0 if each.group == "clean" else 2)
        assert all(window.first >= PROBATION for window in each.windows)


def test_a_series_follows_from_its_seed_alone() -> None:
    one, other = synthetic_series("ar", AnomalyKind.TREND, 7), synthetic_series("ar", AnomalyKind.TREND, 7)
    assert np.array_equal(one.values, other.values) and one.windows == other.windows
    assert not np.array_equal(one.values, synthetic_series("ar", AnomalyKind.TREND, 8).values)


@pytest.mark.parametrize("base", BASES)
def test_spikes_stand_out_upwards_and_drops_downwards(base: str) -> None:
    for seed in range(5):
        for kind, sign in ((AnomalyKind.SPIKE, 1), (AnomalyKind.DROP, -1)):
            series = synthetic_series(base, kind, seed)  # type: ignore[arg-type]
            for window in series.windows:
                strange = series.values[window.first : window.last - GRACE + 1]
                before = series.values[window.first - 10 : window.first]
                assert sign * (strange.mean() - before.mean()) > 2 * before.std()


def test_a_stuck_sensor_repeats_its_last_value() -> None:
    stuck = 0
    for seed in range(20):
        series = synthetic_series("flat", AnomalyKind.PATTERN, seed)
        for window in series.windows:
            strange = series.values[window.first : window.last - GRACE + 1]
            stuck += bool((strange == series.values[window.first - 1]).all())
    assert 5 <= stuck <= 25  # a third of 40


def test_the_same_figures_everywhere() -> None:
    """Pinned: a change of these series changes every published figure. The order of draws is part of it."""
    sums = [sum(float(np.sum(each.values)) for each in make_synthetic(1, seed)) for seed in (100, 101)]
    assert sums == pytest.approx(PINNED, rel=1e-9)
    starts = [window.first for each in make_synthetic(1, 100) for window in each.windows]
    assert starts[:6] == STARTS


PINNED = [5299435.160471159, 22363168.97694555]
STARTS = [787, 1168, 760, 1120, 736, 1299]


@pytest.mark.parametrize(("seeds", "first"), [(0, 0), (1_001, 0), (1, -1)])
def test_seeds_out_of_range_are_refused(seeds: int, first: int) -> None:
    with pytest.raises(InputError, match="seeds from 0 on"):
        make_synthetic(seeds, first)


def test_every_kind_of_the_watch_is_made() -> None:
    assert set(KINDS) == set(AnomalyKind)
