"""The channels: what is looked at in each reading of each metric, before anybody says how rare that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.anomaly.baseline import (
    BLOCK,
    BRIEF,
    FAR,
    ORDER,
    POWER_FLOOR,
    ROUGH_FLOOR,
    Baseline,
    Floats,
    fit,
    median_of_three,
    scaled,
)
from chimera.anomaly.buffer import SlotTable, TimeSeriesBuffer
from chimera.anomaly.patterns import APART, CHUNK, LENGTH, nearest

CHANNELS = ("up", "down", "shift", "level", "burst", "calm", "stuck", "season", "pattern")

UNITS = {
    "up": "sigma",
    "down": "sigma",
    "shift": "sigma of a step",
    "level": "sigma of the level",
    "burst": "sigma of log power",
    "calm": "sigma of log roughness",
    "stuck": "equal readings",
    "season": "spreads from the season",
    "pattern": "spreads from the past",
}

FLOORS = np.array([0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 2.0, 0.02, 0.02])
"""The least mean excess that is believed in. A metric that repeats itself to the digit may still miss one by a little,
and one that never did may stand still a few times."""

SLOW = np.array([False, False, True, True, True, True, False, True, False])
"""Channels over many readings: neighbouring scores say the same, so only every fourth is learned."""

FIRST_FIT = 100
REFIT = 50
"""Readings from one look at the history to the next, until there are 1,000; then every four hundred."""

PATTERN_EVERY = 4
PATTERN_FROM = 200

WILD = 1e4
"""Scaled values beyond this say no more."""

TAME = 6.0
"""Scaled values are kept within this where they are summed up, here and in the baseline."""

Slots = npt.NDArray[np.int64]
COLUMNS: dict[str, tuple[npt.DTypeLike, tuple[int, ...], float]] = {
    "centre": (np.float64, (), 0.0),
    "scale": (np.float64, (), 1.0),
    "previous": (np.float64, (), np.nan),
    "fitted": (np.bool_, (), 0),
    "period": (np.int16, (), 0),
    "noise": (np.float32, (), 1.0),
    "run": (np.float32, (), 0.0),
    "apart": (np.float32, (), np.nan),
    "weights": (np.float32, (ORDER,), 0.0),
    "usual": (np.float32, (8,), 1.0),
    "lags": (np.float32, (ORDER,), 0.0),
    "recent": (np.float32, (2 * BLOCK,), 0.0),
    "residuals": (np.float16, (BRIEF,), 0.0),
    "steps": (np.float16, (BRIEF,), 0.0),
    "newer": (np.float64, (), 0.0),
    "older": (np.float64, (), 0.0),
    "square": (np.float64, (), 0.0),
    "power": (np.float64, (), 0.0),
    "rough": (np.float64, (), 0.0),
}
"""The windows recent, residuals and steps are rings: reading number k is at k modulo their length. Below them stand the
sums of the two blocks of recent, of the squares of its last 24, of the squares of residuals, and of steps."""


_PLACES = np.arange(2 * BLOCK)
_MIDDLE, _LAST_BRIEF, _BRIEF = (_PLACES + BLOCK) % (2 * BLOCK), (_PLACES - BRIEF) % (2 * BLOCK), _PLACES % BRIEF
"""For each place in recent: those of 48 and 24 readings ago, and the place in residuals and steps."""


class Channels:
    """Looks at one reading of each of many slots, and keeps what that takes."""

    def __init__(self, metrics: int, buffer: TimeSeriesBuffer, *, pattern: bool) -> None:
        self.rows = SlotTable(metrics, COLUMNS)
        self.buffer = buffer
        self.pattern = pattern

    def look(self, values: Floats, at: Slots, where: Any) -> tuple[Floats, Floats]:
        """Raw scores (n, channels) and the expected values (n,) of `values` (n,), which are then in the buffer.

        `where` is `at` as an index, of `whole`.
        NaN where a channel has nothing to say yet. Fits baselines that are due first: from readings before these.
        """
        self._refit(at)
        rows = self.rows
        centre, scale, noise = rows["centre"][where], rows["scale"][where], rows["noise"][where]
        z = within((values - centre) / scale, WILD)
        season = self._season(at, centre, scale)
        adjusted = (z - season).astype(np.float32)
        lags = rows["lags"][where]
        predicted = np.einsum("ij,ij->i", rows["weights"][where], lags)
        residual = (adjusted - predicted) / noise
        tame = predicted + within(residual, 4.0) * noise
        rows["lags"][where] = _pushed_first(lags, within(tame, FAR))
        previous = rows["previous"][where].copy()  # as it is overwritten below
        run = np.where(values == previous, rows["run"][where] + 1.0, 0.0)
        rows["run"][where] = run
        step = np.minimum(np.abs(z - within((previous - centre) / scale, WILD)), 8.0)
        rows["previous"][where] = values
        tamed = (within(z, TAME) - season).astype(np.float32)  # as the baseline has it
        self._remember(at, where, tamed, within(residual, 5.0), np.fmax(step, 0.0))
        self.buffer.append(values, at)
        raw = np.empty((len(values), len(CHANNELS)), np.float32)
        raw[:, 0], raw[:, 1], raw[:, 6] = residual, -residual, run
        self._slow(raw, where)
        raw[:, 8] = self._pattern(at, where)
        raw[~rows["fitted"][where]] = np.nan
        expected = np.where(rows["fitted"][where], (predicted + season) * scale + centre, previous)
        return raw, expected

    def _slow(self, raw: Floats, where: Any) -> None:
        """The channels over many readings."""
        rows = self.rows
        usual = rows["usual"][where].T
        new, old = rows["newer"][where] / BLOCK, rows["older"][where] / BLOCK
        raw[:, 2] = np.abs(new - old - usual[0]) / usual[1]
        raw[:, 3] = np.abs(new - usual[2]) / usual[3]
        raw[:, 4] = (np.log(rows["power"][where] / BRIEF + POWER_FLOOR) - usual[4]) / usual[5]
        raw[:, 5] = (usual[6] - np.log(rows["rough"][where] / BRIEF + ROUGH_FLOOR)) / usual[7]
        rms = np.sqrt(np.maximum(rows["square"][where], 0.0) / BRIEF)
        raw[:, 7] = np.where(rows["period"][where] > 0, rms, np.nan)

    def _season(self, at: Slots, centre: Floats, scale: Floats) -> Floats:
        """What the seasons before lead to expect of the coming reading, scaled (n,); 0 without a season."""
        season = np.zeros(len(at))
        period = self.rows["period"][at]
        there = np.flatnonzero(period)
        if not len(there):
            return season
        slots, lag = at[there], period[there].astype(np.int64)
        count = self.buffer.count[slots]
        seen = [scaled(self.buffer.back(k * lag - 1, slots), centre[there], scale[there], far=TAME) for k in (1, 2, 3)]
        two, three = 2 * lag <= count, 3 * lag <= count
        mean = np.where(two, (seen[0] + seen[1]) / 2, seen[0])
        season[there] = np.where(three, median_of_three(*seen), mean)
        return season

    def _pattern(self, at: Slots, where: Any) -> Floats:
        """The distance from the nearest stretch of the past (n,), looked for at every fourth reading."""
        kept = self.rows["apart"]
        if self.pattern:
            taken, count = self.buffer.taken[at], self.buffer.count[at]
            due = (count >= PATTERN_FROM) & (taken % PATTERN_EVERY == 0) & self.rows["fitted"][where]
            for size in np.unique(count[due]).tolist():
                slots = at[due & (count == size)]
                for some in np.split(slots, range(CHUNK, len(slots), CHUNK)):
                    centre, scale = self.rows["centre"][some], self.rows["scale"][some]
                    kept[some] = nearest(scaled(self.buffer.last(size, some), centre, scale, far=8.0))
        found: Floats = kept[where]
        return found

    def _refit(self, at: Slots) -> None:
        taken = self.buffer.taken[at]
        full = taken >= self.buffer.size
        due = (taken >= FIRST_FIT) & (taken % np.where(full, 8 * REFIT, REFIT) == 0)
        if not due.any():
            return
        count = self.buffer.count[at]
        for size in np.unique(count[due]).tolist():
            slots = at[due & (count == size)]
            self._take(fit(self.buffer.last(size, slots)), slots)

    def _take(self, found: Baseline, slots: Slots) -> None:
        """A new baseline, and the windows afresh in its units."""
        rows = self.rows
        rows["centre"][slots], rows["scale"][slots] = found.centre, found.scale
        rows["period"][slots], rows["noise"][slots] = found.period, found.noise
        rows["weights"][slots], rows["usual"][slots] = found.weights, found.usual
        rows["lags"][slots] = found.adjusted[:, : -ORDER - 1 : -1]
        windows = {"recent": found.adjusted, "residuals": found.residuals, "steps": found.steps}
        for name, window in windows.items():
            rows[name][slots[:, None], self._order(slots, window.shape[1])] = window
        rows["fitted"][slots] = True
        self._add_up(slots)

    def recent(self, at: Slots) -> Floats:
        """The last 96 readings of slots `at`, oldest first: scaled, less their season, (n, 96)."""
        found: Floats = self.rows["recent"][at[:, None], self._order(at, 2 * BLOCK)]
        return found

    def _order(self, at: Slots, length: int) -> Slots:
        """Where the last `length` readings of each slot are in a ring of that length, (n, length), oldest first."""
        order: Slots = (self.buffer.taken[at][:, None] + np.arange(length)) % length
        return order

    def _remember(self, at: Slots, where: Any, adjusted: Floats, residual: Floats, step: Floats) -> None:
        """Put what is new of each slot (n,) in the windows, and in their sums in place of what leaves them."""
        rows, place = self.rows, self.buffer.taken[at] % (2 * BLOCK)
        ring, start = rows["recent"].reshape(-1), at * (2 * BLOCK)
        newest = start + place
        middle, brief = ring[start + _MIDDLE[place]], ring[start + _LAST_BRIEF[place]]
        rows["newer"][where] += adjusted - middle
        rows["older"][where] += middle - ring[newest]
        rows["square"][where] += adjusted * adjusted - brief * brief
        ring[newest] = adjusted
        newest = at * BRIEF + _BRIEF[place]
        for name, total, new in (("residuals", "power", residual), ("steps", "rough", step)):
            ring, kept = rows[name].reshape(-1), new.astype(np.float16)
            came, left = kept.astype(np.float32), ring[newest].astype(np.float32)
            rows[total][where] += came - left if name == "steps" else came * came - left * left
            ring[newest] = kept

    def _add_up(self, at: Slots) -> None:
        """The sums of the windows of slots `at`, afresh: so no rounding stays for long."""
        rows, recent = self.rows, self.recent(at).astype(np.float64)
        rows["older"][at], rows["newer"][at] = recent[:, :BLOCK].sum(axis=1), recent[:, BLOCK:].sum(axis=1)
        rows["square"][at] = (recent[:, -BRIEF:] ** 2).sum(axis=1)
        rows["power"][at] = (rows["residuals"][at].astype(np.float64) ** 2).sum(axis=1)
        rows["rough"][at] = rows["steps"][at].astype(np.float64).sum(axis=1)

    def whole(self, at: Slots) -> Any:
        """`at` as an index; all slots in order are a slice, which copies nothing."""
        whole = len(at) == len(self.rows) and bool((at == np.arange(len(at))).all())
        return slice(None) if whole else at


def within(values: Floats, far: float) -> Floats:
    """`values` kept within `far` of 0: for a thousand numbers in a third of the time of numpy.clip."""
    kept: Floats = np.minimum(np.maximum(values, -far), far)
    return kept


def _pushed_first(window: Floats, newest: Floats) -> Floats:
    moved = np.empty_like(window)
    moved[:, 1:] = window[:, :-1]
    moved[:, 0] = newest
    return moved


LEAST = LENGTH + APART + LENGTH
