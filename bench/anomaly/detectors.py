"""The detectors that Chimera's is measured beside, each with one threshold for everything.

Each is set up as its documentation suggests for a stream. Its threshold is the round one with the best F1 over the
synthetic series of seed `CHOSEN_ON`, which no table shows. None of them says what kind an anomaly is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from chimera.anomaly.evaluate import Point, Result, StreamDetector

CHOSEN_ON = 200

WINDOW = 1_000

SHINGLE = 8
"""Values that make one row for a forest: the last, and seven before it."""


@dataclass(frozen=True)
class Rival:
    """`settings` is what the table says of it. `make` raises ModuleNotFoundError where its library is not installed.

    `slow` ones run where they are asked for by name.
    """

    name: str
    settings: str
    make: Callable[[], StreamDetector]
    slow: bool = False


def chimera() -> StreamDetector:
    """Chimera's own, as `chimera anomaly evaluate` takes it."""
    detector: StreamDetector = import_module("chimera.anomaly.evaluation").detector
    return detector


def robust_z(*, window: int = 500, threshold: float = 6.0) -> StreamDetector:
    """Distance from the median of the last points, in units of their median absolute deviation."""

    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        last: deque[float] = deque(maxlen=window)
        for _, value in stream:
            score = 0.0
            if len(last) >= 30:
                known = np.array(last)
                middle = np.median(known)
                spread = 1.4826 * np.median(np.abs(known - middle)) or known.std()
                score = float(abs(value - middle) / spread) if spread else HUGE_Z * (value != middle)
            last.append(value)
            yield score, score > threshold, None

    return detector


HUGE_Z = 1e6
"""The score of a value that differs where all others were the same."""


def windowed_gaussian(*, window: int = WINDOW, threshold: float = 4.0) -> StreamDetector:
    """NAB's windowed Gaussian: the tail of a normal distribution over the last 1,000 values, told as a z.

    Told as a probability, as NAB has it, the largest scores would all be 1.
    """

    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        last: deque[float] = deque(maxlen=window)
        for _, value in stream:
            known = np.array(last) if last else np.array([value])
            score = float(abs(value - known.mean()) / (known.std() or 1e-6))
            last.append(value)
            yield score, score > threshold, None

    return detector


def isolation_forest(*, trees: int = 100, every: int = 200, threshold: float = 0.65) -> StreamDetector:
    """scikit-learn's forest over shingles, fitted anew each `every` points on the last 1,000."""
    forest = import_module("sklearn.ensemble").IsolationForest

    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        rows: deque[list[float]] = deque(maxlen=WINDOW)
        shingle: deque[float] = deque(maxlen=SHINGLE)
        fitted = None
        for at, (_, value) in enumerate(stream):
            shingle.append(value)
            row = list(shingle)
            score = 0.0
            if fitted is not None:
                score = -float(fitted.score_samples([row])[0])
            if len(row) == SHINGLE:
                rows.append(row)
            if at % every == every - 1:
                fitted = forest(n_estimators=trees, random_state=0).fit(np.array(rows))
            yield score, score > threshold, None

    return detector


def half_space_trees(*, trees: int = 25, threshold: float | None = 0.98, quantile: float = 0.999) -> StreamDetector:
    """river's half-space trees over shingles, behind its scaler; alerts by a fixed threshold or its quantile filter."""
    anomaly, preprocessing = import_module("river.anomaly"), import_module("river.preprocessing")

    def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
        model = anomaly.QuantileFilter(anomaly.HalfSpaceTrees(n_trees=trees, seed=42), q=quantile)
        scaler = preprocessing.MinMaxScaler()
        shingle: deque[float] = deque(maxlen=SHINGLE)
        for _, value in stream:
            shingle.append(value)
            score, alert = 0.0, False
            if len(shingle) == SHINGLE:
                row = dict(enumerate(shingle))
                scaler.learn_one(row)
                scaled = scaler.transform_one(row)
                score = float(model.score_one(scaled))
                alert = score > threshold if threshold is not None else bool(model.classify(score))
                model.learn_one(scaled)
            yield score, alert, None

    return detector


RIVALS = (
    Rival("chimera", "as it comes", chimera),
    Rival("robust z", "last 500 points, over 6", robust_z),
    Rival("windowed Gaussian", "last 1,000 points, over 4 sigma", windowed_gaussian),
    Rival("river HST", "HalfSpaceTrees, 25 trees over the last 8 points, over 0.98", half_space_trees),
    Rival("river HST, quantile", "the same, over the 0.999 quantile", lambda: half_space_trees(threshold=None)),
    Rival("isolation forest 25", "25 trees, refitted each 200 points, over 0.65", lambda: isolation_forest(trees=25)),
    Rival("isolation forest 100", "100 trees, refitted each 200 points, over 0.65", isolation_forest, slow=True),
)
