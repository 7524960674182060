"""A picture of a watch: each metric with what was expected of it, its 90 % band, its anomalies and failure warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from chimera.anomaly.forecast.engine import ForecastEngine
from chimera.anomaly.forecast.warning import Limit
from chimera.core.errors import InputError, MissingExtra
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind, FailurePredicted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 12

BANDS = 300
"""Places of a panel where the band is computed; a picture has not many more columns to show it in."""

BAND_FROM = 30
"""Readings before the first of them."""

MEMORY = 600
"""Readings that a forecast is made from."""

LONG_NAME = 90

TINY = 1e-300
"""No axis is shorter."""

DATES_FROM, DATES_TO = 1e8, 250e9
"""Timestamps that are shown as dates. Others count from somewhere else than 1970."""

MARKS = {
    AnomalyKind.SPIKE: ("^", "tab:red"),
    AnomalyKind.DROP: ("v", "tab:blue"),
    AnomalyKind.TREND: ("D", "tab:orange"),
    AnomalyKind.PATTERN: ("s", "tab:purple"),
}
"""The marker and the colour of each kind."""

FAILURE = "black"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What is drawn of one metric. The arrays are (n,), timestamps rise; NaN where there is nothing to draw."""

    metric: str
    timestamps: Floats
    values: Floats
    expected: Floats
    scores: Floats
    alerts: tuple[Alert, ...] = ()


def plot_watch(traces: Sequence[Trace], path: Path, *, limits: Sequence[Limit] = ()) -> None:
    """Draw up to MAX_PANELS metrics, one panel each, into the PNG file `path`.

    Raises MissingExtra without matplotlib, InputError for too many metrics, for none at all, or for a path that cannot
    be written.
    """
    if not 0 < len(traces) <= MAX_PANELS:
        raise InputError(f"a picture shows 1 to {MAX_PANELS} metrics, not {len(traces)}: choose some with --metric")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "anomaly") from None
    columns = 1 if len(traces) <= 4 else 2
    rows = -(-len(traces) // columns)
    figure = Figure(figsize=(11.0 if columns == 1 else 16.0, 0.4 + 2.9 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3.0, 1.0] * rows)
    for number, trace in enumerate(traces):
        row, column = divmod(number, columns)
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
        _draw(upper, lower, trace, [limit for limit in limits if limit.covers(trace.metric)])
    _legend(figure)
    try:
        with path.open("wb") as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise InputError(f"the plot cannot be written to {path}: {error.strerror or error}") from error


def band(values: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Where in `values` (n,) the band is drawn, and its low and high edge there: each (k,), k <= BANDS.

    The band at a reading is the 90 % band of a forecast from the readings before it alone.
    """
    count = BANDS if len(values) > BAND_FROM else 0
    places = np.unique(np.linspace(BAND_FROM, len(values) - 1, count).astype(np.int64))
    places = places[np.isfinite(values[places])]
    forecasts = ForecastEngine()
    found = [forecasts.forecast(values[max(0, place - MEMORY) : place], 1) for place in places]
    return places, np.array([each.low[0] for each in found]), np.array([each.high[0] for each in found])


def _draw(upper: Axes, lower: Axes, trace: Trace, limits: Sequence[Limit]) -> None:
    times = _times(trace.timestamps)
    places, low, high = band(trace.values)
    upper.fill_between(times[places], low, high, color="tab:green", alpha=0.18, linewidth=0)
    upper.plot(times, trace.expected, color="tab:green", linewidth=0.8, alpha=0.8)
    upper.plot(times, trace.values, color="0.25", linewidth=0.8)
    seen = _window(trace, limits)
    for limit in limits:
        upper.axhline(limit.value, color=FAILURE, linestyle="--", linewidth=0.9)
    lower.fill_between(times, 0.0, trace.scores, color="0.55", linewidth=0)
    for alert in trace.alerts:
        if isinstance(alert, AnomalyDetected):
            _mark(upper, lower, alert)
        else:
            _warn(upper, alert)
    name = trace.metric if len(trace.metric) <= LONG_NAME else trace.metric[: LONG_NAME - 3] + "..."
    upper.set_title(name.replace("$", r"\$"), loc="left", fontsize="medium")
    if seen is not None:
        upper.set_ylim(*seen)
    upper.tick_params(labelbottom=False)
    lower.set_ylabel("score", fontsize="small")
    lower.set_ylim(bottom=0.0)
    if times is not trace.timestamps and len(times) > 1:
        _date_axis(lower)
    for axes in (upper, lower):
        axes.margins(x=0.01)
        axes.grid(alpha=0.2)


def _date_axis(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]


def _mark(upper: Axes, lower: Axes, alert: AnomalyDetected) -> None:
    """A line at the reading that it was told at, and the sign of its kind at the oddest one until then."""
    marker, colour = MARKS[alert.kind]
    began, told = _times(np.array([alert.since, alert.timestamp]))
    for axes in (upper, lower):
        axes.axvspan(began, told, color=colour, alpha=0.15, linewidth=0)
        axes.axvline(told, color=colour, linewidth=0.8, alpha=0.6)
    peaked = _times(np.array([alert.timestamp if alert.peaked is None else alert.peaked]))
    upper.plot(peaked, [alert.value], marker=marker, color=colour, markersize=7, markeredgecolor="white", clip_on=False)


def _warn(upper: Axes, alert: FailurePredicted) -> None:
    """From the reading that was warned at to where the limit is expected to be passed."""
    told, passed = _times(np.array([alert.timestamp, alert.timestamp + alert.in_s]))
    upper.plot([told, passed], [alert.value, alert.limit], color=FAILURE, linestyle=":", linewidth=1.2)
    upper.plot([told], [alert.value], marker="X", color=FAILURE, markersize=8, markeredgecolor="white", clip_on=False)


def _window(trace: Trace, limits: Sequence[Limit]) -> tuple[float, float] | None:
    """What is seen of the values' axis: all values, and those limits that were warned of or lie near.

    Neither a wide band nor a far limit makes the values a flat line.
    """
    known = trace.values[np.isfinite(trace.values)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    span = high - low or abs(high)
    span = span if span > TINY else 1.0
    warned = {alert.limit for alert in trace.alerts if isinstance(alert, FailurePredicted)}
    near = [limit.value for limit in limits if low - span <= limit.value <= high + span]
    low, high = min([low, *warned, *near]), max([high, *warned, *near])
    margin = 0.06 * (high - low or span)
    return low - margin, high + margin


def _times(timestamps: Floats) -> Any:
    """(n,) as matplotlib shows them: dates in UTC where they are some."""
    if len(timestamps) and timestamps[0] >= DATES_FROM and timestamps[-1] < DATES_TO:
        return (timestamps * 1e6).astype("datetime64[us]")
    return timestamps


def _legend(figure: Figure) -> None:
    """One for all panels: every kind, whether it is there or not, so that pictures may be compared."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(marker: str, colour: str, label: str, line: Literal["none", "-", "--", ":"] = "none") -> Line2D:
        return Line2D([], [], marker=marker, color=colour, linestyle=line, markersize=6, linewidth=1.2, label=label)

    handles = [
        mark("", "0.25", "value", "-"),
        mark("", "tab:green", "expected", "-"),
        Patch(color="tab:green", alpha=0.18, label="90 % band"),
        *(mark(marker, colour, kind.value) for kind, (marker, colour) in MARKS.items()),
        mark("X", FAILURE, "failure warning", ":"),
        mark("", FAILURE, "limit", "--"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize="small", frameon=False)
