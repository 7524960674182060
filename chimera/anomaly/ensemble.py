"""The detector of many metrics at once: channels, the tails that make them comparable, and the decision.

An alert is for the sum, over the channels, of what each says beyond "once in a hundred readings", as -log10 of its
rarity, and beyond what it has been saying for long: a new level is news once. One threshold on that sum serves all
metrics. Pure numpy: no clock, no threads, nothing looks ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.anomaly.baseline import Floats
from chimera.anomaly.buffer import Arrays, Slots, SlotTable, TimeSeriesBuffer
from chimera.anomaly.channels import CHANNELS, FLOORS, PATTERN_EVERY, SLOW, Channels, within
from chimera.anomaly.kinds import KINDS, shape_of
from chimera.anomaly.tails import Marks, Tails
from chimera.core.errors import InputError, StorageError

__all__ = ["KINDS", "Ensemble", "Verdicts"]

THRESHOLD = 4.5
"""The sum of news from which a reading is an anomaly."""

USUAL = 2.0
"""What a channel may say and be passed over: once in a hundred readings."""

MOST = 6.0
"""What one channel may say beyond that."""

HABIT = 200.0
"""Readings over which what a channel goes on saying becomes, or ceases to be, what is expected of it."""

COOLDOWN = 60
"""Calm readings after an alert before the next."""

CALM = 0.3
"""The share of the threshold under which a reading is calm."""

ESCALATION = 2.0
"""How many times the last alert's score breaks the cooldown."""

SETTLING = 15
"""Readings after an alert in which nothing escalates: the same event is still coming in."""

DELAY = 5
"""Readings from crossing the threshold to the alert: what comes next tells a spike from a new level."""

SUSPECT = 3.0
"""The sum, news or not, from which slow channels do not learn from a reading."""

WILD = 5.0
"""The sum from which fast channels do not, unless it is the first of an event."""

LOCKED = 5
"""Readings after a suspect one that belong to the same event."""

FADING = 0.97
"""What is left of a score a reading later, unless a larger one comes."""

LONG = 1_000_000
"""Readings beyond which no more are counted."""

EACH = np.ones(len(CHANNELS), np.float32)

LEARNED = np.arange(4)[:, None] % np.where(SLOW, 4, np.where(np.array(CHANNELS) == "pattern", PATTERN_EVERY, 1)) == 0
"""(4, channels): which are learned at readings of each number modulo 4."""

_DECISION: dict[str, tuple[npt.DTypeLike, tuple[int, ...], float]] = {
    "quiet": (np.int32, (), COOLDOWN),
    "pending": (np.int8, (), -1),
    "peak": (np.float32, (), 0.0),
    "rising": (np.int32, (), 0),
    "began": (np.int32, (), 0),
    "locked": (np.int8, (), 0),
    "alerted": (np.int32, (), 1_000_000),
    "awake": (np.bool_, (), 0),
    "fading": (np.float32, (), 0.0),
    "habit": (np.float32, (len(CHANNELS),), 0.0),
    "odd": (np.float32, (), 0.0),
    "odd_value": (np.float64, (), 0.0),
    "odd_expected": (np.float64, (), 0.0),
    "odd_back": (np.int32, (), 0),
    "odd_said": (np.float32, (len(CHANNELS),), 0.0),
    "odd_raw": (np.float32, (len(CHANNELS),), 0.0),
}


@dataclass(frozen=True)
class Verdicts:
    """What is said of one reading of each of n metrics."""

    score: npt.NDArray[np.float64]
    """(n,) NaN where there was no reading."""
    alert: npt.NDArray[np.bool_]
    """(n,) one for each event: cooldown and escalation are applied."""
    escalated: npt.NDArray[np.bool_]
    """(n,) alerts that broke a cooldown."""
    kind: npt.NDArray[np.int8]
    """(n,) index into KINDS where there is an alert, else -1."""
    expected: npt.NDArray[np.float64]
    """(n,) what the past led to expect."""
    since: npt.NDArray[np.int64]
    """(n,) readings back to the first that counts to what is going on; 0 is this one."""
    odd_value: npt.NDArray[np.float64]
    """(n,) with an alert the oddest reading since the threshold was crossed, else this one."""
    odd_expected: npt.NDArray[np.float64]
    """(n,) what was expected then."""
    odd_back: npt.NDArray[np.int64]
    """(n,) readings back to then."""
    channel_scores: Floats
    """(n, channels) -log10 of each channel's rarity: with an alert the most since the threshold was crossed."""
    channel_distances: Floats
    """(n, channels) in the channels' own units, at the same readings."""
    ready: npt.NDArray[np.bool_]
    """(n,) enough has been seen to judge."""


