"""What happens to a reading before a detector sees it: who it belongs to, when it is, and what it says.

Rules, for each metric:

- *Time.* A timestamp is in seconds, 0 <= t <= 1e11 (which milliseconds are not). One that is not after the last is
  refused: of two readings of one time the first counts, because detectors have seen it. LATE_IN_A_ROW late ones, each
  after the one before, are a clock that was set back: the next of them is taken, and time goes on from there.
- *Missing points.* The interval of a metric is the median of the last times between readings, so it is learned anew
  when the rate of sampling changes. A longer time is `missing` readings. Detectors see nothing in their place. A value
  of NaN says that a reading is missing.
- *Values.* Infinities, and what a float32 cannot hold, are refused.
- *Counters* (by name, see `_COUNTS`, or declared) become rates a second, from their second reading on. Where one
  falls it was reset, and has counted from 0 (as Prometheus has it). One by name that falls by less than half, or below
  0, is none: it is a gauge from then on, and starts afresh.
- *Metrics.* At most `max_metrics`. Then the place of one that has been silent for `idle_s` is given to a new one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Arrays, Columns, Slots, SlotTable, TimeRing
from chimera.anomaly.detectors.base import LARGEST, Values
from chimera.core.errors import ReadingRefused, StorageError
from chimera.core.watching import MAX_METRIC_CHARS, Reading

LATEST_S = 1e11
"""The year 5138. Later is a timestamp in milliseconds."""

LATE_IN_A_ROW = 5

STEPS = 9
"""The times between readings that the interval is the median of."""

MOST_MISSING = 1_000

_COUNTS = ("_total", "_count", ".count", "_bucket")

_GAUGE, _COUNTER, _DECLARED = 0, 1, 2

_COLUMNS: Columns = {
    "seen": (np.float64, (), np.nan),
    "late": (np.int16, (), 0),
    "late_at": (np.float64, (), np.nan),
    "interval": (np.float32, (), np.nan),
    "touched": (np.float64, (), 0.0),
    "counts": (np.int8, (), _GAUGE),
    "counted": (np.float64, (), np.nan),
    "counted_at": (np.float64, (), np.nan),
    "refused": (np.int64, (), 0),
    "missing": (np.int64, (), 0),
}


class Round(NamedTuple):
    """Readings of different metrics, as detectors may see them: each array is (n,)."""

    slots: Slots
    times: Values
    values: Values
    missing: Slots
    """How many readings have not come since the last of this metric: at most MOST_MISSING."""


class Intake:
    """Makes rounds of readings, and knows which slot is whose. `fresh` are slots to be forgotten before a round."""

    def __init__(self, *, max_metrics: int, idle_s: float, counters: Sequence[str] = ()) -> None:
        self.max_metrics = max_metrics
        self.refused: Counter[str] = Counter()
        self.taken = 0
        self.resets = 0
        """Clocks that were set back."""
        self.times = TimeRing(0)
        self._idle_s = idle_s
        self._declared = re.compile("|".join(fnmatch.translate(glob) for glob in counters)) if counters else None
        self._slots: dict[str, int] = {}
        self._names: list[str] = []
        self._stale: set[int] = set()
        self._idle: list[int] = []
        self._idle_until = -np.inf
        self._rows = SlotTable(0, _COLUMNS)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def places(self) -> int:
        """How many slots there are, taken or free."""
        return len(self._rows)

    def slot(self, metric: str) -> int | None:
        return self._slots.get(metric)

    def name(self, slot: int) -> str:
        """Whose slot this is; nobody's is called ''."""
        return self._names[slot] if slot < len(self._names) else ""

    def metrics(self) -> Iterator[tuple[str, int]]:
        """All metrics with their slots, in the order in which they came."""
        yield from self._slots.items()

    def about(self, slot: int) -> dict[str, float]:
        """What is known of a slot: `seen`, `interval`, `refused`, `missing`, `counts` and the rest."""
        return {name: self._rows[name][slot].item() for name in _COLUMNS}

    def fresh(self) -> Slots:
        """The slots that have become another's, or start afresh, since the last call. Forget them first."""
        stale = np.array(sorted(self._stale), np.int64)
        self._stale.clear()
        return stale

    def check(self, reading: Reading, now: float) -> None:
        """Raise ReadingRefused where this reading would not be taken now. Changes nothing."""
        plain = _plain(reading)
        if plain == "name":
            raise ReadingRefused(f"a reading is a tuple of a name, a time and a value, not {reading!a:.80}", "name")
        metric, timestamp, value = reading if isinstance(plain, str) else plain
        if plain == "timestamp" or not 0.0 <= timestamp <= LATEST_S:
            raise ReadingRefused(
                f"the timestamp {timestamp!r} of {metric} is no number of seconds in 0..1e11: are they milliseconds?",
                "timestamp",
            )
        if plain == "value" or abs(value) > LARGEST:
            raise ReadingRefused(
                f"the value {value!r} of {metric} is not a number in +-{LARGEST:.3g}, nor NaN", "value"
            )
        if fault := _name_fault(metric):
            raise ReadingRefused(fault, "name")
        slot = self._slots.get(metric)
        if slot is None:
            if value == value and not self._room(now):
                raise ReadingRefused(
                    f"there are {self.max_metrics} metrics already, all heard of within {self._idle_s:.0f} s: "
                    f"leave some out, or raise max_metrics",
                    "metrics",
                )
        elif timestamp <= self._rows["seen"][slot] and not self._set_back(slot, timestamp):
            raise ReadingRefused(
                f"{metric} has a reading of {self._rows['seen'][slot]} already, and this one is of {timestamp}",
                "timestamp",
            )

    def take(self, readings: Iterable[Reading], now: float) -> Iterator[Round]:
        """The readings as rounds: a metric that is there twice has its second reading in the second round.

        What cannot be taken is counted in `refused`. `now` is seconds of a clock that never runs backwards. A round is
        made when it is asked for, so whoever iterates must act upon one before the next.
        """
        slots, times, values = self._sorted_out(readings, now)
        for at in _rounds(slots):
            self.taken += len(at)
            yield self._judge(slots[at], times[at], values[at])

    def _sorted_out(self, readings: Iterable[Reading], now: float) -> tuple[Slots, Values, Values]:
        """Slots, times and values (n,) of the readings that are sound in themselves."""
        names, *numbers = sorted_out(readings if isinstance(readings, list) else list(readings), self.refused)
        times, values = (np.frombuffer(column) for column in numbers)
        slots = np.fromiter((self._slots.get(name, -1) for name in names), np.int64, len(names))
        self._rows["touched"][slots[slots >= 0]] = now
        in_time = (times >= 0.0) & (times <= LATEST_S)
        in_range = ~(np.abs(values) > LARGEST)
        sound_at = in_time & in_range
        if not sound_at.all():
            self._refuse("timestamp", slots[~in_time])
            self._refuse("value", slots[in_time & ~in_range])
        for number in np.flatnonzero((slots < 0) & sound_at).tolist():
            slots[number] = self._admit(names[number], values[number], now)
        sound_at &= slots >= 0
        return (slots, times, values) if sound_at.all() else (slots[sound_at], times[sound_at], values[sound_at])

    def _admit(self, metric: str, value: float, now: float) -> int:
        """The slot of a metric that has none yet, or -1: it is refused, or has no value yet."""
        if (slot := self._slots.get(metric)) is not None:  # the reading before made it one
            return slot
        if _name_fault(metric):
            self.refused["name"] += 1
            return -1
        if value != value:
            return -1
        if not self._room(now):
            self.refused["metrics"] += 1
            return -1
        slot = self._place()
        self._slots[metric] = slot
        self._names[slot] = metric
        self._rows.forget(np.array([slot]))
        self._rows["touched"][slot] = now
        self._rows["counts"][slot] = self._counts(metric)
        return slot

    def _room(self, now: float) -> bool:
        """Whether there is a place for one more metric."""
        if len(self._names) < self.max_metrics:
            return True
        if not self._idle and now >= self._idle_until:
            touched = self._rows["touched"][: len(self._names)]
            self._idle_until = float(touched.min()) + self._idle_s
            idle = np.flatnonzero(touched <= now - self._idle_s)
            self._idle = idle[np.argsort(-touched[idle], kind="stable")].tolist()
        while self._idle and self._rows["touched"][self._idle[-1]] > now - self._idle_s:
            self._idle.pop()  # it has been heard of since
        return bool(self._idle)

    def _place(self) -> int:
        """A slot for a new metric, where there is room."""
        if len(self._names) < self.max_metrics:
            self._names.append("")
            if len(self._names) > self.places:
                places = min(self.max_metrics, self.places + max(64, self.places // 8))
                self._rows.resize(places)
                self.times.resize(places)
            return len(self._names) - 1
        slot = self._idle.pop()
        del self._slots[self.name(slot)]
        self._start_over([slot])
        return slot

    def _start_over(self, slots: list[int]) -> None:
        """Whatever was learned of these slots is not about what comes."""
        self._stale.update(slots)
        self.times.forget(np.array(slots, np.int64))

    def _counts(self, metric: str) -> int:
        if self._declared is not None and self._declared.match(metric):
            return _DECLARED
        return _COUNTER if metric.partition("{")[0].endswith(_COUNTS) else _GAUGE

    def _judge(self, slots: Slots, times: Values, values: Values) -> Round:
        """The readings of different metrics that are in time and have a value, as detectors may see them."""
        rows = self._rows
        in_time = ~(times <= rows["seen"][slots])
        if not in_time.all():
            in_time[~in_time] = self._late(slots[~in_time], times[~in_time])
            slots, times, values = slots[in_time], times[in_time], values[in_time]
        rows["seen"][slots] = times
        rows["late"][slots] = 0
        there = ~np.isnan(values)
        counting = rows["counts"][slots] != _GAUGE
        if counting.any():
            values = values.copy()
            counting &= there
            values[counting] = self._rates(slots[counting], times[counting], values[counting])
            there = ~np.isnan(values)
        if not there.all():
            slots, times, values = slots[there], times[there], values[there]
        return Round(slots, times, values, self._pace(slots, times))

    def _late(self, slots: Slots, times: Values) -> npt.NDArray[np.bool_]:
        """Which of these late readings, of different metrics, are to be taken: their clock was set back."""
        rows = self._rows
        before = times < rows["seen"][slots]
        late, late_at = rows["late"][slots], rows["late_at"][slots]
        onward = before & ((late == 0) | (times > late_at))
        back = onward & (late >= LATE_IN_A_ROW)
        rows["late"][slots] = np.where(onward, late + 1, np.where(before & (times < late_at), 1, late))
        rows["late_at"][slots] = np.where(before, times, late_at)
        rows["counted_at"][slots[back]] = np.nan
        self.resets += int(back.sum())
        self._refuse("timestamp", slots[~back])
        taken: npt.NDArray[np.bool_] = back
        return taken

    def _set_back(self, slot: int, timestamp: float) -> bool:
        """Whether `_late` would take this late reading."""
        known = self.about(slot)
        return known["late_at"] < timestamp < known["seen"] and known["late"] >= LATE_IN_A_ROW

    def _rates(self, slots: Slots, times: Values, counts: Values) -> Values:
        """Counts (n,) as rates a second; NaN for the first of a metric."""
        rows = self._rows
        before, before_at = rows["counted"][slots], rows["counted_at"][slots]
        rows["counted"][slots], rows["counted_at"][slots] = counts, times
        fell = counts < before
        gauge = (rows["counts"][slots] == _COUNTER) & ((counts < 0.0) | (fell & (counts > 0.5 * before)))
        with np.errstate(over="ignore"):
            rates = np.where(fell, counts, counts - before) / (times - before_at)
        if gauge.any():
            rows["counts"][slots[gauge]] = _GAUGE
            self._start_over(slots[gauge].tolist())
        return np.where(gauge, counts, np.clip(rates, 0.0, LARGEST))

    def _pace(self, slots: Slots, times: Values) -> Slots:
        """Learn when readings come; how many have not, before each of these."""
        rows = self._rows
        gaps = (times - self.times.ends(slots)) / rows["interval"][slots]
        missing: Slots = np.nan_to_num(np.clip(np.rint(gaps) - 1.0, 0.0, MOST_MISSING), nan=0.0).astype(np.int64)
        rows["missing"][slots] += missing
        self.times.append(times, slots)
        steps = self.times.steps(STEPS, slots)
        steps = np.sort(np.where(steps > 0.0, steps, np.nan), axis=1)  # NaN last
        known = np.count_nonzero(~np.isnan(steps), axis=1)
        rows["interval"][slots] = steps[np.arange(len(slots)), np.maximum(known - 1, 0) // 2]
        return missing

    def _refuse(self, reason: str, slots: Slots) -> None:
        """Count one refusal for each of `slots`; -1 is a metric that is not known."""
        if len(slots):
            self.refused[reason] += len(slots)
            np.add.at(self._rows["refused"], slots[slots >= 0], 1)

    def snapshot(self, now: float) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Names and counts, for JSON; and arrays."""
        arrays = self._rows.snapshot() | {f"times_{name}": part for name, part in self.times.snapshot().items()}
        arrays["touched"] -= now  # the clock may be another's when it is restored
        told = {
            "names": self._names,
            "stale": sorted(self._stale),
            "refused": dict(self.refused),
            "taken": self.taken,
            "resets": self.resets,
        }
        return told, arrays

    def restore(self, told: dict[str, Any], state: Arrays, now: float) -> None:
        """Go on where a snapshot was taken. Raises StorageError, and stays as it was, where it is none."""
        names = told["names"]
        held = {name: slot for slot, name in enumerate(names)}
        rows, times = SlotTable(0, _COLUMNS), TimeRing(0)
        rows.restore(state)
        times.restore({name.removeprefix("times_"): part for name, part in state.items()})
        if len(held) != len(names) or len(names) > len(rows) or len(rows) != times.metrics:
            raise StorageError(f"the snapshot has {len(names)} names, {len(held)} different, in {len(rows)} places")
        if len(rows) > self.max_metrics:
            raise StorageError(f"the snapshot has {len(rows)} places for metrics: max_metrics is {self.max_metrics}")
        rows["touched"][:] += now
        self._rows, self.times, self._names, self._slots = rows, times, list(names), held
        self._stale = set(told["stale"])
        self._idle, self._idle_until = [], -np.inf
        self.refused, self.taken, self.resets = Counter(told["refused"]), told["taken"], told["resets"]

    def state_bytes(self) -> int:
        """The arrays, and what names take about."""
        names = sum(len(name) + 100 for name in self._slots)
        return names + self.times.state_bytes() + self._rows.state_bytes()


def _rounds(slots: Slots) -> Iterator[Slots]:
    """Where in `slots` (n,) each round's readings stand: every slot once a round, in the order in which they came."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    if len(starts) == len(slots):
        if len(slots):
            yield np.arange(len(slots))
        return
    turn = np.arange(len(slots)) - np.repeat(starts, np.diff(starts, append=len(slots)))
    by_turn = np.argsort(turn, kind="stable")
    yield from (order[part] for part in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]))


def _name_fault(metric: str) -> str:
    if not 0 < len(metric) <= MAX_METRIC_CHARS or not metric.isprintable():
        return f"a metric's name has 1..{MAX_METRIC_CHARS} printable characters, not {metric[:80]!a}"
    return ""


def sorted_out(given: Sequence[Any], refused: Counter[str]) -> tuple[Sequence[str], array[float], array[float]]:
    """Names, timestamps and values of those that are readings by their types: tuples of a string and two numbers.

    The others are counted in `refused`. Each is judged alone, whatever stands beside it.
    """
    with contextlib.suppress(Exception):  # `__float__` may raise anything: whose does is seen below
        if set(map(type, given)) <= {Reading, tuple}:
            names, times, values = zip(*given, strict=True)
            if set(map(type, names)) == {str}:
                return names, array("d", times), array("d", values)
    sound = []
    for reading in given:
        plain = _plain(reading)
        if isinstance(plain, str):
            refused[plain] += 1
        else:
            sound.append(plain)
    names, times, values = zip(*sound, strict=True) if sound else ((), (), ())
    return names, array("d", times), array("d", values)


def _plain(given: Any) -> Reading | str:
    """A reading with a plain string and plain numbers, or what is wrong with the types of its parts."""
    fault = "name"
    with contextlib.suppress(Exception):
        if isinstance(given, tuple) and len(given) == 3 and isinstance(given[0], str):
            fault = "timestamp"
            timestamp = array("d", given[1:2])[0]
            fault = "value"
            return Reading(str.__str__(given[0]), timestamp, array("d", given[2:])[0])
    return fault
