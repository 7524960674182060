"""What the detectors that ship say of series whose truth is known. The contract is tested in tests/contract."""

from __future__ import annotations

import numpy as np
import pytest

from chimera.anomaly.detectors.base import TOP_SCORE, SlotDetector, Values
from chimera.anomaly.detectors.forest import FEWEST, SAMPLE, IsolationForestDetector, _isolation, fit
from chimera.anomaly.detectors.moving_average import MovingAverageDetector
from chimera.anomaly.detectors.statistical import LINE, REFRESH_EVERY, RING, StatisticalDetector
from chimera.core.errors import InputError, StorageError


def run(detector: SlotDetector, values: Values) -> Values:
    return np.array([detector.update(np.array([value]))[0] for value in values])


def noise(points: int, seed: int = 100) -> Values:
    return np.random.default_rng(seed).normal(size=points)


def test_a_robust_score_is_the_distance_in_standard_deviations() -> None:
    detector = StatisticalDetector()
    run(detector, 5.0 + 2.0 * noise(RING))
    assert detector.score_one(5.0 + 2.0 * 10.0) == pytest.approx(10.0, rel=0.25)


def test_a_third_of_wild_readings_does_not_move_a_robust_score() -> None:
    values = noise(RING)
    values[::4] = 1e6
    detector = StatisticalDetector()
    run(detector, values)
    assert detector.score_one(30.0) > 10.0


def test_median_and_quartiles_are_taken_anew_every_so_often() -> None:
    detector = StatisticalDetector()
    run(detector, noise(RING))
    before = detector.score_one(3.0)
    run(detector, np.full(REFRESH_EVERY - 1, 3.0))
    stale = detector._rows["median"][0]
    run(detector, np.full(1, 3.0))
    assert detector._rows["median"][0] > stale
    assert before > 0.0


def test_a_slow_climb_is_steep_though_no_reading_is_far() -> None:
    values = noise(900)
    values[800:] += 0.06 * np.arange(100)
    detector = StatisticalDetector()
    scores, alone = [], []
    for value in values:
        alone.append(abs(value - detector._rows["median"][0]) / abs(detector._rows["sigma"][0]))
        scores.append(detector.update(np.array([value]))[0])
    late = slice(800 + LINE // 2, 800 + LINE)
    assert np.median(scores[late]) > 1.5 * np.median(alone[late])
    assert np.median(scores[late]) > 1.5 * np.median(scores[400:800])


def test_a_slot_that_is_anothers_by_now_is_not_rebased() -> None:
    detector = StatisticalDetector(2)
    for value in noise(100):
        detector.update(np.array([value, value]))
    study = detector.study()
    assert study is not None
    adopt = study()
    detector.forget(np.array([0]))
    adopt()
    assert detector._rows["sigma"].tolist()[0] == -1.0
    detector.resize(1)
    adopt()


def test_what_leaves_a_constant_series_is_as_far_as_can_be() -> None:
    for detector in (StatisticalDetector(), MovingAverageDetector()):
        assert run(detector, np.full(200, 7.0))[-1] == 0.0
        assert detector.score_one(7.1) == TOP_SCORE


def test_control_limits_hold_nearly_all_readings() -> None:
    detector, outside = MovingAverageDetector(), 0
    values = noise(3_000)
    run(detector, values[:500])
    for value in values[500:]:
        low, high = detector.limits()
        outside += not low[0] <= value <= high[0]
        detector.learn_one(float(value))
    assert 0.0005 < outside / 2_500 < 0.02


def test_one_spike_does_not_widen_the_limits_much() -> None:
    detector = MovingAverageDetector()
    run(detector, noise(500))
    low, high = detector.limits()
    detector.learn_one(1e9)
    wider = detector.limits()
    assert wider[1][0] - wider[0][0] < 1.5 * (high[0] - low[0])


def test_a_small_shift_is_seen_by_the_mean_of_several() -> None:
    detector = MovingAverageDetector()
    values = noise(800)
    values[600:] += 1.5
    scores, alone = [], []
    for value in values:
        low, high = detector.limits(1.0)
        alone.append(abs(value - (low[0] + high[0]) / 2.0) / max((high[0] - low[0]) / 2.0, 1e-9))
        scores.append(detector.update(np.array([value]))[0])
    late = slice(605, 620)
    assert np.median(scores[late]) > 1.5 * np.median(alone[late])
    assert np.median(scores[late]) > 1.5 * np.median(scores[300:600])


def test_weights_and_seeds_must_be_in_range() -> None:
    for slow, fast in ((0.0, 0.5), (0.5, 0.2), (0.1, 1.5)):
        with pytest.raises(InputError):
            MovingAverageDetector(slow=slow, fast=fast)
    with pytest.raises(InputError):
        IsolationForestDetector(seed=-1)
    with pytest.raises(InputError):
        StatisticalDetector(-1)


def taught(points: int = 400) -> IsolationForestDetector:
    detector = IsolationForestDetector(20)
    for row in np.random.default_rng(100).normal(size=(points, 20)):
        detector.update(row)
    return detector


def study(detector: IsolationForestDetector) -> None:
    studied = detector.study()
    assert studied is not None
    studied()()


def test_a_forest_says_nothing_until_it_is_fitted_and_never_fits_inline() -> None:
    detector = taught()
    assert not detector.fitted
    assert detector.update(np.zeros(20)).tolist() == [0.0] * 20
    study(detector)
    scores = detector.update(np.concatenate([np.full(1, 50.0), np.zeros(19)]))
    assert scores[0] > 0.6 > scores[1:].mean()


def test_the_trees_as_arrays_score_as_scikit_learn_does() -> None:
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(100)
    sample, asked = (rng.standard_t(3, size=(size, 5)).astype(np.float32) for size in (SAMPLE, 500))
    theirs = IsolationForest(n_estimators=25, max_samples=256, random_state=7).fit(sample)
    np.testing.assert_allclose(_isolation(fit(sample, 7), asked), -theirs.score_samples(asked), rtol=1e-9)


def test_the_sample_is_bounded_full_at_once_and_then_of_all_ages() -> None:
    detector, rows = IsolationForestDetector(), 50 * SAMPLE
    for first in range(0, rows, 512):
        numbers = np.arange(first, first + 512, dtype=np.float32)
        detector._collect(np.repeat(numbers[:, None], 5, axis=1))
        if first + 512 == SAMPLE:
            assert sorted(detector._sample[:, 0].tolist()) == list(range(SAMPLE))
    ages = 1.0 - detector._sample[:, 0] / rows
    assert detector._sample.shape == (SAMPLE, 5)
    assert len(set(ages.tolist())) == SAMPLE
    np.testing.assert_allclose(np.quantile(ages, (0.25, 0.5, 0.75)), (0.25, 0.5, 0.75), atol=0.05)


def test_a_forest_needs_enough_to_learn_from() -> None:
    detector = IsolationForestDetector()
    run(detector, noise(30 + FEWEST - 1))
    assert detector.study() is None
    run(detector, noise(1))
    assert detector.study() is not None


def test_a_snapshot_with_trees_that_lead_astray_is_refused() -> None:
    detector = taught(60)
    study(detector)
    for name, value in (("tree_children", 10**9), ("tree_feature", 5), ("tree_levels", 10**6), ("tree_roots", -1)):
        state = detector.snapshot()
        state[name][0] = value
        with pytest.raises(StorageError, match="trees are damaged"):
            IsolationForestDetector().restore(state)
    state = detector.snapshot()
    del state["tree_depth"]
    with pytest.raises(StorageError):
        IsolationForestDetector().restore(state)
