"""A picture of a hardening: detection before and after by strength, a panel for each kind of threat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.hardening.report import HardenReport, Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")

BEFORE, AFTER = "tab:gray", "tab:blue"


def plot_hardening(report: HardenReport, path: Path) -> None:
    """Draw into the file `path`, a PNG or an SVG by its ending.

    Raises MissingExtra without matplotlib, InputError for another ending or a path that cannot be written.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"a plot is a file that ends in {' or '.join(FORMATS)}, not {path.name}")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "sandbox") from None
    panels: dict[str, list[Measured]] = {}
    for row in report.measured:
        panels.setdefault(row.title, []).append(row)
    figure = Figure(figsize=(3.4 * max(len(panels), 1), 3.3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    grid = figure.subplots(1, max(len(panels), 1), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(grid, panels.items(), strict=False):
        _draw(axes, title, rows)
    if panels:
        grid[0].set_ylabel("found, % of batches")
        grid[0].legend(frameon=False, loc="upper left")
    clean = report.clean
    figure.suptitle(
        f"{report.detector}, batches of {report.rows}: false alarms of 1,000 clean batches "
        f"{clean.before * 1000:.2f} before, {clean.after * 1000:.2f} after",
        fontsize=10,
    )
    try:
        with path.open("wb") as file, rc_context({"svg.hashsalt": "chimera"}):  # the same report, the same bytes
            figure.savefig(file, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise InputError(f"the plot cannot be written to {path}: {error.strerror or error}") from error


def _draw(axes: Axes, title: str, rows: Sequence[Measured]) -> None:
    strengths = [row.strength for row in rows]
    for label, colour, shares, intervals in (
        ("before", BEFORE, [row.before for row in rows], [row.before_interval for row in rows]),
        ("after", AFTER, [row.after for row in rows], [row.after_interval for row in rows]),
    ):
        axes.plot(strengths, [100 * share for share in shares], color=colour, marker="o", markersize=4, label=label)
        low, high = ([100 * interval[side] for interval in intervals] for side in (0, 1))
        axes.fill_between(strengths, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("share" if rows[0].kind == "poisoned" else "bias, standard deviations")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.3)
