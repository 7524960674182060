"""The nearest earlier stretch, against looking at each of them in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.patterns import APART, CHUNK, LENGTH, nearest, products

Table = npt.NDArray[np.floating[Any]]

LEAST = 2 * LENGTH + APART
lengths = st.integers(LEAST, 6 * LENGTH)
seeds = st.integers(0, 10_000)


def table(metrics: int, points: int, seed: int) -> Table:
    """Values as they come to `nearest`: scaled, within 8."""
    random = np.random.default_rng(seed)
    steps = random.normal(size=(metrics, points)) * random.choice([0.01, 1.0, 5.0], (metrics, 1))
    return np.clip(steps + random.normal(size=(metrics, 1)), -8, 8).astype(np.float32)


def by_hand(history: Table) -> float:
    wide = history.astype(np.float64)
    query = wide[-LENGTH:] - wide[-LENGTH:].mean()
    found = []
    for start in range(len(wide) - LEAST + 1):
        stretch = wide[start : start + LENGTH]
        found.append(np.sqrt(((query - stretch + stretch.mean()) ** 2).mean()))
    return float(min(found))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), lengths, seeds)
def test_the_nearest_is_the_least_of_all_distances(metrics: int, points: int, seed: int) -> None:
    histories = table(metrics, points, seed)
    np.testing.assert_allclose(nearest(histories), [by_hand(row) for row in histories], rtol=1e-3, atol=2e-3)


def test_more_metrics_than_are_taken_at_a_time_do_not_mix() -> None:
    histories = table(2 * CHUNK + 3, 100, 1)
    alone = np.concatenate([nearest(histories[i : i + 1]) for i in range(len(histories))])
    np.testing.assert_allclose(nearest(histories), alone, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(LENGTH, 5 * LENGTH), seeds)
def test_products_are_those_of_all_neighbours(metrics: int, points: int, seed: int) -> None:
    series, kernels = table(metrics, points, seed), table(metrics, LENGTH, seed + 1)
    expected = [np.correlate(one, kernel, "valid") for one, kernel in zip(series, kernels, strict=True)]
    np.testing.assert_allclose(products(series, kernels), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("level", [0.0, 7.5])
def test_a_stretch_seen_before_is_near_and_its_level_does_not_count(level: float) -> None:
    history = table(1, 200, 3)[0] / 4
    history[-LENGTH:] = np.clip(history[50 : 50 + LENGTH] / 4, -0.5, 0.5)
    history[50 : 50 + LENGTH] = history[-LENGTH:] + level
    assert nearest(history[None])[0] < 0.01


def test_what_overlaps_the_stretch_is_no_past() -> None:
    ramp = np.zeros(100, np.float32)
    ramp[-LENGTH - APART :] = np.tile([3.0, -3.0], 12)
    assert nearest(ramp[None])[0] > 1.0


def test_none_is_none() -> None:
    assert nearest(np.empty((0, 100), np.float32)).shape == (0,)
