"""The parts of a forecast: the autoregression, the band's errors, seasons and trends."""

from __future__ import annotations

import numpy as np
import pytest

from chimera.anomaly.forecast import conformal, ridge, season, trend


def autoregressive(seed: int, n: int, memory: float) -> ridge.Floats:
    noise = np.random.default_rng(seed).normal(size=n)
    for at in range(1, n):
        noise[at] += memory * noise[at - 1]
    return noise


def test_the_fit_finds_the_coefficients() -> None:
    values = np.random.default_rng(1).normal(size=4_000)
    for at in range(3, 4_000):
        values[at] += 0.5 * values[at - 1] - 0.3 * values[at - 2] + 0.4 * values[at - 3]
    model = ridge.fit(values, lags=4, penalty=1e-3)
    assert model.lags[::-1] == pytest.approx([0.5, -0.3, 0.4, 0.0], abs=0.05)
    assert model.response(4) == pytest.approx([1.0, 0.5, -0.05, 0.225], abs=0.08)


def test_a_great_penalty_leaves_the_last_value() -> None:
    values = autoregressive(2, 400, 0.5)
    model = ridge.fit(values, lags=8, penalty=1e9)
    assert model.lags == pytest.approx([0.0] * 7 + [1.0], abs=1e-5)


def test_errors_are_as_if_the_point_had_been_left_out() -> None:
    """With even weights the closed form is exact: leave one row out, fit again, and compare."""
    values = autoregressive(4, 60, 0.5)
    last, target = values[:-1], np.diff(values)
    terms = np.stack([last, np.ones(59)], axis=1)
    weights = np.linalg.inv(terms.T @ terms) @ terms.T
    hat = np.einsum("ij,ji->i", terms, weights)
    row = 17
    rest = np.arange(59) != row
    left_out = np.linalg.lstsq(terms[rest], target[rest], rcond=None)[0]
    closed = (target - terms @ (weights @ target)) / (1.0 - hat)
    assert target[row] - terms[row] @ left_out == pytest.approx(closed[row])
    robust = ridge.fit(values, lags=1, penalty=1e-6).errors
    assert robust.size == 59 and np.corrcoef(robust, closed)[0, 1] > 0.98


def test_errors_of_later_steps_are_what_a_replay_makes() -> None:
    values = autoregressive(5, 300, 0.8)
    model = ridge.fit(values, lags=4, penalty=0.5)
    steps = (1, 3, 7)
    plain = values[4:] - np.array([model.extend(values[:end], 1)[0] for end in range(4, 300)])
    found = conformal.path_errors(plain, model.response(7), steps)
    for step, errors in zip(steps, found, strict=True):
        replayed = [values[end + step - 1] - model.extend(values[:end], step)[-1] for end in range(4, 300 - step + 1)]
        assert errors == pytest.approx(replayed)


def test_no_error_depends_on_points_after_it() -> None:
    """With the model held, a changed last point changes the last error only."""
    values = autoregressive(6, 200, 0.5)
    model = ridge.fit(values, lags=4, penalty=0.5)
    changed = values.copy()
    changed[-1] += 10.0
    before, after = (
        [each[end] - model.extend(each[:end], 1)[0] for end in range(4, 200)] for each in (values, changed)
    )
    assert before[:-1] == after[:-1] and before[-1] != after[-1]


def test_what_lay_beyond_counts_at_its_own_point() -> None:
    """One point in twenty lay 50 above what the model was shown: the high edge is there, at every step alike."""
    errors = np.random.default_rng(6).normal(size=400)
    beyond = np.where(np.arange(400) % 20 == 0, 50.0, 0.0)
    low, high = conformal.band(errors, np.ones(5), 5, 0.9, beyond)
    plain = conformal.band(errors, np.ones(5), 5, 0.9)
    assert (high > 45.0).all() and (high < 65.0).all() and (plain[1] < 10.0).all()
    assert low == pytest.approx(plain[0], abs=0.5)


@pytest.mark.parametrize("period", [12, 48, 144, 288])
def test_a_period_is_found(period: int) -> None:
    at = np.arange(500)
    noise = np.random.default_rng(7).normal(0, 0.2, 500)
    assert abs(season.find_period(np.sin(2 * np.pi * at / period) + noise) - period) <= max(2, period // 40)
    assert abs(season.find_period(np.where(at % period < period // 3, 1.0, 0.0) + noise) - period) <= 2


def test_noise_and_ramps_have_no_period() -> None:
    assert season.find_period(np.random.default_rng(8).normal(size=500)) == 0
    assert season.find_period(np.zeros(500)) == 0
    assert season.find_period(np.arange(9.0)) == 0


def test_a_wave_carries_on_beside_a_ramp() -> None:
    at = np.arange(560)
    wave = np.sin(2 * np.pi * at / 61.3)
    values = wave[:500] + 0.03 * np.maximum(at[:500] - 400, 0)
    found = season.wave(values, 60, 60)
    assert np.abs(found[500:] - wave[500:]).max() < 0.3
    assert (season.wave(values, 0, 5) == 0.0).all()


@pytest.mark.parametrize("period", [9.7, 24.4, 61.3, 120.7])
def test_a_frequency_is_found_between_the_whole_numbers(period: float) -> None:
    values = np.sin(2 * np.pi * np.arange(500) / period)
    assert 1.0 / season._frequency(values, round(period)) == pytest.approx(period, rel=0.004)


def test_slopes_are_those_of_least_squares() -> None:
    values = autoregressive(9, 200, 0.2)
    lengths = trend.window_lengths(200)
    slopes, _ = trend._lines(values, lengths)
    assert slopes == pytest.approx([np.polyfit(np.arange(size), values[-size:], 1)[0] for size in lengths])


def test_noise_and_random_walks_have_no_trend() -> None:
    rng = np.random.default_rng(10)
    noise = sum(trend.find_trend(rng.normal(size=500)).length > 0 for _ in range(200))
    walks = sum(trend.find_trend(np.cumsum(rng.normal(size=500)) / 20.0).length > 0 for _ in range(200))
    assert noise == 0 and walks <= 10


def test_a_ramp_is_measured_over_its_length() -> None:
    rng = np.random.default_rng(11)
    for length in (60, 120, 200):
        ramp = 0.05 * np.maximum(np.arange(500) - (500 - length), 0) + rng.normal(0, 0.3, 500)
        found = trend.find_trend(ramp)
        assert found.slope == pytest.approx(0.05, rel=0.2) and 0.3 * length <= found.length <= 1.4 * length


def test_a_trend_that_steepens_is_followed() -> None:
    at = np.maximum(np.arange(500) - 350, 0) / 150
    values = 10.0 * at**2 + np.random.default_rng(12).normal(0, 0.2, 500)
    now = trend.find_trend(values)
    course, slope = trend.follow(values, now)
    assert course.shape == (now.length,) and course[-1] == pytest.approx(10.0, abs=0.4)
    assert slope == pytest.approx(20.0 / 150, rel=0.2) and slope > now.slope
