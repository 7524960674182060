"""The analytic Gaussian is the least noise that keeps its defining inequality."""

from __future__ import annotations

import math

import mpmath  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.sandbox.privacy.gaussian import delta_of, sigma_for, with_noise


def exact_delta(epsilon: float, sigma: float) -> float:
    with mpmath.workdps(60):
        s, e = mpmath.mpf(sigma), mpmath.mpf(epsilon)
        return float(mpmath.ncdf(1 / (2 * s) - e * s) - mpmath.exp(e) * mpmath.ncdf(-1 / (2 * s) - e * s))


@given(st.floats(0.01, 200.0), st.floats(-9.0, -2.0), st.floats(1e-3, 1e3))
def test_sigma_is_the_least_that_keeps_delta(epsilon: float, log_delta: float, sensitivity: float) -> None:
    delta = 10.0**log_delta
    sigma = sigma_for(epsilon=epsilon, delta=delta, sensitivity=sensitivity) / sensitivity
    assert exact_delta(epsilon, sigma * 1.000001) <= delta < exact_delta(epsilon, sigma * 0.9999)
    assert delta_of(epsilon=epsilon, noise_multiplier=sigma) == pytest.approx(exact_delta(epsilon, sigma), rel=1e-5)


def test_it_needs_less_than_the_classical_bound() -> None:
    classical = math.sqrt(2.0 * math.log(1.25 / 1e-5)) / 0.9
    assert 0.6 * classical < sigma_for(epsilon=0.9, delta=1e-5) < 0.9 * classical


def test_the_ends() -> None:
    assert sigma_for(epsilon=math.inf, delta=1e-5) == 0.0
    assert sigma_for(epsilon=1.0, delta=1e-5, sensitivity=0.0) == 0.0
    assert delta_of(epsilon=1.0, noise_multiplier=0.0) == 1.0
    for wrong in ({"epsilon": 0.0}, {"delta": 0.0}, {"delta": 1.0}, {"sensitivity": -1.0}, {"epsilon": math.nan}):
        with pytest.raises(InputError):
            sigma_for(**({"epsilon": 1.0, "delta": 1e-5} | wrong))


def test_the_noise_has_the_size_that_is_paid_for() -> None:
    noisy = with_noise(np.full(40_000, 3.0), sensitivity=2.0, noise_multiplier=1.5, rng=np.random.default_rng(1))
    assert noisy.mean() == pytest.approx(3.0, abs=0.06)
    assert noisy.std() == pytest.approx(3.0, rel=0.02)
    again = with_noise(np.full(40_000, 3.0), sensitivity=2.0, noise_multiplier=1.5, rng=np.random.default_rng(1))
    assert np.array_equal(noisy, again)
