"""What is found to be usual, on series of which it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.baseline import BLOCK, BRIEF, CHUNK, FAR, ORDER, POWER_FLOOR, ROUGH_FLOOR, Baseline, fit, scaled

Table = npt.NDArray[np.floating[Any]]


def noise(points: int, metrics: int = 20, seed: int = 1) -> Table:
    return np.random.default_rng(seed).normal(size=(metrics, points))


def found(histories: Table) -> Baseline:
    return fit(histories.astype(np.float32))


def test_centre_and_scale_are_median_and_quartiles() -> None:
    histories = (100 + 7 * noise(1_000)).astype(np.float32)
    baseline = fit(histories)
    np.testing.assert_allclose(baseline.centre, np.median(histories, axis=1), rtol=1e-6)
    low, high = np.quantile(histories, (0.25, 0.75), axis=1)
    np.testing.assert_allclose(baseline.scale, (high - low) / 1.349, rtol=1e-4)


def test_a_series_that_mostly_stands_still_is_scaled_by_its_deviation() -> None:
    histories = np.zeros((3, 400))
    histories[:, ::10] = 5.0
    np.testing.assert_allclose(found(histories).scale, 0.1 * histories.std(axis=1), rtol=0.05)


def test_one_reading_far_away_does_not_set_the_scale() -> None:
    histories = np.round(noise(400) * 0.3)
    plain = found(histories).scale
    histories[:, 200] = 1e30
    np.testing.assert_allclose(found(histories).scale, plain, rtol=0.05)


@pytest.mark.parametrize("period", [16, 24, 37, 144, 288])
def test_a_season_is_found_and_taken_out(period: int) -> None:
    season = 10 * np.sin(np.arange(1_000) * 2 * np.pi / period)
    baseline = found(season + noise(1_000))
    assert (np.abs(baseline.period - period * np.round(baseline.period / period)) <= 1 + period / 40).all()
    assert (baseline.period > 0).all()
    spread = (baseline.adjusted * baseline.scale[:, None]).std(axis=1)
    assert (spread < 2.0).all()  # of 7 with the season


def test_noise_and_walks_have_no_season() -> None:
    both = np.concatenate([noise(1_000), noise(1_000, seed=2).cumsum(axis=1)])
    assert (found(both).period[:20] == 0).all()
    assert found(noise(100)).period.max() <= 100 / 2.2


@pytest.mark.parametrize("weights", [(0.8,), (-0.5,), (0.5, 0.3)])
def test_the_autoregression_is_that_of_the_series(weights: tuple[float, ...]) -> None:
    series = noise(1_200)
    for t in range(len(weights), series.shape[1]):
        series[:, t] += sum(weight * series[:, t - lag - 1] for lag, weight in enumerate(weights))
    baseline = found(series[:, 200:])
    expected = np.zeros(ORDER)
    expected[: len(weights)] = weights
    np.testing.assert_allclose(baseline.weights.mean(axis=0), expected, atol=0.06)
    np.testing.assert_allclose(baseline.noise * baseline.scale, 1.0, atol=0.2)


@settings(deadline=None, max_examples=15)
@given(st.integers(2 * BLOCK + 4, 400), st.integers(0, 1_000))
def test_residuals_and_spreads_are_those_of_the_definition(points: int, seed: int) -> None:
    """By the plain sums, over all places and not every fourth; so spreads may differ by what sampling does."""
    series = noise(points, 3, seed)
    baseline = found(series)
    z = np.clip((series - baseline.centre[:, None]) / baseline.scale[:, None], -6, 6)
    for row in range(3):
        if baseline.period[row]:
            continue
        lags = np.stack([z[row, ORDER - lag : points - lag] for lag in range(1, ORDER + 1)])
        left = (z[row, ORDER:] - baseline.weights[row] @ lags) / baseline.noise[row]
        np.testing.assert_allclose(baseline.residuals[row], np.clip(left, -5, 5)[-BRIEF:], atol=1e-3)
        np.testing.assert_allclose(baseline.steps[row], np.abs(np.diff(z[row]))[-BRIEF:], atol=1e-4)
        np.testing.assert_allclose(baseline.adjusted[row], z[row, -2 * BLOCK :], atol=1e-4)
        usual = baseline.usual[row]
        even = np.ones(BRIEF) / BRIEF
        power = np.log(np.convolve(np.clip(left, -5, 5) ** 2, even, "valid") + POWER_FLOOR)
        rough = np.log(np.convolve(np.abs(np.diff(z[row])), even, "valid") + ROUGH_FLOOR)
        level = np.convolve(z[row], np.ones(BLOCK) / BLOCK, "valid")
        for centre, seen in ((usual[2], level), (usual[4], power), (usual[6], rough)):
            low, high = np.quantile(seen, (0.3, 0.7))
            assert low - 0.02 <= centre <= high + 0.02


def test_a_shifted_and_stretched_series_has_the_same_shape() -> None:
    series = noise(600)
    plain, other = found(series), found(1e4 + 64 * series)
    np.testing.assert_allclose(other.centre, 1e4 + 64 * plain.centre, rtol=1e-5)
    np.testing.assert_allclose(other.scale, 64 * plain.scale, rtol=1e-3)
    np.testing.assert_allclose(other.weights, plain.weights, atol=5e-3)


def test_more_metrics_than_are_taken_at_a_time_do_not_mix() -> None:
    series = noise(200, CHUNK + 5)
    series[::3] += 5 * np.sin(np.arange(200) / 4)
    together, alone = found(series), [found(series[i : i + 1]) for i in range(len(series))]
    for name in Baseline.__annotations__:
        each = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(getattr(together, name), each, rtol=2e-3, atol=2e-3, err_msg=name)


LARGEST = float(np.finfo(np.float32).max) / 4


@pytest.mark.parametrize("points", [100, 137, 1_000])
@pytest.mark.filterwarnings("error")
def test_hostile_histories_have_finite_baselines(points: int) -> None:
    random = np.random.default_rng(2)
    histories = np.stack(
        [
            np.zeros(points),
            np.full(points, LARGEST),
            random.choice([-LARGEST, LARGEST], points),
            np.where(np.arange(points) == 50, LARGEST, 0.0),
            random.choice([0.0, 1e-38], points),
            np.arange(points) % 2 * 1e30,
            np.arange(points, dtype=float),
        ]
    )
    baseline = found(histories)
    for name in Baseline.__annotations__:
        assert np.isfinite(getattr(baseline, name)).all(), name
    assert (baseline.scale > 0).all()
    assert (baseline.noise > 0).all()
    assert (baseline.usual[:, 1::2] > 0).all()


def test_scaled_is_kept_within_far() -> None:
    values = np.array([[-1e30, 0.0, 1e30], [1.0, 2.0, 3.0]], np.float32)
    seen = scaled(values, np.array([0.0, 2.0]), np.array([1e-9, 0.5]))
    np.testing.assert_array_equal(seen, [[-FAR, 0.0, FAR], [-2.0, 0.0, 2.0]])
    assert seen.dtype == np.float32
