"""Forecasts: finite for any history, the same in any unit, and better than the last value where they can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from chimera.anomaly.forecast.engine import MAX_HORIZON, Forecast, ForecastEngine, forecast
from chimera.core.errors import InputError

Floats = NDArray[np.float64]

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)

HARD = st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0, 1.0, 1.0, 1.0, 3.4e38, 1e-30])

ENGINE = ForecastEngine()


def autoregressive(seed: int, n: int, memory: float) -> Floats:
    noise = np.random.default_rng(seed).normal(size=n + 100)
    values = np.zeros(n + 100)
    for at in range(1, values.size):
        values[at] = memory * values[at - 1] + noise[at]
    return values[100:]


def check(found: Forecast, horizon: int) -> None:
    for part in found:
        assert part.shape == (horizon,) and np.isfinite(part).all()
    assert (found.low <= found.mean).all() and (found.mean <= found.high).all()


@settings(max_examples=150)
@given(
    st.one_of(
        arrays(np.float64, st.integers(0, 80), elements=ANY),
        arrays(np.float64, st.integers(0, 300), elements=HARD),
        arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)),
    ),
    st.integers(1, 80),
)
def test_any_history_has_a_finite_forecast(history: Floats, horizon: int) -> None:
    check(ENGINE.forecast(history, horizon), horizon)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 11, 12, 13, 23, 24, 25, 26, 48, 100, 999, 1_000, 2_000])
@pytest.mark.parametrize("shape", ["noise", "constant", "line", "parabola", "exponential", "square", "sine", "step"])
def test_any_length_and_shape_has_a_finite_forecast(n: int, shape: str) -> None:
    at = np.arange(n, dtype=np.float64)
    shapes = {
        "noise": np.random.default_rng(n).normal(size=n),
        "constant": np.full(n, 7.0),
        "line": 1e6 + 3.0 * at,
        "parabola": at * at,
        "exponential": np.exp(at / 5.0),
        "square": (at // 12) % 2,
        "sine": np.sin(2 * np.pi * at / 24),
        "step": np.where(at < n - 7, 0.0, 1e9),
    }
    for horizon in (1, 60, MAX_HORIZON):
        check(ENGINE.forecast(shapes[shape], horizon), horizon)


def test_a_constant_goes_on_and_is_certain() -> None:
    for value in (0.0, -3.25, 1e308, 5e-324):
        found = ENGINE.forecast(np.full(300, value), 10)
        for part in found:
            assert part == pytest.approx(np.full(10, value))


def test_one_point_says_nothing_of_what_may_come() -> None:
    found = ENGINE.forecast([4.0], 3)
    assert (found.mean == 4.0).all() and (found.low < -1e300).all() and (found.high > 1e300).all()


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 400),
    st.floats(-1e3, 1e3).filter(lambda a: abs(a) > 1e-3),
    st.floats(-1e3, 1e3),
    st.sampled_from(["noise", "ramp", "season"]),
)
def test_the_unit_does_not_matter(seed: int, n: int, factor: float, offset: float, shape: str) -> None:
    values = autoregressive(seed, n, 0.7)
    if shape == "ramp":
        values += 0.4 * np.maximum(np.arange(n) - n // 2, 0)
    if shape == "season":
        values += 5.0 * np.sin(2 * np.pi * np.arange(n) / 48)
    plain, other = ENGINE.forecast(values, 20), ENGINE.forecast(factor * values + offset, 20)
    size = 1e-5 * (abs(factor) * float(np.ptp(values)) + 1e-9 * abs(offset))
    low, high = (plain.low, plain.high) if factor > 0 else (plain.high, plain.low)
    for part, expected in ((other.mean, plain.mean), (other.low, low), (other.high, high)):
        assert np.allclose(part, factor * expected + offset, rtol=0.0, atol=size)


def test_the_history_is_left_as_it_was_and_gives_the_same_again() -> None:
    values = autoregressive(3, 400, 0.8)
    values[50] = np.nan
    before = values.copy()
    first, second = ENGINE.forecast(values, 10), ENGINE.forecast(values, 10)
    assert np.array_equal(values, before, equal_nan=True)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_longer_horizon_has_the_same_beginning() -> None:
    values = autoregressive(4, 400, 0.8) + 0.2 * np.maximum(np.arange(400) - 250, 0)
    short, long = ENGINE.forecast(values, 10), ENGINE.forecast(values, 60)
    assert np.allclose(short.mean, long.mean[:10])


def test_missing_points_matter_little() -> None:
    values = 10.0 * np.sin(2 * np.pi * np.arange(500) / 50) + autoregressive(5, 500, 0.3)
    holes = values.copy()
    holes[np.random.default_rng(5).random(500) < 0.05] = np.nan
    holes[-1] = np.inf
    assert np.abs(ENGINE.forecast(holes, 20).mean - ENGINE.forecast(values, 20).mean).mean() < 1.0


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_nine_in_ten_lie_in_the_band_at_every_step(memory: float) -> None:
    inside = []
    for seed in range(120):
        values = autoregressive(seed, 420, memory)
        found = ENGINE.forecast(values[:400], 20)
        inside.append((values[400:] >= found.low) & (values[400:] <= found.high))
    share = np.array(inside).mean(axis=0)
    assert 0.86 <= share.mean() <= 0.96
    assert share.min() >= 0.80


def test_a_higher_level_has_a_wider_band() -> None:
    values = autoregressive(6, 500, 0.5)
    narrow, wide = (ForecastEngine(level=level).forecast(values, 10) for level in (0.6, 0.95))
    assert (wide.high - wide.low > 1.5 * (narrow.high - narrow.low)).all()


def error_share(values: Floats, horizon: int = 10) -> float:
    """The error of the forecast in shares of the last value's, over many origins."""
    ours, naive = 0.0, 0.0
    for end in range(400, values.size - horizon, 23):
        truth = values[end : end + horizon]
        ours += float(np.abs(truth - forecast(values[end - 400 : end], horizon)[0]).mean())
        naive += float(np.abs(truth - values[end - 1]).mean())
    return ours / naive


