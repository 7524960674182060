"""Pictures of a training: what was made beside what is real, column by column, and epsilon over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.schema import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")

MOST_PANELS = 16
"""Columns that are drawn: of more, those that vary most."""

BINS = 24

REAL, MADE = "tab:gray", "tab:blue"

PRIVATE = "private: it shows real records"


def plot_marginals(real: Table, made: Table, path: Path) -> None:
    """Draw each column's histogram, real and made, into `path`, a PNG or SVG. It shows real data, and says so.

    Raises InputError for tables of different columns, another ending or a path that cannot be written; MissingExtra
    without matplotlib.
    """
    if real.schema.columns != made.schema.columns:
        raise InputError("the real and the made records do not have the same columns")
    if not (len(real) and len(made)):
        raise InputError("there are no records to draw")
    shown = np.sort(np.argsort(-real.encoded.std(axis=0), kind="stable")[:MOST_PANELS])
    wide = min(4, len(shown))
    high = math.ceil(len(shown) / wide)
    figure = _figure(path, width=2.4 * wide + 0.6, height=1.7 * high + 1.0)
    grid = figure.subplots(high, wide, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, place in zip(grid.flat, shown, strict=False):
        column = real.schema.columns[place]
        bins = min(column.levels + 1, BINS)
        half = column.grain / 2 if column.levels < BINS else 0.0
        for table, colour, label in ((real, REAL, "real"), (made, MADE, "made")):
            shares = np.full(len(table), 1.0 / len(table))
            axes.hist(
                table.values[:, place],
                bins=bins,
                range=(column.low - half, column.high + half),
                weights=shares,
                color=colour,
                alpha=0.55,
                label=label,
            )
        axes.set_title(column.name[:28], fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
    grid[0][0].legend(frameon=False, fontsize=7)
    rest = f"{len(shown)} of {len(real.schema)} columns, " if len(shown) < len(real.schema) else ""
    figure.suptitle(f"{rest}{len(real):,} real records, {len(made):,} made; {PRIVATE}", fontsize=9)
    _save(figure, path)


def plot_epsilon(spent: Sequence[int], epsilon: Sequence[float], path: Path, *, budget: float, delta: float) -> None:
    """Draw epsilon over the steps that were spent, with the budget, into `path`, a PNG or SVG.

    Where training is not private there is no curve: the picture says so. Raises as `plot_marginals` does.
    """
    figure = _figure(path, width=6.0, height=3.4)
    axes = figure.subplots()
    if math.isfinite(budget):
        axes.plot(spent, epsilon, color=MADE, label="spent, at most (reserved steps count)")
        axes.axhline(budget, color=REAL, linestyle="--", label=f"budget {budget:g}")
        axes.set_ylim(0, budget * 1.12)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.set_ylabel(f"epsilon, delta {delta:g}")
        axes.grid(alpha=0.3)
    else:
        axes.text(0.5, 0.5, "epsilon: infinite (not private)", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
    axes.set_xlabel("steps of the discriminator that were spent")
    _save(figure, path)


def _figure(path: Path, *, width: float, height: float) -> Figure:
    if path.suffix not in FORMATS:
        raise InputError(f"a plot is a file that ends in {' or '.join(FORMATS)}, not {path.name}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "sandbox") from None
    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    return figure


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context

    dated: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    try:
        with path.open("wb") as file, rc_context({"svg.hashsalt": "chimera"}):
            figure.savefig(file, format=path.suffix[1:], **dated)
    except OSError as error:
        raise InputError(f"the plot cannot be written to {path}: {error.strerror or error}") from error
