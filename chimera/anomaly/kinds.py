"""What an anomaly looks like, told from the readings around it a few points after it was seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from chimera.anomaly.baseline import Floats
from chimera.anomaly.channels import CHANNELS, Channels

KINDS = ("spike", "drop", "trend", "pattern")
SPIKE, DROP, TREND, PATTERN = range(4)

BEFORE = 60
"""Of the last 96 readings, those that tell what was usual just before."""

SUDDEN = 7
"""Readings since it began, with the delay of the alert, up to which it came at once."""

LATE = 40
"""Readings since it began up to which it may have come with a step, though it was not much at first."""

STEADY = 2
"""Readings of the seven about the beginning that are beyond a step."""

LARGE = 4.5
"""Local sigmas that a spike or drop has at least."""

BOTH = 3.0
"""Local sigmas to the other side, and half of the larger side, from which it goes both ways."""

MOVED = 0.8
"""Local sigmas by which the mean of 24 has moved in a trend."""

AGAINST = 4.0
"""Local sigmas against its direction that a trend may have."""


def shape_of(
    channels: Channels, said: Floats, since: npt.NDArray[np.int64], at: npt.NDArray[np.int64]
) -> npt.NDArray[np.int8]:
    """The kind (n,) of what is going on in slots `at`: an index into KINDS.

    `said`: (n, channels) scores; `since`: (n,) readings since it began. What came at once and to one side is a spike
    or a drop; what moved slowly and to one side is a trend; a pattern is what goes both ways, stands still, or is
    usual in size.
    """
    rows = channels.rows
    recent = channels.recent(at).astype(np.float64) / rows["noise"][at][:, None]
    before = recent[:, :BEFORE]
    middle = np.median(before, axis=1, keepdims=True)
    sigma = np.maximum(1.4826 * np.median(np.abs(before - middle), axis=1, keepdims=True), 0.3)
    away = (recent - middle) / sigma
    high, low = away[:, -16:].max(axis=1), -away[:, -16:].min(axis=1)
    larger, smaller = np.maximum(high, low), np.minimum(high, low)
    side = np.where(high >= low, SPIKE, DROP)
    both = (smaller > 0.5 * larger) & (smaller > BOTH)
    score = {name: said[:, number] for number, name in enumerate(CHANNELS)}
    still = score["stuck"] > 4.0
    still |= (score["calm"] > np.maximum(score["level"], score["shift"])) & (score["calm"] > 2.0)
    at_once = np.where(still | both | (larger < LARGE), PATTERN, side)
    moved = away[:, -24:].mean(axis=1)
    against = np.where(moved > 0, low, high)
    slow = (np.abs(moved) > MOVED) & (against < AGAINST) & (np.maximum(score["level"], score["shift"]) >= 2.0)
    jumped = (away[:, -12:].std(axis=1) > 2.2) & (np.abs(away[:, -6:].mean(axis=1)) > 0.5 * np.abs(moved))
    jumped &= ~both & (larger > 5.0)
    in_time = np.where(still, PATTERN, np.where(jumped, side, np.where(slow, TREND, PATTERN)))
    stepped = (since <= LATE) & (_step(away, since) > LARGE) & ~both & ~still & (np.abs(moved) < larger)
    in_time = np.where(stepped, side, in_time)
    return np.where(since <= SUDDEN, at_once, in_time).astype(np.int8)


def _step(away: Floats, since: npt.NDArray[np.int64]) -> Floats:
    """How far (n,) the readings about the beginning are from the twelve before them. `away`: (n, 96)."""
    begin = away.shape[1] - 1 - np.minimum(since, LATE)
    before = np.take_along_axis(away, begin[:, None] + np.arange(-14, -2), axis=1).mean(axis=1)
    about = np.take_along_axis(away, begin[:, None] + np.arange(-2, 5), axis=1)
    about.sort(axis=1)
    step: Floats = np.maximum(about[:, -STEADY] - before, before - about[:, STEADY - 1])
    return step
