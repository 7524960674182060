"""Chimera's detector and forecaster in the form that an evaluation takes: `chimera.anomaly.evaluation:detector`."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from chimera.anomaly.ensemble import KINDS, Ensemble
from chimera.anomaly.evaluate import Point, Result
from chimera.anomaly.forecast.engine import forecast

__all__ = ["detector", "forecast"]


def detector(stream: Iterator[Point]) -> Generator[Result, None, None]:
    """The ensemble over one metric, as it comes: (score, alert, kind) for each point, before the next is read."""
    ensemble = Ensemble(1)
    values = np.empty(1)
    for _, values[0] in stream:
        verdicts = ensemble.update(values)
        kind = int(verdicts.kind[0])
        yield float(verdicts.score[0]), bool(verdicts.alert[0]), KINDS[kind] if kind >= 0 else None