class Ensemble:
    """Detects in `metrics` slots. At most 10 KB each."""

    channels = CHANNELS

    def __init__(self, metrics: int, *, pattern: bool = True) -> None:
        self.buffer = TimeSeriesBuffer(metrics)
        self._channels = Channels(metrics, self.buffer, pattern=pattern)
        self._tails = Tails(metrics, FLOORS)
        self._rows = SlotTable(metrics, _DECISION)

    @property
    def metrics(self) -> int:
        return len(self._rows)

    def update(self, values: npt.ArrayLike, at: Slots | None = None) -> Verdicts:
        """Judge one reading of each slot of `at` (unique; all by default), then learn them. `values`: (n,).

        NaN is no reading: its slot is left as it is. Raises InputError for shapes that do not fit.
        """
        given = np.asarray(values, np.float64)
        slots = np.arange(self.metrics) if at is None else np.asarray(at, np.int64)
        if given.shape != slots.shape:
            raise InputError(f"values of shape {given.shape} are not one for each of {len(slots)} slots")
        there = ~np.isnan(given)
        if there.all():
            return self._judge(within(given, LARGEST), slots)
        some = self._judge(within(given[there], LARGEST), slots[there])
        return _spread(some, there)

    def resize(self, metrics: int) -> None:
        """Have so many slots; new ones are fresh."""
        for part in self._parts().values():
            part.resize(metrics)

    def forget(self, at: Slots) -> None:
        """Make slots fresh."""
        for part in self._parts().values():
            part.forget(at)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, as arrays."""
        return {
            f"{name}.{key}": array for name, part in self._parts().items() for key, array in part.snapshot().items()
        }

    def restore(self, state: Arrays) -> None:
        """Go on where a snapshot was taken. Raises StorageError where it does not fit; throw it away then."""
        for name, part in self._parts().items():
            own = {key.removeprefix(f"{name}."): array for key, array in state.items() if key.startswith(f"{name}.")}
            part.restore(own)
        if len({part_length(part) for part in self._parts().values()}) != 1:
            raise StorageError("the parts of the snapshot are of different lengths")

    def state_bytes(self) -> int:
        return sum(part.state_bytes() for part in self._parts().values())

    def _parts(self) -> dict[str, Any]:
        return {"buffer": self.buffer, "channels": self._channels.rows, "tails": self._tails, "decision": self._rows}

    def _judge(self, values: Floats, at: Slots) -> Verdicts:
        where = self._channels.whole(at)
        raw, expected = self._channels.look(values, at, where)
        said = self._tails.score(raw, where)
        rows = self._rows
        over, habit = np.minimum(np.maximum(said - USUAL, 0.0), MOST), rows["habit"][where]
        news = np.maximum(over - habit, 0.0) @ EACH
        fading = np.maximum(np.minimum(said, MOST + USUAL) - habit, 0.0) @ EACH
        fading = np.maximum(fading, rows["fading"][where] * FADING)
        rows["habit"][where] = habit + (over - habit) / HABIT
        rows["fading"][where] = fading
        self._learn(raw, over @ EACH, at, where)
        going, start, alert, escalated, since = self._decide(news, at, where)
        if len(going):
            self._remember(values[going], expected[going], said[going], raw[going], at[going], start)
        kind, back = np.full(len(values), -1, np.int8), np.zeros(len(values), np.int64)
        odd_value, odd_expected = values.astype(np.float64), expected.astype(np.float64)
        told = alert.nonzero()[0]
        if len(told):
            kind[told] = shape_of(self._channels, said[told], since[told], at[told])
            odd = at[told]
            odd_value[told], odd_expected[told] = rows["odd_value"][odd], rows["odd_expected"][odd]
            back[told], said[told], raw[told] = rows["odd_back"][odd], rows["odd_said"][odd], rows["odd_raw"][odd]
        raw[np.isnan(raw)] = 0.0
        return Verdicts(
            score=fading.astype(np.float64),
            alert=alert,
            escalated=escalated,
            kind=kind,
            expected=expected.astype(np.float64),
            since=since,
            odd_value=odd_value,
            odd_expected=odd_expected,
            odd_back=back,
            channel_scores=said,
            channel_distances=raw,
            ready=self._channels.rows["fitted"][where].copy(),
        )

    def _learn(self, raw: Floats, over: Floats, at: Slots, where: Any) -> None:
        """Tails learn what is usual: slow channels nothing of an anomaly, fast ones only its first reading.

        So an event counts once however long it is, and what comes again and again becomes usual.
        """
        locked = self._rows["locked"][where]
        first = locked == 0
        locked = np.where(over >= SUSPECT, LOCKED, np.maximum(locked - 1, 0))
        self._rows["locked"][where] = locked
        taken = self.buffer.taken[at]
        young = taken < 200
        wanted = ((locked == 0) | young)[:, None] & LEARNED[taken % len(LEARNED)]
        wanted[:, :2] = (first | (over < WILD) | young)[:, None]
        self._tails.learn(raw, where, wanted)

    def _remember(self, values: Any, expected: Any, said: Floats, raw: Floats, at: Slots, start: Marks) -> None:
        """Keep the oddest reading of what goes on, and the most that each channel said of it and why."""
        rows = self._rows
        odd = said[:, :2].max(axis=1)  # what `up` and `down` say of it
        first = start | (odd > rows["odd"][at])
        new, rows["odd_back"][at] = at[first], rows["odd_back"][at] + 1
        rows["odd"][new], rows["odd_back"][new] = odd[first], 0
        rows["odd_value"][new], rows["odd_expected"][new] = values[first], expected[first]
        more = start[:, None] | (said > rows["odd_said"][at])
        rows["odd_said"][at] = np.where(more, said, rows["odd_said"][at])
        rows["odd_raw"][at] = np.where(more, raw, rows["odd_raw"][at])

    def _decide(self, total: Floats, at: Slots, where: Any) -> tuple[Slots, Marks, Marks, Marks, Slots]:
        """Where something goes on (k of n), what of it starts (k,), alerts (n,), which escalate, and since when (n,).

        Most slots are at rest, which changes two counts and nothing else; the others are worked on alone.
        """
        rows = self._rows
        rows["alerted"][where] += 1
        rows["began"][where] += 1
        awake = ((total > 0.0) | rows["awake"][where]).nonzero()[0]
        alert, escalated, since = np.zeros(len(at), np.bool_), np.zeros(len(at), np.bool_), np.zeros(len(at), np.int64)
        slots, total = at[awake], total[awake]
        quiet, pending, peak = rows["quiet"][slots], rows["pending"][slots], rows["peak"][slots]
        alerted, began = np.minimum(rows["alerted"][slots], LONG), np.minimum(rows["began"][slots], LONG)
        rising = np.where(total > 0.0, np.minimum(rows["rising"][slots] + 1, LONG), 0)
        idle, over, cool = pending < 0, total >= THRESHOLD, quiet >= COOLDOWN
        larger = (total >= ESCALATION * peak) & (alerted > SETTLING)
        start = idle & over & (cool | larger)
        going = start | ~idle
        pending = np.where(start, DELAY, pending)
        began = np.where(start, rising - 1, began)
        peak = np.where(start, total, np.where((pending >= 0) | (alerted <= 3), np.maximum(peak, total), peak))
        told = pending == 0
        hot = total >= CALM * THRESHOLD
        alert[awake], escalated[awake] = told, told & (quiet < COOLDOWN)
        since[awake] = np.where(told, began, np.maximum(rising - 1, 0))
        quiet = np.where(told, 0, np.where(hot & (quiet < COOLDOWN), quiet, np.minimum(quiet + 1, COOLDOWN)))
        peak = np.where(cool & ~told & (pending < 0), 0.0, peak)
        pending = np.where(pending >= 0, pending - 1, -1)
        rows["quiet"][slots], rows["peak"][slots], rows["pending"][slots] = quiet, peak, pending
        rows["alerted"][slots], rows["began"][slots] = np.where(told, 0, alerted), began
        rows["rising"][slots] = rising
        rows["awake"][slots] = (rising > 0) | (pending >= 0) | (quiet < COOLDOWN) | (peak > 0.0)
        return awake[going], start[going], alert, escalated, since


LARGEST = float(np.finfo(np.float32).max) / 4


def part_length(part: Any) -> int:
    """How many slots a part has."""
    return part.metrics if isinstance(part, TimeSeriesBuffer) else len(part.rows if isinstance(part, Tails) else part)


def _spread(some: Verdicts, there: npt.NDArray[np.bool_]) -> Verdicts:
    """Verdicts of those that are `there` (n,), with places for those that are not."""
    empty = {"score": np.nan, "kind": -1, "expected": np.nan, "odd_value": np.nan, "odd_expected": np.nan}
    fields = {}
    for name in Verdicts.__annotations__:
        of_some = getattr(some, name)
        fields[name] = np.full((len(there), *of_some.shape[1:]), empty.get(name, 0), of_some.dtype)
        fields[name][there] = of_some
    return Verdicts(**fields)
