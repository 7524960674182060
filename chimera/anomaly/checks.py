"""One check suite for every detector: those that ship, and yours.

    from chimera.anomaly.checks import check_detector
    check_detector(MyDetector)

Each rule is one that the engine relies on. A detector that learns at leisure (`Student`) does so at fixed places.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Slots
from chimera.anomaly.detectors.base import Detector, Student, Values
from chimera.core.errors import ChimeraError, DetectorError

Kind: TypeAlias = Callable[[int], Detector]
"""A detector's class, or anything else that makes one for so many metrics."""

METRICS = 6

POINTS = 420

STUDY_AT = (150, 300)

MAX_BYTES_A_METRIC = 10_240

MAX_SHARED_BYTES = 2**20
"""What all metrics of a detector may share, such as a forest."""

WILD = (np.nan, np.inf, -np.inf, 1e308, -1e308, 3e38, 5e-324, -0.0, 1e-30)

FORGIVEN_AFTER = 1_500
"""Readings after which wild values must have been forgotten."""

SHIFT = 50.0


def check_detector(kind: Kind, *, seed: int = 100) -> None:
    """Run every check on detectors that `kind(metrics)` makes. Raises DetectorError, which names the rule broken."""
    series = _series(seed)
    for check in CHECKS:
        rule = check.__name__.strip("_")
        try:
            with np.errstate(all="ignore"):
                check(kind, series)
        except _Broken as broken:
            raise DetectorError(f"{_called(kind)} breaks the rule `{rule}`: {broken}") from None
        except Exception as error:  # whatever a detector raises, the rule that it was at must be told
            told = f"it raises {type(error).__name__}: {error}"
            raise DetectorError(f"{_called(kind)} breaks the rule `{rule}`: {told}") from error


def _shape(kind: Kind, series: Values) -> None:
    """One finite score a value, whatever the slots; the name and the unit are words."""
    detector = kind(METRICS)
    _demand(isinstance(detector, Detector), "it lacks an attribute or a method of Detector")
    named = all(isinstance(word, str) and word.isidentifier() for word in (detector.name, detector.unit))
    _demand(named, f"name {detector.name!r} and unit {detector.unit!r} must be words")
    for at in (None, np.array([4, 1]), np.array([], np.int64)):
        values = series[0] if at is None else series[0, at]
        scores = detector.update(values, at)
        _demand(isinstance(scores, np.ndarray) and scores.shape == values.shape, f"{len(values)} values, {scores!r}")
        _demand(bool(np.isfinite(scores).all()), "a score of a first value is not finite")
    scores = _run(detector, series)
    _demand(bool(np.isfinite(scores).all()), "a score of a usual value is not finite")


def _missing(kind: Kind, series: Values) -> None:
    """NaN scores NaN, and leaves its slot as it is."""
    given, without = kind(METRICS), kind(METRICS)
    hole = np.full(METRICS, np.nan)
    for number, row in enumerate(series):
        if number % 7 == 3:
            _demand(bool(np.isnan(given.update(hole)).all()), "the score of NaN is not NaN")
            gap = row.copy()
            gap[::2] = np.nan
            odd = np.arange(1, METRICS, 2)
            _equal(given.update(gap)[odd], without.update(row[odd], odd), "NaN in one slot changes another's score")
            even = np.arange(0, METRICS, 2)
            _equal(given.update(row[even], even), without.update(row[even], even), "NaN changes a slot")
        else:
            _equal(given.update(row), without.update(row), "NaN changes later scores")


