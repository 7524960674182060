"""Whole reports: of detectors whose figures are known beforehand, and of one that was scored independently."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from chimera.anomaly.evaluate import (
    Point,
    Report,
    Result,
    Series,
    StreamDetector,
    Trace,
    evaluate,
    load_nab,
    make_synthetic,
    score,
)
from chimera.anomaly.evaluate.table import kind_table, report_table
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyKind
from tests.unit.anomaly.evaluate.judged import distance

NAB = load_nab(Path(__file__).parents[3] / "data" / "nab")
MADE = make_synthetic(1, 100)


def oracle(series: Series) -> Trace:
    """Knows the labels: alerts at the first point of each window."""
    points = len(series.values)
    alerts, kinds = np.zeros(points, dtype=np.bool_), [None] * points
    for window in series.windows:
        alerts[window.first] = True
        kinds[window.first] = window.kind  # type: ignore[call-overload]
    return Trace(series.inside().astype(float), alerts, tuple(kinds), np.full(points, 1e-6))


def blind(series: Series, seed: int, share: float) -> Trace:
    rng = np.random.default_rng([seed, len(series.values), series.probation])
    scores = rng.random(len(series.values))
    return Trace(scores, scores > 1 - share, (None,) * len(scores), np.full(len(scores), 1e-6))


def constant(alert: bool) -> StreamDetector:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        for _ in stream:
            yield float(alert), alert, None

    return detector


def test_a_perfect_detector() -> None:
    report = score([*NAB, *MADE], [oracle(each) for each in (*NAB, *MADE)])
    nab, made = report.parts["nab"], report.parts["synthetic"]
    assert (nab.f1, nab.false_alarms, made.f1, made.false_alarms) == (1.0, 0, 1.0, 0)
    assert nab.skill == made.skill == 1.0
    assert nab.nab is not None and nab.nab.own == pytest.approx(100.0)
    assert made.delay_median == 0.0 and made.kind_accuracy == 1.0
    assert {kind: each.recall for kind, each in made.by_kind.items()} == dict.fromkeys(AnomalyKind, 1.0)
    assert made.vus_pr is not None and made.vus_pr > 0.8
    assert made.nab is None and nab.kind_accuracy is None and nab.by_kind == {}


def test_a_silent_detector() -> None:
    report = evaluate(constant(False), [*NAB, *MADE])
    nab, made = report.parts["nab"], report.parts["synthetic"]
    assert (nab.f1, nab.skill, nab.false_alarms_per_1000, made.f1) == (0.0, 0.0, 0.0, 0.0)
    assert nab.nab is not None and nab.nab.own == 0.0
    assert nab.delay_mean is None and made.kind_accuracy is None


def test_blind_alerts_have_no_skill_though_they_have_f1() -> None:
    skills, f1 = [], []
    for seed in range(20):
        nab = score(NAB, [blind(each, seed, 0.01) for each in NAB]).parts["nab"]
        skills.append(nab.skill)
        f1.append(nab.f1)
    assert abs(np.mean(skills)) < 0.05
    assert np.mean(f1) > 0.1


def test_an_alarm_that_never_stops_gains_nothing() -> None:
    report = evaluate(constant(True), [*NAB, *MADE])
    nab, made = report.parts["nab"], report.parts["synthetic"]
    assert nab.recall == 1.0 and nab.precision < 0.1 and abs(nab.skill) < 0.02
    assert 30 < made.false_alarms_per_1000 < 35
    assert nab.nab is not None and nab.nab.own < 0


def test_the_figures_of_an_independent_scorer() -> None:
    """`distance` over these very series, scored by a separate program with the same definitions."""
    report = evaluate(distance, [*NAB, *MADE])
    nab, made = report.parts["nab"], report.parts["synthetic"]
    assert (nab.series, nab.points, nab.windows, nab.found, nab.false_alarms) == (4, 8_837, 7, 5, 41)
    assert nab.precision == pytest.approx(0.10869565217391304)
    assert nab.f1 == pytest.approx(0.18867924528301885)
    assert nab.chance_f1 == pytest.approx(0.10257520134323686)
    assert nab.skill == pytest.approx(0.09594569268495787)
    assert nab.false_alarms_per_1000 == pytest.approx(6.183079475192279)
    assert (nab.delay_mean, nab.delay_median) == (pytest.approx(-21.2), 0.0)
    assert nab.vus_pr == pytest.approx(0.160285752909032)
    assert nab.nab is not None
    assert nab.nab.own == pytest.approx(36.60499548476649)
    assert (nab.nab.best, nab.nab.best_threshold) == (pytest.approx(52.54863535740814), 28.0)
    assert (made.windows, made.found, made.false_alarms) == (48, 29, 39)
    assert made.chance_f1 == pytest.approx(0.10364833372787291)
    assert made.skill == pytest.approx(0.4421832202538652)
    assert made.vus_pr == pytest.approx(0.2944946597470241)
    assert (made.delay_mean, made.delay_median) == (pytest.approx(7.310344827586207), 0.0)
    assert made.kind_accuracy == pytest.approx(0.5862068965517241)
    recall = {kind.value: each.recall for kind, each in made.by_kind.items()}
    assert recall == pytest.approx({"spike": 0.75, "drop": 0.75, "trend": 1 / 3, "pattern": 7 / 12})


def test_parts_are_corpora_and_their_groups() -> None:
    report = evaluate(constant(False), [*NAB, *MADE])
    kinds = ("clean", "drop", "pattern", "spike", "trend")
    nab = ["nab", "nab/artificialWithAnomaly", "nab/realAdExchange"]
    assert list(report.parts) == [*nab, "synthetic", *(f"synthetic/{kind}" for kind in kinds)]
    assert report.parts["synthetic/clean"].windows == 0 and report.parts["synthetic/clean"].vus_pr is None


def test_a_wrong_kind_is_counted_and_no_kind_is_not() -> None:
    series = MADE[:5]
    traces = [oracle(each) for each in series]
    wrong = [replace(each, kinds=(AnomalyKind.TREND,) * len(each.scores)) for each in traces]
    assert score(series, wrong).parts["synthetic"].kind_accuracy == 0.25
    unnamed = [replace(each, kinds=(None,) * len(each.scores)) for each in traces]
    assert score(series, unnamed).parts["synthetic"].kind_accuracy is None


def test_cpu_time_leaves_the_warm_up_out() -> None:
    slow = oracle(MADE[0])
    slow.cpu_s[:50] = 1.0
    slow.cpu_s[50:] = 2e-6
    scores = score(MADE[:1], [slow]).parts["synthetic"]
    assert scores.cpu_p50_us == scores.cpu_p99_us == pytest.approx(2.0)


def test_a_report_is_json_and_a_table() -> None:
    report = score([*NAB, *MADE], [oracle(each) for each in (*NAB, *MADE)])
    assert Report.model_validate_json(report.model_dump_json()) == report
    console = Console(width=160, record=True, file=StringIO())
    console.print(report_table(report), kind_table(report.parts["synthetic"]))
    text = console.export_text()
    assert "synthetic/clean" in text and "48 of 48" in text and "12 of 12" in text and "100.0 / " in text


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        evaluate(constant(False), [])
    with pytest.raises(InputError, match="not 1 for 2"):
        score(MADE[:2], [oracle(MADE[0])])
