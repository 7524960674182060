"""Every detector that ships keeps the contract; the check suite catches those that do not, by the rule they break."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from chimera.anomaly.buffer import Arrays, Slots
from chimera.anomaly.checks import CHECKS, Kind, check_detector
from chimera.anomaly.detectors.base import Adopt, SlotDetector, Study, Values, in_units
from chimera.anomaly.detectors.moving_average import MovingAverageDetector
from chimera.anomaly.registry import BUILT_IN, detector
from chimera.core.errors import DetectorError


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_those_that_ship_keep_it(name: str) -> None:
    check_detector(detector(name))


class Good(SlotDetector):
    """The least that passes: how far from the mean, in mean distances. The bad ones are this with one fault."""

    name: ClassVar[str] = "good"

    def __init__(self, metrics: int = 1) -> None:
        super().__init__(metrics, dict.fromkeys(("taken", "mean", "spread"), (np.float64, (), 0.0)))

    def _score(self, values: Values, at: Slots) -> Values:
        return in_units(np.abs(values - self._rows["mean"][at]), self._rows["spread"][at])

    def _learn(self, values: Values, at: Slots) -> None:
        rows = self._rows
        taken = rows["taken"][at]
        weight = np.maximum(0.05, 1.0 / (taken + 1.0))
        away = values - rows["mean"][at]
        reach = np.where(taken < 5, np.inf, 5.0 * rows["spread"][at])
        rows["mean"][at] += weight * np.clip(away, -reach, reach)
        rows["spread"][at] += weight * (np.minimum(np.abs(away), reach) - rows["spread"][at])
        rows["taken"][at] = taken + 1.0


def test_the_good_one_is_good() -> None:
    check_detector(Good)


class OneScore(Good):
    def update(self, values: Values, at: Slots | None = None) -> Values:
        return super().update(values, at)[:1]


class InfiniteScores(Good):
    def _score(self, values: Values, at: Slots) -> Values:
        return np.where(self._rows["taken"][at] == 0.0, np.inf, super()._score(values, at))


class Nameless(Good):
    name: ClassVar[str] = "two words"


class NoDetector:
    name = "none"

    def __init__(self, metrics: int) -> None:
        self.metrics = metrics


class Raises(Good):
    def _score(self, values: Values, at: Slots) -> Values:
        if np.abs(values).max() > 1e30:
            raise OverflowError("too large")
        return super()._score(values, at)


class FillsHoles(Good):
    """Takes a missing reading for 0."""

    def update(self, values: Values, at: Slots | None = None) -> Values:
        return super().update(np.nan_to_num(values), at)


class HoleMovesOthers(Good):
    """Stops learning for all when one is missing."""

    def update(self, values: Values, at: Slots | None = None) -> Values:
        if np.isnan(values).any():
            which = np.arange(self.metrics) if at is None else at
            scores = self._score(np.nan_to_num(values), which)
            scores[np.isnan(values)] = np.nan
            return scores
        return super().update(values, at)


class Poisoned(Good):
    """Learns wild values as they are."""

    def _learn(self, values: Values, at: Slots) -> None:
        self._rows["mean"][at] += 0.001 * (values - self._rows["mean"][at])
        self._rows["spread"][at] += 0.001 * (np.abs(values - self._rows["mean"][at]) - self._rows["spread"][at])


class NeverAgain(Good):
    """One infinity, and every later score is NaN."""

    def update(self, values: Values, at: Slots | None = None) -> Values:
        if np.isinf(values).any():
            self._rows["mean"][:] = np.nan
        return super().update(values, at)


class LooksAhead(Good):
    """Reads on in the memory that the values are a part of."""

    def update(self, values: Values, at: Slots | None = None) -> Values:
        whole = values.base
        later = 0.0 if whole is None or whole.ndim != 2 else float(np.abs(whole[-1]).max())
        return np.asarray(super().update(values, at) + later)


class Rewrites(Good):
    """Gives out its own array, and writes the next scores into it."""

    def __init__(self, metrics: int = 1) -> None:
        super().__init__(metrics)
        self._said = np.zeros(0)

    def update(self, values: Values, at: Slots | None = None) -> Values:
        scores = super().update(values, at)
        if self._said.shape != scores.shape:
            self._said = scores
        self._said[:] = scores
        return self._said


class Ranks(Good):
    """Scores a metric by how it stands among the others."""

    def _score(self, values: Values, at: Slots) -> Values:
        scores = super()._score(values, at)
        return np.asarray(scores / max(float(scores.max()), 1e-9))


class LearnsWhileScoring(Good):
    def score_one(self, value: float) -> float:
        score = super().score_one(value)
        super().learn_one(value)
        return score


class LearnsFirst(Good):
    """Learns a reading before it scores it, where `score_one` does not."""

    def update(self, values: Values, at: Slots | None = None) -> Values:
        first = super().update(values, at)
        there = np.abs(values) <= 1e38
        which = np.arange(self.metrics) if at is None else at
        again = self._score(np.where(there, values, 0.0), which)
        return np.asarray(np.where(np.isnan(first), np.nan, again))


class Dice(Good):
    """Draws from a generator that nobody seeded."""

    def _score(self, values: Values, at: Slots) -> Values:
        return super()._score(values, at) + np.random.default_rng().random(len(values))


class Forgetful(Good):
    """Leaves a part of what it knows out of its snapshot."""

    def restore(self, state: Arrays) -> None:
        super().restore(state)
        self._rows["spread"][:] = 1.0


class Shares(Good):
    """Its snapshot is its live state."""

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self._rows[name] for name in ("taken", "mean", "spread")}


class Pickles(Good):
    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return super().snapshot() | {"self": np.array([object()], dtype=object)}


class Believes(Good):
    """Takes anything for a snapshot."""

    def restore(self, state: Arrays) -> None:
        if state:
            super().restore(state)


class Remembers(Good):
    """Does not forget how far a slot's readings used to be from each other."""

    def forget(self, at: Slots) -> None:
        spread = self._rows["spread"][at]
        super().forget(at)
        self._rows["spread"][at] = spread
        self._rows["taken"][at] = 100.0


