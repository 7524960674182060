"""`chimera anomaly evaluate`: a detector's figures over labelled series, in a table or as JSON."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from chimera.anomaly.evaluate import (
    Series,
    evaluate,
    forecast_scores,
    load_nab,
    make_synthetic,
    warning_scores,
)
from chimera.anomaly.evaluate.table import forecast_table, kind_table, report_table
from chimera.cli import render
from chimera.cli.arena import command
from chimera.core.errors import DetectorError, InputError, SourceError

SCORED = 0

DETECTOR, FORECASTER = "chimera.anomaly.evaluation:detector", "chimera.anomaly.evaluation:forecast"

WIDTH = 150
"""Columns of a table that does not go to a terminal: none is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `chimera anomaly evaluate`."""

    data: Path | None
    seeds: int
    seed0: int
    detector: str | None
    forecaster: str | None
    as_json: bool

    def series(self) -> list[Series]:
        """What is to be scored. Raises InputError."""
        found = make_synthetic(self.seeds, self.seed0) if self.seeds else []
        if self.data is not None:
            try:
                found = [*load_nab(self.data), *found]
            except SourceError as error:
                raise InputError(str(error)) from error
        if not found:
            raise InputError("there is nothing to score: give --data DIR, or --seeds")
        return found

    def forecasting(self) -> str | None:
        """The forecaster that is asked for: ours, unless somebody's detector is what is scored."""
        return self.forecaster or (FORECASTER if self.detector is None else None)


def execute(options: Options) -> int:
    """Score, print, and return the exit code."""
    return command.run(_execute(options, Console(file=sys.stdout)), as_json=options.as_json)


async def _execute(options: Options, console: Console) -> int:
    detector = find(options.detector or DETECTOR)
    forecaster = find(options.forecasting() or FORECASTER)
    series = options.series()
    if not console.is_terminal:
        console.width = WIDTH
    report = await asyncio.to_thread(evaluate, detector, series)
    document: dict[str, Any] = report.model_dump(mode="json")
    tables = [report_table(report)]
    tables += [kind_table(report.parts["synthetic"])] if "synthetic" in report.parts else []
    if options.forecasting():
        scores = await asyncio.to_thread(forecast_scores, forecaster, series)
        warned = await asyncio.to_thread(warning_scores, forecaster)
        document |= {"forecasts": scores.model_dump(mode="json"), "warnings": warned.model_dump(mode="json")}
        tables.append(forecast_table(scores, warned))
    if options.as_json:
        render.line(render.to_line(document, indent=2))
    else:
        for table in tables:
            console.print(table)
    return SCORED


def find(where: str) -> Any:
    """What stands at MODULE:NAME. Raises DetectorError where that is nothing that can be called."""
    module, _, name = where.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever a module raises when it is imported
        raise DetectorError(f"{where} cannot be used: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(found):
        raise DetectorError(f"{where} is no function: name a generator of results, MODULE:NAME")
    return found
