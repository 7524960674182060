"""Chimera's detector and forecaster beside others, over the same labelled series.

    python -m bench.anomaly [--data DIR] [--seeds 3] [--seed0 100] [--only chimera,robust] [--quick] [--json]

`--data` is a folder in the layout of the Numenta Anomaly Benchmark. Every detector alerts at one threshold, which is
told below the table. A rival whose library is not installed has a row that says so. `--quick` takes a few series, to
see that everything runs: its figures mean nothing. `isolation forest 100` takes an hour: it runs if `--only` names it.

The columns: F1 and skill of events (`chimera.anomaly.evaluate`), false alarms per 1,000 points (FA), NAB's score of
the detector's own alerts and at the one threshold that the labels like best, VUS-PR; for synthetic series precision,
recall, and FA of those without anomalies; CPU time a point.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.anomaly import detectors, forecasters
from chimera.anomaly.evaluate import (
    ForecastScores,
    Report,
    Series,
    WarningScores,
    evaluate,
    forecast_scores,
    load_nab,
    make_synthetic,
    warning_scores,
)
from chimera.core.errors import ChimeraError
from chimera.core.types import Frozen

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "nab"

QUICK_POINTS = 2_000

QUICK_SERIES = ("flat/spike", "flat/clean")

CASES, QUICK_CASES = 60, 1
"""Series that rise to a limit, or do not, which warnings are asked for."""


@dataclass(frozen=True)
class Detection:
    """A detector's report, or why there is none."""

    name: str
    settings: str
    report: Report | None
    missing: str = ""


@dataclass(frozen=True)
class Forecasting:
    """A forecaster's scores, or why there are none. Slow ones are asked for no warnings."""

    name: str
    scores: ForecastScores | None
    warnings: WarningScores | None
    missing: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder in NAB's layout")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of synthetic series, 30 series each")
    parser.add_argument("--seed0", type=int, default=100, help="the first of them")
    parser.add_argument("--only", default="", help="parts of names, with commas between")
    parser.add_argument("--no-forecasts", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    options = parser.parse_args()
    try:
        nab, synthetic = load_nab(options.data), make_synthetic(options.seeds, options.seed0)
    except ChimeraError as error:
        parser.error(str(error))
    if options.quick:
        nab = [each for each in nab if len(each.values) < QUICK_POINTS][:1]
        synthetic = [each for each in synthetic if each.name.startswith(QUICK_SERIES)][:2]
    wanted = [part for part in options.only.lower().split(",") if part]

    def chosen(name: str, by_default: bool) -> bool:
        return any(part in name.lower() for part in wanted) if wanted else by_default

    found = [detect(each, [*nab, *synthetic]) for each in detectors.RIVALS if chosen(each.name, not each.slow)]
    told = []
    if not options.no_forecasts:
        cases = QUICK_CASES if options.quick else CASES
        told = [
            predict(each, nab, cases)
            for each in forecasters.RIVALS
            if chosen(each.name, not (each.slow and options.quick))
        ]
    if options.json:
        both: dict[str, Sequence[Detection | Forecasting]] = {"detectors": found, "forecasters": told}
        print(json.dumps({name: [_plain(row) for row in rows] for name, rows in both.items()}))
        return
    print(detection_table(found))
    if told:
        print("\n" + forecast_table(told))


def detect(rival: detectors.Rival, series: Sequence[Series]) -> Detection:
    print(f"{rival.name} ...", file=sys.stderr, flush=True)
    try:
        return Detection(rival.name, rival.settings, evaluate(rival.make(), series))
    except ModuleNotFoundError as error:
        return Detection(rival.name, rival.settings, None, _missing(error))


def predict(rival: forecasters.Rival, series: Sequence[Series], cases: int) -> Forecasting:
    print(f"{rival.name} ...", file=sys.stderr, flush=True)
    try:
        forecaster = rival.make()
    except ModuleNotFoundError as error:
        return Forecasting(rival.name, None, None, _missing(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = forecast_scores(forecaster, series)
        return Forecasting(rival.name, scores, None if rival.slow else warning_scores(forecaster, cases))


def _missing(error: ModuleNotFoundError) -> str:
    if str(error.name).startswith("chimera"):
        raise error
    return f"{error.name} is not installed"


def detection_table(rows: Sequence[Detection]) -> str:
    lines = [
        f"{'':21}{'NAB':^40} {'synthetic':^26} {'us a point':^12}",
        f"{'detector':21}   F1  skill      FA    own   best  VUS-PR     P     R    FA  VUS-PR   p50    p99",
    ]
    for row in rows:
        if row.report is None:
            lines.append(f"{row.name:21}{row.missing}")
            continue
        nab, made, clean = (row.report.parts[part] for part in ("nab", "synthetic", "synthetic/clean"))
        own, best = (nab.nab.own, nab.nab.best) if nab.nab else (0.0, 0.0)
        lines.append(
            f"{row.name:21}{nab.f1:5.2f} {nab.skill:6.2f} {nab.false_alarms_per_1000:7.2f} {own:6.1f} {best:6.1f}"
            f" {nab.vus_pr or 0:7.2f} {made.precision:5.2f} {made.recall:5.2f} {clean.false_alarms_per_1000:5.2f}"
            f" {made.vus_pr or 0:7.2f} {made.cpu_p50_us:5.0f} {made.cpu_p99_us:6.0f}"
        )
    return "\n".join([*lines, "", *(f"{row.name}: {row.settings}" for row in rows)])


def forecast_table(rows: Sequence[Forecasting]) -> str:
    lines = [
        f"{'':36}{'errors':^25}{'ms a forecast':^16} {'warnings':^25}",
        f"{'forecaster':36}  / naive   MASE  coverage     p50     p99  in time  missed    false",
    ]
    for row in rows:
        if row.scores is None:
            lines.append(f"{row.name:36}{row.missing}")
            continue
        scores = row.scores
        line = f"{row.name:36}{scores.relative_mae:9.2f} {scores.mase_mean:6.2f} {scores.coverage or 0:9.2f}"
        line += f" {scores.cpu_p50_ms:7.2f} {scores.cpu_p99_ms:7.2f}"
        if warned := row.warnings:
            line += f" {f'{warned.in_time}/{warned.failures}':>8} {warned.missed:7}"
            line += f" {f'{warned.false_warnings}/{warned.near_misses}':>8}"
        lines.append(line)
    return "\n".join(lines)


def _plain(row: Detection | Forecasting) -> dict[str, Any]:
    parts = vars(row).items()
    return {name: value.model_dump(mode="json") if isinstance(value, Frozen) else value for name, value in parts}


if __name__ == "__main__":
    main()
