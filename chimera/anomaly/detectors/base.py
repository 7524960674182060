"""What a detector is: scores over many metrics at once, of which each is a slot that knows nothing of the others.

`Detector` is the protocol; `SlotDetector` does what all of them share, for those that keep their state in arrays.
`chimera.anomaly.checks` proves that a detector keeps the contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Arrays, Columns, Slots, SlotTable
from chimera.core.errors import InputError

Values = npt.NDArray[np.float64]

LARGEST = float(np.finfo(np.float32).max)
"""A value that is farther from 0 is no reading."""

TOP_SCORE = 1_000.0
"""No score of ours is above it: what leaves a constant series is infinitely far, and must still be a number."""

Adopt = Callable[[], None]
"""Takes what was learned into use. To be called where `update` is called, never at the same time."""

Study = Callable[[], Adopt]
"""Learns from a copy of what the detector knew: may take seconds, and may run in another thread."""


@runtime_checkable
class Detector(Protocol):
    """One way to see that a metric is not as usual. Made by `kind(metrics)`, with `metrics` fresh slots.

    `name` is the channel that it votes as, and `unit` what its scores are counted in.
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def update(self, values: Values, at: Slots | None = None) -> Values:
        """Score `values` (n,), then learn them; returns (n,), higher is more anomalous, all finite.

        `at` are n different slots, by default all. NaN, or what a float32 cannot hold, is no reading: its slot stays as
        it is, and its score is NaN. 0 says that there is nothing to say yet. Scores use nothing but this reading and
        those before it.
        """
        ...

    def score_one(self, value: float) -> float:
        """What `update` would say of `value` in slot 0. Learns nothing."""
        ...

    def learn_one(self, value: float) -> None:
        """Learn `value` in slot 0, after `score_one`."""
        ...

    def resize(self, metrics: int) -> None:
        """Have `metrics` slots: new ones are fresh, those beyond the end are gone."""
        ...

    def forget(self, at: Slots) -> None:
        """Make slots fresh."""
        ...

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Everything, as arrays without Python objects in them. They are copies."""
        ...

    def restore(self, state: Arrays) -> None:
        """Go on where a snapshot was taken, with as many slots. Raises StorageError where it is none."""
        ...

    def state_bytes(self) -> int:
        """What all slots take together."""
        ...


@runtime_checkable
class Student(Protocol):
    """A detector that has something to learn at leisure. The engine runs `study` in the background, after alerts."""

    def study(self, at: Slots | None = None) -> Study | None:
        """What to learn again for the slots `at` (all of them by default), or None where there is nothing to learn."""
        ...


class SlotDetector(ABC):
    """A detector whose state is arrays with a row a slot. Subclasses say what rows hold, and how to score and learn."""

    name: ClassVar[str]
    unit: ClassVar[str] = "spreads"
    scale_free: ClassVar[bool] = False
    """Whether scores are the same for a * x + b. The check suite holds a detector to it that says so."""

    def __init__(self, metrics: int, columns: Columns) -> None:
        self._rows = SlotTable(metrics, columns)

    @abstractmethod
    def _score(self, values: Values, at: Slots) -> Values:
        """Scores (n,) of `values` (n,), all of them readings. Changes nothing."""

    @abstractmethod
    def _learn(self, values: Values, at: Slots) -> None:
        """Learn `values` (n,), all of them readings, of the slots `at`."""

    @property
    def metrics(self) -> int:
        return len(self._rows)

    def update(self, values: Values, at: Slots | None = None) -> Values:
        given = np.asarray(values, np.float64)
        at = np.arange(self.metrics) if at is None else at
        if given.shape != at.shape:
            raise InputError(f"values of shape {given.shape} are not one for each of {len(at)} slots")
        scores = np.full(len(given), np.nan)
        there = np.abs(given) <= LARGEST  # false for NaN
        if not there.all():
            at, given = at[there], given[there]
        if len(given):
            scores[there] = self._score(given, at)
            self._learn(given, at)
        return scores

    def score_one(self, value: float) -> float:
        if not abs(value) <= LARGEST:
            return float("nan")
        return float(self._score(np.array([value], np.float64), _FIRST)[0])

    def learn_one(self, value: float) -> None:
        if abs(value) <= LARGEST:
            self._learn(np.array([value], np.float64), _FIRST)

    def resize(self, metrics: int) -> None:
        self._rows.resize(metrics)

    def forget(self, at: Slots) -> None:
        self._rows.forget(at)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return self._rows.snapshot()

    def restore(self, state: Arrays) -> None:
        self._rows.restore(state)

    def state_bytes(self) -> int:
        return self._rows.state_bytes()


def in_units(distance: Values, unit: Values) -> Values:
    """`distance` in units, at most TOP_SCORE: that is also what any distance is where the unit is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(distance == 0.0, 0.0, distance / unit)
    return np.minimum(ratio, TOP_SCORE)


_FIRST = np.array([0])
