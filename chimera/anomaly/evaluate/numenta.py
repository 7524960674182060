"""The score of the Numenta Anomaly Benchmark, standard profile: earlier is better, and a false alarm costs a ninth.

Lavin and Ahmad: Evaluating Real-time Anomaly Detection Algorithms, the Numenta Anomaly Benchmark. ICMLA 2015.
0 is a detector that never alerts, 100 one that finds each window at its first point without a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chimera.anomaly.evaluate.series import Floats, Ints, Series

FALSE_ALARM = 0.11

MISSED = 1.0

OUTSIDE = -1

FAR = 3.0
"""Window lengths after a window's end from which on a false alarm costs all that it can."""


@dataclass(frozen=True, eq=False)
class Weighed:
    """What an alert at each scored point of a series is worth, the window it lies in (OUTSIDE for none).

    `windows` are all that are labelled, `open_windows` those with scored points.
    """

    worth: Floats
    window: Ints
    windows: int
    open_windows: int


def weigh(series: Series) -> Weighed:
    """A sigmoid falls from 1 at a window's first point to 0 after its last, and on to the cost of a false alarm."""
    points = len(series.values)
    worth, window = np.full(points, -FALSE_ALARM), np.full(points, OUTSIDE)
    for number, each in enumerate(series.windows):
        length = each.last - each.first + 1
        at = np.arange(each.first, each.last + 1)
        worth[at] = _sigmoid(5 * (each.last - at + 1) / length) / _sigmoid(5.0)
        window[at] = number
        following = series.windows[number + 1].first if number + 1 < len(series.windows) else points
        after = np.arange(each.last + 1, following)
        lengths = (after - each.last) / max(length - 1, 1)
        worth[after] = FALSE_ALARM * _sigmoid(-5 * np.minimum(lengths, FAR))
    scored = window[series.probation :]
    opened = len(np.unique(scored[scored != OUTSIDE]))
    return Weighed(worth[series.probation :], scored, len(series.windows), opened)


def own_score(weighed: Sequence[Weighed], kept: Sequence[Ints]) -> float:
    """The score of the alerts at `kept`, for each series the scored points (counted from the probation's end)."""
    raw = 0.0
    for each, alerts in zip(weighed, kept, strict=True):
        worth, window = each.worth[alerts], each.window[alerts]
        raw += worth[window == OUTSIDE].sum()
        found = np.full(each.windows, -np.inf)
        np.maximum.at(found, window[window != OUTSIDE], worth[window != OUTSIDE])
        raw += found[np.isfinite(found)].sum() - MISSED * (each.open_windows - np.isfinite(found).sum())
    return _normal(raw, weighed)


def best_score(weighed: Sequence[Weighed], scores: Sequence[Floats]) -> tuple[float, float]:
    """The score at the one threshold over all series that the labels like best, and that threshold (inf: no alert).

    What the public scoreboard tells; it has seen the labels, and says only how good a threshold could be.
    """
    first = np.cumsum([0, *(each.windows for each in weighed)])
    score = np.concatenate(scores)
    worth = np.concatenate([each.worth for each in weighed])
    window = np.concatenate(
        [np.where(each.window == OUTSIDE, OUTSIDE, each.window + first[n]) for n, each in enumerate(weighed)]
    )
    order = np.argsort(-score, kind="stable")
    score, worth, window = score[order], worth[order], window[order]
    gain = np.where(window == OUTSIDE, worth, 0.0)
    for number in np.unique(window[window != OUTSIDE]):
        at = np.flatnonzero(window == number)
        best = np.maximum.accumulate(np.concatenate(([-MISSED], worth[at])))
        gain[at] = np.diff(best)
    total = np.cumsum(gain) - MISSED * sum(each.open_windows for each in weighed)
    total[:-1][score[1:] == score[:-1]] = -np.inf
    top = int(np.argmax(total))
    nothing = -MISSED * sum(each.open_windows for each in weighed)
    raw, threshold = (total[top], score[top]) if total[top] > nothing else (nothing, np.inf)
    return _normal(float(raw), weighed), float(threshold)


def _normal(raw: float, weighed: Sequence[Weighed]) -> float:
    """0..100 from a detector that finds nothing to a perfect one. Windows within a probation are lost to everyone."""
    opened, windows = sum(each.open_windows for each in weighed), sum(each.windows for each in weighed)
    return 100.0 * (raw + MISSED * opened) / (windows + MISSED * opened) if windows else float("nan")


def _sigmoid(x: Floats | float) -> Floats:
    """From -1 to 1."""
    curve: Floats = 2 / (1 + np.exp(-np.asarray(x, dtype=float))) - 1
    return curve
