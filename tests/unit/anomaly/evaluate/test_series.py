"""A run hands out one point at a time, and believes no detector that takes more."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import pytest

from chimera.anomaly.evaluate import Point, Result, Series, Window, run
from chimera.anomaly.evaluate.series import HUGE, probation
from chimera.core.errors import DetectorError, InputError
from chimera.core.watching import AnomalyKind


def series(points: int = 20, *windows: Window, at: int = 0) -> Series:
    values = np.arange(points, dtype=float)
    return Series("made", "synthetic", "made", 10 * values, values, windows, at)


def test_what_it_yields_is_kept_in_order() -> None:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        for timestamp, value in stream:
            yield timestamp - 9 * value, value > 17, "drop" if value > 17 else None

    trace = run(detector, series())
    assert trace.scores.tolist() == [float(n) for n in range(20)]
    assert np.flatnonzero(trace.alerts).tolist() == [18, 19]
    assert trace.kinds == (None,) * 18 + (AnomalyKind.DROP,) * 2
    assert (trace.cpu_s >= 0).all()


@pytest.mark.parametrize("ahead", [1, 5])
def test_looking_ahead_is_found(ahead: int) -> None:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        held = []
        for _, value in stream:
            held.append(value)
            if len(held) > ahead:
                yield held[-1], False, None

    with pytest.raises(DetectorError, match=f"looks ahead, result 0 came after {ahead + 1} points"):
        run(detector, series())


def test_one_look_ahead_at_the_end_is_found() -> None:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        for _, value in stream:
            if value == 15:
                next(stream)
            yield value, False, None

    with pytest.raises(DetectorError, match="result 15 came after 17 points"):
        run(detector, series())


def test_a_detector_that_reads_everything_first_is_found() -> None:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        for _, value in list(stream):
            yield value, False, None

    with pytest.raises(DetectorError, match="looks ahead"):
        run(detector, series())


def test_one_that_ends_early_is_found() -> None:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        yield next(stream)[1], False, None

    with pytest.raises(DetectorError, match="ended after 1 of 20 points"):
        run(detector, series())


@pytest.mark.parametrize("result", [1.0, (1.0, True), ("high", True, None), (1.0, True, "odd"), "abc", (1, 2, 3, 4)])
def test_what_is_no_result_is_refused(result: object) -> None:
    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        for _ in stream:
            yield result  # type: ignore[misc]

    with pytest.raises(DetectorError, match="result 0 is"):
        run(detector, series())


def test_scores_that_are_no_numbers_stay_finite() -> None:
    said = [float("nan"), float("inf"), float("-inf")]

    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        for _, value in stream:
            yield said[int(value) % 3], False, None

    assert run(detector, series(3)).scores.tolist() == [0.0, HUGE, -HUGE]


@pytest.mark.parametrize(
    "windows", [(Window(5, 4, 5),), (Window(3, 6, 2),), (Window(3, 20, 4),), (Window(3, 6, 3), Window(6, 8, 7))]
)
def test_windows_out_of_order_are_refused(windows: tuple[Window, ...]) -> None:
    with pytest.raises(InputError, match="windows must be in order"):
        series(20, *windows)


def test_a_series_must_leave_something_to_score() -> None:
    with pytest.raises(InputError, match="leaves none"):
        series(20, at=20)
    with pytest.raises(InputError, match="points, each with a timestamp"):
        series(0)


def test_probation_is_15_percent_and_at_most_750() -> None:
    assert [probation(points) for points in (10, 1_000, 5_000, 20_000)] == [1, 150, 750, 750]
