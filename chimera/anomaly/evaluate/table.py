"""A report as people read it in a terminal. Apart from the report itself, which is data."""

from __future__ import annotations

from rich.table import Column, Table

from chimera.anomaly.evaluate.forecasts import ForecastScores, WarningScores
from chimera.anomaly.evaluate.report import Report, Scores

COLUMNS = ("series", "found", "F1", "skill", "precision", "recall", "FA/1000", "delay", "VUS-PR", "NAB", "kind right")


def report_table(report: Report) -> Table:
    """One row a part. `found` is of how many windows, `delay` the median in points, `NAB` own and best."""
    table = Table("part", *(Column(name, justify="right") for name in COLUMNS))
    for name, scores in report.parts.items():
        table.add_row(name, *_cells(scores))
    return table


def kind_table(scores: Scores) -> Table:
    """One row a kind of anomaly: how many were found, and of those whose first alert named a kind, how many rightly."""
    table = Table("kind", *(Column(name, justify="right") for name in ("found", "recall", "kind right")))
    for kind, each in scores.by_kind.items():
        right = f"{each.right} of {each.named}"
        table.add_row(kind.value, f"{each.found} of {each.windows}", f"{each.recall:.2f}", right)
    return table


def forecast_table(scores: ForecastScores, warned: WarningScores) -> Table:
    """Errors and warnings, a row each."""
    table = Table("forecasts", Column("", justify="right"))
    table.add_row("error / that of the last value", f"{scores.relative_mae:.2f} ({scores.forecasts} forecasts)")
    table.add_row("values within the 90 % band", _number(scores.coverage))
    table.add_row("CPU a forecast, p50 / p99", f"{scores.cpu_p50_ms:.2f} / {scores.cpu_p99_ms:.2f} ms")
    table.add_row("failures warned of 5-15 min ahead", f"{warned.in_time} of {warned.failures}")
    table.add_row("missed", str(warned.missed))
    table.add_row("false warnings", f"{warned.false_warnings} of {warned.near_misses} near misses")
    return table


def _cells(scores: Scores) -> list[str]:
    return [
        str(scores.series),
        f"{scores.found} of {scores.windows}",
        _number(scores.f1),
        _number(scores.skill),
        _number(scores.precision),
        _number(scores.recall),
        _number(scores.false_alarms_per_1000),
        _number(scores.delay_median, 0),
        _number(scores.vus_pr),
        f"{scores.nab.own:.1f} / {scores.nab.best:.1f}" if scores.nab else "",
        _number(scores.kind_accuracy),
    ]


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
