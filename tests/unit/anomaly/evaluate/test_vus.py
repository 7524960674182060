"""VUS-PR against the definition written out point by point, and what it says of plain cases."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.evaluate.vus import THRESHOLDS, vus_pr


def slow_volume(scores: np.ndarray, labels: np.ndarray, tolerance: int) -> float:
    """Every width by itself: soften the labels, draw the precision-recall curve, add up its area."""
    points = len(scores)
    runs, at = [], 0
    while at < points:
        if labels[at]:
            first = at
            while at + 1 < points and labels[at + 1]:
                at += 1
            runs.append((first, at))
        at += 1
    ranked = sorted(scores, reverse=True)
    thresholds = [ranked[int(place)] for place in np.linspace(0, points - 1, THRESHOLDS)]
    return float(np.mean([slow_area(scores, labels, runs, thresholds, width) for width in range(tolerance + 1)]))


def slow_area(
    scores: np.ndarray, labels: np.ndarray, runs: list[tuple[int, int]], thresholds: list[float], width: int
) -> float:
    points, half = len(scores), width // 2
    soft = labels.astype(float)
    for first, last in runs:
        for at in range(points):
            away = max(first - at, at - last)
            if 0 < away <= half:
                soft[at] = min(1.0, soft[at] + math.sqrt(1 - away / width))
    areas: list[list[int]] = [[runs[0][0] - half, runs[0][1] + half]]
    for (_, last), (first, following) in pairwise(runs):
        if last + half < first - half:
            areas.append([first - half, following + half])
        areas[-1][1] = following + half
    area, before = 0.0, 0.0
    for threshold in thresholds:
        over = scores >= threshold
        hits = float(soft[over].sum())
        positives = labels.sum() + (hits - float(labels[over].sum())) / 2
        exists = np.mean([over[max(a, 0) : b + 1].any() for a, b in areas])
        recall = min(1.0, hits / positives) * float(exists)
        area += (recall - before) * hits / float(over.sum())
        before = recall
    return area


@settings(max_examples=30)
@given(st.data())
def test_all_widths_at_once_are_each_width_by_itself(data: st.DataObject) -> None:
    points = data.draw(st.integers(5, 120))
    scores = np.array(data.draw(st.lists(st.integers(0, 12), min_size=points, max_size=points)), dtype=float)
    labels = np.array(data.draw(st.lists(st.sampled_from([False, False, True]), min_size=points, max_size=points)))
    labels[data.draw(st.integers(0, points - 1))] = True
    tolerance = data.draw(st.integers(0, 30))
    assert vus_pr(scores, labels, tolerance) == pytest.approx(slow_volume(scores, labels, tolerance), abs=1e-12)


def test_the_better_ranking_has_the_larger_volume() -> None:
    labels = np.zeros(2_000, dtype=np.bool_)
    labels[500:520] = labels[1_500:1_530] = True
    rng = np.random.default_rng(1)
    noise = rng.random(2_000)
    exact, near = labels + noise / 1_000, np.roll(labels, 3) + noise / 1_000
    assert vus_pr(exact, labels, 0) > 0.95
    assert vus_pr(exact, labels, 20) > vus_pr(near, labels, 20) > 0.5 > vus_pr(noise, labels, 20)
    assert vus_pr(noise, labels, 0) == pytest.approx(labels.mean(), abs=0.02)
    assert vus_pr(-exact, labels, 0) < 0.03


def test_nothing_labelled_has_no_volume() -> None:
    assert math.isnan(vus_pr(np.arange(10.0), np.zeros(10, dtype=np.bool_), 5))


def test_only_the_order_of_scores_counts() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=500), rng.random(500) < 0.1
    assert vus_pr(scores, labels, 20) == pytest.approx(vus_pr(np.exp(3 * scores), labels, 20), abs=1e-12)
