"""A picture of trends: how often each was mentioned in each of the last batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chimera.content.trends.trend import Trend
from chimera.core.errors import InputError, MissingExtra

MAX_PANELS: Final = 12


def plot_trends(trends: Sequence[Trend], path: Path, *, batch_s: float) -> None:
    """Draw up to MAX_PANELS trends, one row each, into the PNG file `path`; the last bar is the batch still open.

    Raises MissingExtra without matplotlib, InputError for too many trends, for none, or for a path that cannot be
    written.
    """
    if not 0 < len(trends) <= MAX_PANELS:
        raise InputError(f"a picture shows 1 to {MAX_PANELS} trends, not {len(trends)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "content") from None
    figure = Figure(figsize=(9.0, 0.6 + 1.3 * len(trends)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    rows = figure.subplots(len(trends), 1, sharex=True, squeeze=False)[:, 0]
    for axes, trend in zip(rows, trends, strict=True):
        hours = [(place - len(trend.counts)) * batch_s / 3_600.0 for place in range(len(trend.counts))]
        axes.bar(hours, trend.counts, width=0.9 * batch_s / 3_600.0, align="edge", color="tab:blue")
        title = f"{', '.join(trend.terms)}: {trend.documents} by {trend.voices} voices, novelty {trend.novelty:.2f}"
        axes.set_title(title.replace("$", r"\$"), loc="left", fontsize="medium")
        axes.yaxis.get_major_locator().set_params(integer=True)
    rows[-1].set_xlabel("hours")
    try:
        with path.open("wb") as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise InputError(f"the plot cannot be written to {path}: {error.strerror or error}") from error