def test_it_learns_what_there_is_to_learn() -> None:
    noise = np.random.default_rng(7).normal(size=1_200)
    at = np.arange(1_200)
    assert error_share(noise) < 0.85
    assert error_share(autoregressive(7, 1_200, 0.6)) < 0.85
    assert error_share(10.0 * np.sin(2 * np.pi * at / 96) + noise) < 0.35
    assert error_share(np.where((at // 40) % 2 == 0, 0.0, 10.0) + 0.1 * noise) < 0.6
    assert error_share(np.cumsum(noise)) < 1.2


def test_a_spike_does_not_carry_on() -> None:
    values = np.random.default_rng(8).normal(size=500)
    values[-1] = 200.0
    assert np.abs(ENGINE.forecast(values, 10).mean).max() < 3.0


def test_spikes_in_the_past_hardly_matter() -> None:
    values = 10.0 + autoregressive(8, 500, 0.8)
    spiked = values.copy()
    spiked[20:480:50] += 1_000.0
    assert np.abs(ENGINE.forecast(spiked, 10).mean - ENGINE.forecast(values, 10).mean).max() < 1.0


def test_a_new_level_does() -> None:
    values = np.random.default_rng(9).normal(size=500)
    values[-30:] += 50.0
    assert ENGINE.forecast(values, 10).mean.min() > 40.0


def test_a_ramp_goes_on_and_a_plateau_does_not() -> None:
    noise = np.random.default_rng(10).normal(size=600)
    at = np.arange(600)
    for side in (1.0, -1.0):
        ramp = 50.0 + side * 0.3 * np.clip(at - 350, 0, 100) + noise
        on, ended = ENGINE.forecast(ramp[:450], 60).mean, ENGINE.forecast(ramp[:500], 60).mean
        assert side * (on[-1] - 50.0) > 30.0 + 0.75 * 0.3 * 60
        assert abs(ended[-1] - (50.0 + side * 30.0)) < 4.0


def test_a_ramp_longer_than_a_season_is_one() -> None:
    at = np.arange(560)
    noise = np.random.default_rng(11).normal(size=560)
    values = 4.0 * np.sin(2 * np.pi * at / 100) + 0.3 * np.maximum(at - 350, 0) + noise
    assert ENGINE.forecast(values[:500], 60).mean[-1] == pytest.approx(
        0.3 * 210 + 4.0 * np.sin(2 * np.pi * 5.6), abs=6.0
    )


def test_a_ramp_is_seen_beside_a_season() -> None:
    at = np.arange(480)
    values = 4.0 * np.sin(2 * np.pi * at / 120) + 0.3 * np.maximum(at - 380, 0)
    values += np.random.default_rng(11).normal(size=480)
    truth = 4.0 * np.sin(2 * np.pi * np.arange(480, 540) / 120) + 0.3 * (np.arange(480, 540) - 380)
    assert np.abs(ENGINE.forecast(values, 60).mean - truth).mean() < 4.0


@pytest.mark.parametrize("horizon", [0, -1, MAX_HORIZON + 1])
def test_a_horizon_out_of_range_is_refused(horizon: int) -> None:
    with pytest.raises(InputError, match="horizon must be in"):
        ENGINE.forecast([1.0], horizon)


@pytest.mark.parametrize(
    "settings_",
    [
        {"level": 1.0},
        {"level": np.nan},
        {"lags": 0},
        {"penalty": 0.0},
        {"window": 5},
        {"window": 1_001},
        {"trimmed": 0.5},
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings_))):
        ForecastEngine(**settings_)  # type: ignore[arg-type]
