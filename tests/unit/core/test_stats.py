"""Wilson intervals against published figures and their own laws; percentiles against their definition."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom
from statsmodels.stats.proportion import proportion_confint

from chimera.core.stats import beta_binomial_tail, percentile, wilson_interval

# wins and n with 0 <= wins <= n
counts = st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
floats = st.floats(-1e9, 1e9)


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        # The four cases of table I in R. G. Newcombe, "Two-sided confidence intervals for the single proportion",
        # Statistics in Medicine 17 (1998), with two more decimals than its method 3 prints.
        (81, 263, 0.255289, 0.366210),
        (15, 148, 0.062386, 0.160487),
        (0, 20, 0.0, 0.161125),
        (1, 29, 0.006113, 0.171755),
    ],
)
def test_published_intervals(wins: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(wins, n) == pytest.approx((low, high), abs=5e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 29, 148, 263, 1_000, 100_000])
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.1, 0.5])
def test_intervals_are_those_of_statsmodels(n: int, alpha: float) -> None:
    z = -statistics.NormalDist().inv_cdf(alpha / 2)
    for wins in {*range(0, n + 1, 1 + n // 30), n}:
        expected = proportion_confint(wins, n, alpha=alpha, method="wilson")
        assert wilson_interval(wins, n, z) == pytest.approx(expected, abs=1e-12)


@given(counts)
def test_an_interval_holds_the_share_and_stays_in_bounds(count: tuple[int, int]) -> None:
    wins, n = count
    low, high = wilson_interval(wins, n)
    assert 0.0 <= low <= wins / n <= high <= 1.0
    assert low < high


@given(counts)
def test_wins_and_losses_are_mirror_images(count: tuple[int, int]) -> None:
    wins, n = count
    low, high = wilson_interval(wins, n)
    assert wilson_interval(n - wins, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(counts, st.integers(2, 50))
def test_more_of_the_same_narrows_the_interval(count: tuple[int, int], times: int) -> None:
    wins, n = count
    few, many = wilson_interval(wins, n), wilson_interval(wins * times, n * times)
    assert many[1] - many[0] < few[1] - few[0]


@given(counts, st.floats(0.1, 2.0), st.floats(1.01, 2.0))
def test_more_confidence_widens_the_interval(count: tuple[int, int], z: float, wider: float) -> None:
    low, high = wilson_interval(*count, z=z)
    wide_low, wide_high = wilson_interval(*count, z=z * wider)
    assert wide_low <= low
    assert high <= wide_high
    assert wide_high - wide_low > high - low


def test_nothing_seen_is_nothing_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("wins", "n"), [(-1, 5), (6, 5), (0, -1), (1, 0)])
def test_counts_that_cannot_be_are_refused(wins: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"wins must be in 0\.\.n"):
        wilson_interval(wins, n)


@given(st.lists(floats, min_size=1, max_size=30))
def test_ends_and_middle_of_the_percentiles(values: list[float]) -> None:
    assert percentile(values, 0.0) == min(values)
    assert percentile(values, 1.0) == max(values)
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values), rel=1e-9, abs=1e-6)


@given(st.lists(floats, min_size=2, max_size=30), st.integers(1, 99))
def test_percentiles_are_those_of_the_standard_library(values: list[float], percent: int) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    assert percentile(values, percent / 100) == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_percentiles_of_nothing_and_beyond() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        percentile([1.0], 1.5)


@pytest.mark.parametrize(("n", "alpha", "beta"), [(1, 1, 1), (9, 8.0, 2.0), (63, 1.0, 40.0)])
def test_the_beta_binomial_tail_is_that_of_scipy(n: int, alpha: float, beta: float) -> None:
    for least in range(n + 1):
        expected = betabinom.sf(least - 1, n, alpha, beta)
        assert beta_binomial_tail(least, n, alpha, beta) == pytest.approx(expected, abs=1e-12)
    assert beta_binomial_tail(n + 1, n, alpha, beta) == 0.0