def _wild(kind: Kind, series: Values) -> None:
    """Whatever comes in, nothing is raised, no score is infinite, and in time the detector sees again."""
    detector = kind(METRICS)
    _run(detector, series)
    for wild in WILD:
        for values in (np.full(METRICS, wild), np.where(np.arange(METRICS) % 2 == 0, wild, series[0])):
            _demand(not np.isinf(detector.update(values)).any(), f"the score of {wild} is infinite")
    fresh = kind(METRICS)
    for wild in WILD:
        _demand(not np.isinf(fresh.update(np.full(METRICS, wild))).any(), f"the score of {wild} at first is infinite")
    again = np.concatenate([series] * (FORGIVEN_AFTER // POINTS + 1))
    _demand(bool(np.isfinite(_run(detector, again)).all()), "wild values make later scores NaN or infinite")
    _sees(lambda metrics: detector, series)


def _sees(kind: Kind, series: Values) -> None:
    """Where the level moves by 50 spreads, some score is higher than nearly all before."""
    detector = kind(METRICS)
    usual = np.quantile(_run(detector, series)[POINTS // 2 :], 0.95, axis=0)
    moved = _run(detector, series[:60] + SHIFT * series.std(axis=0)).max(axis=0)
    _demand(bool((moved > usual).all()), f"a shift of {SHIFT:.0f} spreads scores {moved.min()}, usual is {usual.max()}")


def _past(kind: Kind, series: Values) -> None:
    """What was said of the past stays said: it is the same without what came later."""
    whole = _run(kind(METRICS), series)
    for length in (1, 100, 333):
        _equal(_run(kind(METRICS), series[:length].copy()), whole[:length], "a score depends on what came later")
    detector = kind(METRICS)
    said = [detector.update(row) for row in series]
    kept = [scores.copy() for scores in said[:-1]]
    detector.update(series[0] + SHIFT)
    for before, after in zip(kept, said, strict=False):
        _equal(before, after, "scores that were given out change")


def _slots(kind: Kind, series: Values) -> None:
    """A metric's scores do not depend on which others are asked with it, nor on their values."""
    together, alone, among = kind(METRICS), kind(METRICS), kind(METRICS)
    taught = kind(METRICS)
    _run(taught, series)
    for detector in (together, alone, among):
        detector.restore(taught.snapshot())
    others = series * np.where(np.arange(METRICS) == 2, 1.0, -3.0)
    for row, other in zip(series, others, strict=True):
        scores = together.update(row)
        one_by_one = np.array([alone.update(row[at : at + 1], np.array([at]))[0] for at in _order()])
        _equal(scores[_order()], one_by_one, "metrics together score differently than one by one")
        _equal(scores[2:3], among.update(other)[2:3], "a metric's score depends on another metric")


def _one(kind: Kind, series: Values) -> None:
    """`score_one` and then `learn_one` are what `update` is for one metric; to score is not to learn."""
    one, many = kind(1), kind(1)
    for number, value in enumerate(series[:, 0].tolist()):
        _study(one, number)
        _study(many, number)
        first, second = one.score_one(value), one.score_one(value)
        _equal(np.array([first]), np.array([second]), "score_one changes the detector")
        one.learn_one(value)
        _equal(np.array([first]), many.update(np.array([value])), "score_one and update differ")
    _demand(bool(np.isnan(one.score_one(float("nan")))), "score_one(NaN) is not NaN")
    one.learn_one(float("nan"))


def _same(kind: Kind, series: Values) -> None:
    """Two detectors that are told the same say the same."""
    _equal(_run(kind(METRICS), series), _run(kind(METRICS), series), "two detectors told the same differ")


def _snapshot(kind: Kind, series: Values) -> None:
    """A snapshot is plain arrays, stays what it was, and goes on in a fresh detector of any size as if nothing were."""
    detector, half = kind(METRICS), POINTS // 2
    _run(detector, series[:half])
    state = detector.snapshot()
    stored = _stored(state)
    rest = _run(detector, series[half:])
    for name, array in state.items():
        _demand(np.array_equal(array, stored[name], equal_nan=True), f"{name!r} of a snapshot changes afterwards")
    for metrics in (METRICS, 1):
        other = kind(metrics)
        other.restore(stored)
        _equal(_run(other, series[half:]), rest, "a restored detector goes on differently")
    fresh = kind(METRICS)
    try:
        fresh.restore({})
    except ChimeraError:
        _equal(_run(fresh, series), _run(kind(METRICS), series), "a snapshot refused changes the detector")
        return
    raise _Broken("restore({}) raises no StorageError")


def _forget(kind: Kind, series: Values) -> None:
    """A slot that is forgotten is as new, and so is one that `resize` adds; the others do not notice."""
    detector, kept = kind(METRICS), kind(METRICS)
    _run(detector, series)
    kept.restore(detector.snapshot())
    detector.resize(METRICS + 2)
    detector.forget(np.array([1]))
    blank = kind(METRICS + 2)
    blank.restore(detector.snapshot())
    blank.forget(np.arange(METRICS + 2))
    wide = np.concatenate([series, series[:, :2]], axis=1)
    scores, new, old = _run(detector, wide, ()), _run(blank, wide, ()), _run(kept, series, ())
    fresh = [1, METRICS, METRICS + 1]
    _equal(scores[:, fresh], new[:, fresh], "a forgotten or an added slot is not fresh")
    others = [0, 2, 3, 4, 5]
    _equal(scores[:, others], old[:, others], "to forget a slot or to resize changes others")
    detector.resize(METRICS)
    kept.forget(np.array([1]))
    _demand(detector.update(series[0]).shape == (METRICS,), "resize does not drop slots")


def _bounded(kind: Kind, series: Values) -> None:
    """The state is at most 10 KB a metric, whatever comes, and `state_bytes` tells of it."""
    small, large = kind(METRICS), kind(10 * METRICS)
    sizes = []
    for _ in range(4):
        for detector, rows in ((small, series), (large, np.tile(series, 10))):
            _run(detector, rows)
        sizes.append((_size(small), _size(large)))
    a_metric = (sizes[-1][1] - sizes[-1][0]) / (9 * METRICS)
    _demand(a_metric <= MAX_BYTES_A_METRIC, f"{a_metric:.0f} bytes a metric are more than {MAX_BYTES_A_METRIC}")
    _demand(sizes[-1][0] <= MAX_SHARED_BYTES + METRICS * MAX_BYTES_A_METRIC, f"{sizes[-1][0]} bytes are shared")
    grown = max(sizes[-1][0] - sizes[1][0] * 1.25, sizes[-1][1] - sizes[1][1] * 1.25)
    _demand(grown <= 0, f"the state grows with the points: {sizes} bytes")


def _scale(kind: Kind, series: Values) -> None:
    """One that says `scale_free` scores a metric the same in any unit."""
    if not getattr(kind(METRICS), "scale_free", False):
        return
    expected = _run(kind(METRICS), series)
    for factor, shift in ((1024.0, 0.0), (2.0**-20, 0.0), (8.0, 96.0)):
        scores = _run(kind(METRICS), series * factor + shift)
        close = np.isclose(scores, expected, rtol=0.05, atol=0.05)
        _demand(close.mean() > 0.99, f"scores change when values are {factor} * x + {shift}")


CHECKS: tuple[Callable[[Kind, Values], None], ...] = (
    _shape,
    _same,
    _past,
    _missing,
    _slots,
    _one,
    _snapshot,
    _forget,
    _bounded,
    _scale,
    _sees,
    _wild,
)


class _Broken(Exception):
    """A rule does not hold."""


def _series(seed: int) -> Values:
    """(POINTS, METRICS): noise, a walk, a season, a spiky one, a coarse one and a slow one, of different scales."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(POINTS, METRICS))
    steps = np.arange(POINTS)
    noise[:, 1] = np.cumsum(noise[:, 1]) * 0.1 + 0.5 * noise[:, 1]
    noise[:, 2] += 3.0 * np.sin(2 * np.pi * steps / 24)
    noise[:, 3] += 10.0 * (steps % 97 == 96)
    noise[:, 4] = np.round(noise[:, 4])
    noise[:, 5] += steps / POINTS
    series: Values = noise * np.array([1.0, 5.0, 0.5, 2.0, 1.0, 100.0]) + np.array([0.0, 50.0, -3.0, 0.0, 8.0, 0.0])
    return series


def _run(detector: Detector, series: Values, studies: tuple[int, ...] = STUDY_AT) -> Values:
    """The scores (points, metrics), as they were when they were given."""
    scores = np.empty(series.shape)
    for number, row in enumerate(series):
        if number in studies:
            _study(detector, STUDY_AT[0])
        scores[number] = detector.update(row)
    return scores


def _study(detector: Detector, number: int) -> None:
    if number in STUDY_AT and isinstance(detector, Student) and (study := detector.study()) is not None:
        study()()


def _stored(state: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """What comes back from a file without pickle."""
    for name, array in state.items():
        _demand(isinstance(name, str) and isinstance(array, np.ndarray), f"{name!r} of a snapshot is no array")
        _demand(not array.dtype.hasobject, f"{name!r} of a snapshot holds Python objects")
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **state)
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def _size(detector: Detector) -> int:
    """What it says that its state takes, and at least what a snapshot of it does."""
    told, kept = detector.state_bytes(), sum(array.nbytes for array in detector.snapshot().values())
    _demand(told >= 0.9 * kept - 1_024, f"state_bytes says {told}, and a snapshot takes {kept}")
    return max(told, kept)


def _order() -> Slots:
    return np.arange(METRICS)[::-1]


def _equal(one: Values, other: Values, otherwise: str) -> None:
    """Demand equality to the last few bits: sums over other numbers of rows may be rounded differently."""
    _demand(bool(np.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)), otherwise)


def _demand(truth: bool, otherwise: str) -> None:
    if not truth:
        raise _Broken(otherwise)


def _called(kind: object) -> str:
    return str(getattr(kind, "__qualname__", kind))
