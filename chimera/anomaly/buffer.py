"""The last readings of many metrics: one float32 ring a metric, all in one array.

Metric-major, so that one metric's history lies together (4 KB of 1,000 readings). Each ring has its own head, because
metrics come at their own pace. One `append` writes a reading of each of many metrics at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.core.errors import InputError, StorageError

Floats = npt.NDArray[np.floating[Any]]
Slots = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]
Columns = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...], float]]

SIZE = 1_000

LONG = 64
"""From so many readings on, two copies a slot are quicker than to look each reading up."""

COARSE_S = 4_096.0
"""The unit of a long time between two readings. See TimeRing."""

COARSE_FROM_S = 32_768.0

LONGEST = float(np.finfo(np.float16).min)
"""A step of 8 years or more: what came before it is shown as no farther back."""


class TimeSeriesBuffer:
    """Rings of `size` readings for `metrics` slots. NaN is no reading, and not kept. `at` names no slot twice."""

    def __init__(self, metrics: int, size: int = SIZE, dtype: type[np.floating[Any]] = np.float32) -> None:
        if metrics < 0 or size < 1:
            raise InputError(f"a buffer holds at least 0 metrics and 1 reading of each, not {metrics} and {size}")
        self.size = size
        self._largest = float(np.finfo(dtype).max)
        self._rings: Floats = np.full((metrics, size), np.nan, dtype)
        self._taken: Slots = np.zeros(metrics, np.int64)

    @property
    def metrics(self) -> int:
        return len(self._taken)

    @property
    def count(self) -> Slots:
        """How many readings each slot holds, (metrics,): at most `size`."""
        return np.minimum(self._taken, self.size)

    @property
    def taken(self) -> Slots:
        """How many readings each slot has been given since it was fresh, (metrics,). Not to be written to."""
        return self._taken

    def append(self, values: npt.ArrayLike, at: Slots | None = None) -> None:
        """Add one reading to each slot of `at` (n unique slots; all of them by default). `values`: (n,)."""
        given = np.asarray(values, np.float64)
        at = np.arange(self.metrics) if at is None else at
        if given.shape != at.shape:
            raise InputError(f"values of shape {given.shape} are not one for each of {len(at)} slots")
        missing = np.isnan(given)
        if missing.any():
            at, given = at[~missing], given[~missing]
        taken = self._taken[at]
        self._rings[at, taken % self.size] = np.clip(given, -self._largest, self._largest)
        self._taken[at] = taken + 1

    def last(self, k: int, at: Slots | None = None) -> Floats:
        """The last `k` readings of each slot of `at`, (n, k), newest last. NaN stands where there are fewer yet."""
        if not 0 <= k <= self.size:
            raise InputError(f"a buffer of {self.size} readings cannot give the last {k}")
        at = np.arange(self.metrics) if at is None else at
        if not len(at):
            return np.empty((0, k), self._rings.dtype)
        ends = self._taken[at] % self.size
        if (ends == ends[0]).all():  # metrics that come together stand together
            return self._together(k, int(ends[0]), at)
        if k >= LONG:
            last: Floats = np.empty((len(at), k), self._rings.dtype)
            for row, (slot, end) in enumerate(zip(at.tolist(), ends.tolist(), strict=True)):
                wrapped = max(k - end, 0)
                last[row, :wrapped] = self._rings[slot, self.size - wrapped :]
                last[row, wrapped:] = self._rings[slot, end - k + wrapped : end]
            return last
        places = ends[:, None] + np.arange(-k, 0)
        places += np.where(places < 0, self.size, 0) + at[:, None] * self.size
        gathered: Floats = self._rings.ravel().take(places)
        return gathered

    def _together(self, k: int, end: int, at: Slots) -> Floats:
        """The last `k` readings of slots that all have their heads at `end`."""
        whole = len(at) == self.metrics and bool((at == np.arange(len(at))).all())
        where: Any = slice(None) if whole else at
        wrapped = max(k - end, 0)
        last: Floats = np.empty((len(at), k), self._rings.dtype)
        if wrapped:
            last[:, :wrapped] = self._rings[where, self.size - wrapped :]
        last[:, wrapped:] = self._rings[where, end - k + wrapped : end]
        return last

    def back(self, k: Slots, at: Slots) -> Floats:
        """The reading `k[i]` before the newest of slot `at[i]`, (n,). NaN, or an older one, where there is none."""
        places: Floats = self._rings[at, (self._taken[at] - 1 - k) % self.size]
        return places

    def history(self, slot: int) -> Floats:
        """All that one slot holds, oldest first: a copy of at most `size` readings."""
        held: Floats = self.last(int(self.count[slot]), np.array([slot]))[0]
        return held

    def resize(self, metrics: int) -> None:
        """Make room for `metrics` slots. New ones are fresh; those beyond the end are dropped."""
        if metrics < 0:
            raise InputError(f"a buffer holds at least 0 metrics, not {metrics}")
        self._rings = resized(self._rings, metrics, np.nan)
        self._taken = resized(self._taken, metrics, 0)

    def forget(self, at: Slots) -> None:
        """Make slots fresh."""
        self._rings[at] = np.nan
        self._taken[at] = 0

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, as arrays. They are copies."""
        return {"rings": self._rings.copy(), "taken": self._taken.copy()}

    def restore(self, state: Arrays) -> None:
        """Become what a snapshot holds. Raises StorageError, and stays as it was, where it is none of such a buffer."""
        metrics = state["taken"].size if "taken" in state else 0
        rings, taken = fitting(state, {"rings": self._rings, "taken": self._taken}, metrics)
        if (taken < 0).any():
            raise StorageError("a snapshot of a buffer counts less than no readings")
        self._rings, self._taken = rings, taken

    def state_bytes(self) -> int:
        return self._rings.nbytes + self._taken.nbytes


