"""Alerts against windows: by hand, and against the plainest way to count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.anomaly.evaluate import Series, Window
from chimera.anomaly.evaluate.events import NOT_FOUND, Counts, Events, chance_f1, skill, thin

POINTS, PROBATION = 400, 60
WINDOWS = (Window(20, 40, 20), Window(50, 90, 55), Window(150, 199, 160), Window(300, 300, 300))


def series(windows: tuple[Window, ...] = WINDOWS) -> Series:
    at = np.arange(POINTS, dtype=float)
    return Series("made", "synthetic", "made", at, at, windows, PROBATION)


def alerts(*at: int) -> np.ndarray:
    flags = np.zeros(POINTS, dtype=np.bool_)
    flags[list(at)] = True
    return flags


def test_by_hand() -> None:
    # 30: probation. 65: in the second window, of which 60..90 count. 100: false. 120: within 30 of 100, the same alert.
    # 130: false. 180: the third window. 200..: 200 is within 30 of 180, 210 is false. 300: the fourth.
    events = Events(series(), alerts(30, 65, 100, 120, 130, 180, 200, 210, 300))
    assert events.kept.tolist() == [65, 100, 130, 180, 210, 300]
    assert events.counts == Counts(found=3, windows=3, false_alarms=3)
    assert events.firsts.tolist() == [NOT_FOUND, 65, 180, 300]
    assert events.normal_points == (POINTS - PROBATION) - 31 - 50 - 1
    assert (events.counts.precision, events.counts.recall, events.counts.f1) == (0.5, 1.0, pytest.approx(2 / 3))


def test_two_alerts_in_a_window_find_it_once_and_are_no_false_alarms() -> None:
    assert Events(series(), alerts(150, 185)).counts == Counts(found=1, windows=3)


def test_an_alarm_that_never_stops_pays_once_a_refractory() -> None:
    # 60 and 90 in the first window that counts, 150 and 180 in the next, 300 in the last; 120 210 240 270 330 360 390
    assert Events(series(), np.ones(POINTS, dtype=np.bool_)).counts == Counts(found=3, windows=3, false_alarms=7)


def test_nothing_found_and_nothing_to_find() -> None:
    silent = Events(series(), alerts()).counts
    assert (silent.precision, silent.recall, silent.f1) == (0.0, 0.0, 0.0)
    assert Events(series(()), alerts(100)).counts == Counts(0, 0, 1)


@given(st.sets(st.integers(0, POINTS - 1)), st.integers(1, 50))
def test_thinning_keeps_the_first_of_each_refractory(at: set[int], refractory: int) -> None:
    kept: list[int] = []
    for alert in sorted(at):
        if not kept or alert - kept[-1] >= refractory:
            kept.append(alert)
    assert thin(np.array(sorted(at), dtype=np.int64), refractory).tolist() == kept


@given(st.sets(st.integers(0, POINTS - 1)), st.integers(0, POINTS - PROBATION))
def test_a_shift_moves_every_alert_around_the_end(at: set[int], by: int) -> None:
    events = Events(series(), alerts(*at))
    kept = alerts(*events.kept.tolist())
    kept[PROBATION:] = np.roll(kept[PROBATION:], by)
    inside, found = np.zeros(POINTS, dtype=np.bool_), 0
    for window in WINDOWS:
        inside[window.first : window.last + 1] = True
        found += bool(kept[max(window.first, PROBATION) : window.last + 1].any())
    assert events.shifted(by) == Counts(found, 3, int((kept & ~inside)[PROBATION:].sum()))


def test_chance_finds_wide_windows_and_skill_takes_that_away() -> None:
    wide, narrow = series((Window(100, 250, 100),)), series((Window(100, 102, 100),))
    assert chance_f1([Events(wide, alerts(300))]) > 0.3
    assert chance_f1([Events(narrow, alerts(300))]) < 0.1
    assert chance_f1([Events(wide, alerts(300))]) == chance_f1([Events(wide, alerts(300))])
    assert (skill(0.4, 0.4), skill(1.0, 0.4), skill(0.1, 0.4), skill(1.0, 1.0)) == (0.0, 1.0, pytest.approx(-0.5), 0.0)
