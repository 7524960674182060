"""The watch as a detector of odd windows: played to after a common past, and hardened by the sandbox."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from chimera.anomaly.ensemble import Ensemble
from chimera.core.errors import InputError
from chimera.sandbox.hardening import Parts, harden
from chimera.sandbox.hardening.harden import Effort
from chimera.sandbox.schema import Column, Floats
from chimera.sandbox.threats import Reference, ThreatKind, bootstrap, make_window_threats
from chimera.system.hardening import EnsembleDetector, windows_of

NAB = Path(__file__).parents[2] / "data" / "nab" / "data"
METRIC = Column(name="load", low=0.0, high=100.0, step=0.1)
LENGTH = 48


def metric(n: int, seed: int) -> Floats:
    return 50.0 + 5.0 * np.random.default_rng(seed).standard_normal(n)


@pytest.fixture(scope="module")
def detector() -> EnsembleDetector:
    return EnsembleDetector(metric(400, 0), length=LENGTH)


def test_windows_are_judged_as_the_ensemble_judges_a_metric_with_that_past(detector: EnsembleDetector) -> None:
    windows = np.stack([metric(LENGTH, seed) for seed in range(5)])
    windows[3, 20:] += 40.0
    scores, evidence = detector.score(windows[:, None, :]), detector.evidence(windows[:, None, :])
    for window, score, seen in zip(windows, scores, evidence, strict=True):
        alone = Ensemble(1)
        for value in metric(400, 0):
            alone.update([value])
        said = [alone.update([value]) for value in window]
        assert score == pytest.approx(max(float(each.score[0]) for each in said))
        most = np.max([each.channel_scores[0] for each in said], axis=0)
        assert seen[: len(most)] == pytest.approx(most, rel=1e-5)
    assert scores.argmax() == 3


def test_one_window_does_not_change_what_is_said_of_another(detector: EnsembleDetector) -> None:
    windows = np.stack([metric(LENGTH, seed) for seed in range(8)])[:, None, :]
    together = detector.score(windows)
    assert detector.score(windows[::-1])[::-1] == pytest.approx(together)
    assert [float(detector.score(window[None])[0]) for window in windows] == pytest.approx(together)


def test_hardening_finds_levels_that_the_watch_passes_over() -> None:
    length = 192  # four times what the watch's own channels look back on
    table = windows_of(metric(20_000, 1), length, column=METRIC, every=8)
    parts = Parts.in_order(table, gap=length // 8)
    effort = Effort(rounds=1, train_batches=150, measure_batches=150, clean_batches=2_000, queries=1)
    hardened, report = harden(
        EnsembleDetector(metric(400, 0), length=length),
        parts,
        bootstrap(parts.fit),
        kinds=(ThreatKind.BIASED,),
        strengths=(0.2, 0.4),
        seed=2,
        windows=True,
        alarms_per_1000=10.0,
        effort=effort,
    )
    assert report.rows == 1
    small, larger = report.measured
    assert small.gain_interval[0] > 0.0
    assert larger.gain_interval[0] > 0.3
    assert report.clean.gain * 1000.0 <= 0.1
    assert hardened.name == "hardened ensemble"


def test_real_readings_make_threats_on_their_own_lattice() -> None:
    with (NAB / "realAdExchange" / "exchange-2_cpc_results.csv").open() as file:
        values = np.array([float(row["value"]) for row in csv.DictReader(file)])
    column = Column(name="cpc", low=0.0, high=2.0, step=0.001)
    table = windows_of(values[400:], LENGTH, column=column, every=LENGTH)
    watch = EnsembleDetector(values[:400], length=LENGTH)
    made = make_window_threats(
        bootstrap(table),
        20,
        ThreatKind.EVASIVE,
        0.3,
        reference=Reference.of(table),
        rng=np.random.default_rng(0),
        detector=watch,
        queries=16,
    )
    assert (table.schema.snap(made.table.values) == made.table.values).all()
    assert np.isfinite(watch.evidence(made.table.values[:, None, :])).all()


def test_wrong_shapes_are_refused(detector: EnsembleDetector) -> None:
    for wrong in (np.zeros((2, 2, LENGTH)), np.zeros((2, 1, LENGTH + 1)), np.zeros((2, LENGTH))):
        with pytest.raises(InputError):
            detector.score(wrong)
    for past in (np.zeros(10), np.full(300, np.nan), np.zeros((300, 2))):
        with pytest.raises(InputError):
            EnsembleDetector(past, length=LENGTH)
    with pytest.raises(InputError):
        windows_of(np.zeros(10), 11, column=METRIC)