class TimeRing:
    """When each reading came, in 2 bytes a reading: for what is shown, to 0.05 % of the time between two readings.

    Kept is the time since the reading before, as float16 (negative: in units of 4,096 s), measured from where the ring
    believes that one to be. So what is lost in rounding is made up by the next, and errors do not add up.
    """

    def __init__(self, metrics: int, size: int = SIZE) -> None:
        self._steps = TimeSeriesBuffer(metrics, size, np.float16)
        self._ends = np.zeros(metrics)

    @property
    def metrics(self) -> int:
        return len(self._ends)

    def append(self, times: npt.NDArray[np.float64], at: Slots) -> None:
        """Add the time of one reading of each slot of `at`, in seconds.

        A time before the last is a clock that was set: all that came before is moved with it.
        """
        fresh = self._steps.taken[at] == 0
        steps = np.where(fresh, 0.0, np.maximum(times - self._ends[at], 0.0))
        coarse = np.maximum(-steps / COARSE_S, LONGEST)
        kept = np.where(steps < COARSE_FROM_S, steps, coarse).astype(np.float16)
        self._steps.append(kept, at)
        anew = fresh | (steps == 0.0) | (kept == LONGEST)
        self._ends[at] = np.where(anew, times, self._ends[at] + _seconds(kept))

    def ends(self, at: Slots) -> npt.NDArray[np.float64]:
        """When the last reading of each slot came; NaN where there is none."""
        return np.where(self._steps.taken[at] > 0, self._ends[at], np.nan)

    def last(self, k: int, at: Slots) -> npt.NDArray[np.float64]:
        """When the last `k` readings of each slot came, (n, k), newest last. NaN where there are fewer yet."""
        steps = _seconds(self._steps.last(k, at))
        back = np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
        times: npt.NDArray[np.float64] = self._ends[at, None] - back + steps
        return times

    def steps(self, k: int, at: Slots) -> npt.NDArray[np.float64]:
        """The seconds before each of the last `k` readings, (n, k), newest last. NaN where there are fewer yet."""
        return _seconds(self._steps.last(k, at))

    def history(self, slot: int) -> npt.NDArray[np.float64]:
        """When all readings that one slot holds came, oldest first."""
        times: npt.NDArray[np.float64] = self.last(int(self._steps.count[slot]), np.array([slot]))[0]
        return times

    def resize(self, metrics: int) -> None:
        self._steps.resize(metrics)
        self._ends = resized(self._ends, metrics, 0.0)

    def forget(self, at: Slots) -> None:
        self._steps.forget(at)
        self._ends[at] = 0.0

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return {**self._steps.snapshot(), "ends": self._ends.copy()}

    def restore(self, state: Arrays) -> None:
        """Become what a snapshot holds. Raises StorageError where that is none."""
        metrics = state["taken"].size if "taken" in state else 0
        (ends,) = fitting(state, {"ends": self._ends}, metrics)
        self._steps.restore(state)
        self._ends = ends

    def state_bytes(self) -> int:
        return self._steps.state_bytes() + self._ends.nbytes


class SlotTable:
    """Named columns with a row a slot: what is known of each metric besides its readings."""

    def __init__(self, slots: int, columns: Columns) -> None:
        """`columns`: for each its type, the shape of a slot's part, and what a fresh slot holds."""
        if slots < 0:
            raise InputError(f"there are at least 0 metrics, not {slots}")
        self._columns = dict(columns)
        self._arrays = {name: np.full((slots, *shape), fill, kind) for name, (kind, shape, fill) in columns.items()}

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A column, (slots, ...): to be read and written to."""
        return self._arrays[name]

    def resize(self, slots: int) -> None:
        """Have so many slots. New ones are fresh; those beyond the end are dropped."""
        if slots < 0:
            raise InputError(f"there are at least 0 metrics, not {slots}")
        self._arrays = {name: resized(array, slots, self._columns[name][2]) for name, array in self._arrays.items()}

    def forget(self, at: Slots) -> None:
        """Make slots fresh."""
        for name, array in self._arrays.items():
            array[at] = self._columns[name][2]

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of all columns."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def restore(self, state: Arrays) -> None:
        """Become what a snapshot holds. Raises StorageError, and stays as it was, where it is none of such a table."""
        first = state.get(next(iter(self._arrays)))
        found = fitting(state, self._arrays, 0 if first is None or not first.ndim else len(first))
        self._arrays = dict(zip(self._arrays, found, strict=True))

    def state_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())


def resized(array: npt.NDArray[Any], rows: int, fill: float) -> npt.NDArray[Any]:
    """A copy with so many rows; new ones hold `fill`."""
    made = np.full((rows, *array.shape[1:]), fill, array.dtype)
    kept = min(rows, len(array))
    made[:kept] = array[:kept]
    return made


def fitting(state: Arrays, like: Arrays, rows: int) -> tuple[npt.NDArray[Any], ...]:
    """Copies of the arrays of `state` that `like` names, in its order. Raises StorageError where one does not fit.

    Each must have the type and the shape of the one in `like`, with `rows` rows.
    """
    found = []
    for name, known in like.items():
        array = state.get(name)
        if array is None or array.dtype != known.dtype or array.shape != (rows, *known.shape[1:]):
            raise StorageError(f"the snapshot has no {name!r} of {rows} rows that fits here")
        found.append(array.copy())
    return tuple(found)


def _seconds(kept: Floats) -> npt.NDArray[np.float64]:
    wide = kept.astype(np.float64)
    return np.where(wide < 0, -wide * COARSE_S, wide)
