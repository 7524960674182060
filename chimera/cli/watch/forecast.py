"""`chimera anomaly forecast`: the next readings of a metric of a file, each with its band, in a table or as JSON."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.arima import Order
from chimera.anomaly.forecast.engine import MAX_HISTORY, Forecast
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.csv_file import CsvSource
from chimera.anomaly.views import MetricView
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.watch import tell
from chimera.cli.watch.board import counts
from chimera.core.errors import InputError, SourceError
from chimera.core.watching import Reading

FORECAST = 0

SHORTEST = 12
"""With fewer readings nothing is forecast but the last value."""

MAX_NAMES = 10_000
"""Names of other metrics that are remembered, to suggest one."""

SUGGESTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `chimera anomaly forecast`."""

    source: str
    metric: str
    horizon: int
    method: Literal["ridge", "arima"]
    as_json: bool


def execute(options: Options) -> int:
    """Forecast, print, and return the exit code."""
    return command.run(_execute(options), as_json=options.as_json)


async def _execute(options: Options) -> int:
    engine = AnomalyDetectionEngine(options=WatchOptions(pattern=False))
    try:
        await engine.push(await _readings(options))
        document = await _forecast(engine, options)
    finally:
        await engine.aclose()
    if options.as_json:
        render.line(render.to_line(document, indent=2))
    else:
        _show(document)
    return FORECAST


async def _forecast(engine: AnomalyDetectionEngine, options: Options) -> dict[str, Any]:
    """The document of the forecast. Raises InputError where there is too little to make one of."""
    metric, horizon = options.metric, options.horizon
    if refused := Counter(engine.refused):
        render.note(f"refused: {counts(refused)}")
    known = len(engine.history(metric)[1]) if engine.status().metrics else 0
    if known < SHORTEST:
        raise InputError(f"a forecast needs {SHORTEST} readings, and {metric!r} has {known} that can be used")
    if options.method == "ridge":
        return _document(engine.view(metric), known, None, engine.forecast(metric, horizon))
    with render.waiting("seeking an order", shown=not options.as_json):
        arima = await engine.forecast_arima(metric, horizon)
    if arima.order is None:
        render.note("no ARIMA can be fitted to this: the forecast is the fast one")
    return _document(engine.view(metric), known, arima.order, arima.forecast)


async def _readings(options: Options) -> list[Reading]:
    """The last readings of the metric, missing ones left out. Raises InputError, with names that come close."""
    source = CsvSource(options.source)
    kept: deque[Reading] = deque(maxlen=2 * MAX_HISTORY)  # some are refused by the engine
    others: dict[str, None] = {}
    try:
        async with source:
            async for batch in source.batches():
                for reading in batch:
                    if reading.metric == options.metric:
                        if not math.isnan(reading.value):
                            kept.append(reading)
                    elif len(others) < MAX_NAMES:
                        others[reading.metric] = None
    except SourceError as error:
        raise InputError(str(error)) from error
    if source.refused:
        render.note(f"refused: {counts(Counter(source.refused))}")
    if kept:
        return list(kept)
    where = f"{options.source} has no reading of {options.metric!r}"
    if close := get_close_matches(options.metric, others, n=3):
        raise InputError(f"{where}: is it {' or '.join(map(repr, close))}?")
    shown = ", ".join(repr(name) for name in list(others)[:SUGGESTED])
    more = f" and {tell.many(len(others) - SUGGESTED, 'other')}" if len(others) > SUGGESTED else ""
    raise InputError(f"{where}: {f'it has {shown}{more}' if others else 'it has none at all'}")


def _document(view: MetricView, known: int, order: Order | None, found: Forecast) -> dict[str, Any]:
    """The forecast with its times. `method` is what it was made by, in the end."""
    after, interval_s = view.timestamp or 0.0, view.interval_s or 0.0
    steps = zip(*(part.tolist() for part in found), strict=True)
    return {
        "metric": view.metric,
        "method": "arima" if order else "ridge",
        "order": order,
        "readings": known,
        "timestamp": after,
        "value": view.value,
        "interval_s": interval_s,
        "level": 0.9,
        "forecast": [
            {"timestamp": after + step * interval_s, "forecast": mean, "low": low, "high": high}
            for step, (mean, low, high) in enumerate(steps, 1)
        ],
    }


def _show(document: dict[str, Any]) -> None:
    by = f"ARIMA{document['order']}" if document["order"] else "ridge autoregression"
    last = f"after {tell.number(document['value'])} at {tell.moment(document['timestamp'])}"
    render.say(
        (command.one_line(document["metric"]), "bold"), f" {last}, by {by} from {document['readings']:,} readings"
    )
    rows = [
        (tell.moment(each["timestamp"]), *(tell.number(each[name]) for name in ("forecast", "low", "high")))
        for each in document["forecast"]
    ]
    command.table(("TIME", "FORECAST", "LOW", "HIGH"), rows)
