"""How good a detector or a forecaster is: labelled series in, figures out. See docs/anomaly-accuracy.md."""

from __future__ import annotations

from chimera.anomaly.evaluate.forecasts import (
    Forecaster,
    ForecastScores,
    WarningScores,
    forecast_scores,
    warning_scores,
)
from chimera.anomaly.evaluate.nab import load_nab
from chimera.anomaly.evaluate.report import Report, Scores, evaluate, score
from chimera.anomaly.evaluate.series import Point, Result, Series, StreamDetector, Trace, Window, run
from chimera.anomaly.evaluate.synthetic import make_synthetic

__all__ = [
    "ForecastScores",
    "Forecaster",
    "Point",
    "Report",
    "Result",
    "Scores",
    "Series",
    "StreamDetector",
    "Trace",
    "WarningScores",
    "Window",
    "evaluate",
    "forecast_scores",
    "load_nab",
    "make_synthetic",
    "run",
    "score",
    "warning_scores",
]