class ForgetsAll(Good):
    def forget(self, at: Slots) -> None:
        super().forget(np.arange(self.metrics))


class Hoards(Good):
    """Keeps every reading."""

    def __init__(self, metrics: int = 1) -> None:
        super().__init__(metrics)
        self._kept: list[Values] = []

    def _learn(self, values: Values, at: Slots) -> None:
        super()._learn(values, at)
        self._kept.append(values)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return super().snapshot() | {"kept": np.concatenate([*self._kept, np.zeros(0)])}

    def restore(self, state: Arrays) -> None:
        super().restore(state)
        self._kept = [state["kept"]]

    def state_bytes(self) -> int:
        return super().state_bytes() + sum(kept.nbytes for kept in self._kept)


class HoardsInSecret(Hoards):
    def state_bytes(self) -> int:
        return self._rows.state_bytes()


class Wide(Good):
    """A forest a metric would be as large."""

    def __init__(self, metrics: int = 1) -> None:
        super().__init__(metrics)
        self._wide = np.zeros((metrics, 20_000), np.int8)

    def resize(self, metrics: int) -> None:
        super().resize(metrics)
        self._wide = np.zeros((metrics, 20_000), np.int8)

    def state_bytes(self) -> int:
        return super().state_bytes() + self._wide.nbytes


class Absolute(Good):
    """Says that scales do not matter, and counts in the metric's own unit."""

    scale_free: ClassVar[bool] = True

    def _score(self, values: Values, at: Slots) -> Values:
        return np.asarray(np.minimum(np.abs(values - self._rows["mean"][at]), 1e6))


class Blind(Good):
    def _score(self, values: Values, at: Slots) -> Values:
        return np.zeros(len(values))


class SpoiledByStudy(Good):
    """What it learns at leisure makes it say NaN."""

    def study(self, at: Slots | None = None) -> Study | None:
        def learn() -> Adopt:
            def adopt() -> None:
                self._rows["mean"][:] = np.nan

            return adopt

        return learn


BAD: list[tuple[Kind, str]] = [
    (NoDetector, "shape"),  # type: ignore[list-item] # it is the point
    (OneScore, "shape"),
    (InfiniteScores, "shape"),
    (Nameless, "shape"),
    (SpoiledByStudy, "shape"),
    (Dice, "same"),
    (LooksAhead, "past"),
    (Rewrites, "past"),
    (FillsHoles, "missing"),
    (HoleMovesOthers, "missing"),
    (Ranks, "slots"),
    (LearnsWhileScoring, "one"),
    (LearnsFirst, "one"),
    (Forgetful, "snapshot"),
    (Shares, "snapshot"),
    (Pickles, "snapshot"),
    (Believes, "snapshot"),
    (Remembers, "forget"),
    (ForgetsAll, "forget"),
    (Hoards, "bounded"),
    (HoardsInSecret, "bounded"),
    (Wide, "bounded"),
    (Absolute, "scale"),
    (Blind, "sees"),
    (Raises, "wild"),
    (Poisoned, "wild"),
    (NeverAgain, "wild"),
]


@pytest.mark.parametrize(("kind", "rule"), BAD, ids=lambda value: getattr(value, "__name__", value))
def test_a_bad_one_is_caught_by_its_rule(kind: Kind, rule: str) -> None:
    with pytest.raises(DetectorError, match=f"breaks the rule `{rule}`"):
        check_detector(kind)


def test_every_rule_has_one_that_breaks_it() -> None:
    assert {rule for _, rule in BAD} == {check.__name__.strip("_") for check in CHECKS}


def test_an_error_of_a_detector_is_told_with_the_rule_that_it_broke() -> None:
    with pytest.raises(DetectorError, match="Raises breaks the rule `wild`: it raises OverflowError: too large"):
        check_detector(Raises)


def test_a_detector_with_options_is_checked_as_any_callable() -> None:
    check_detector(lambda metrics: MovingAverageDetector(metrics, slow=0.01, fast=0.5))
