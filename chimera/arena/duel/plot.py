"""A picture of a duel: the running interval, the ratio to beat, and where the rule would have stopped it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from chimera.arena.duel.rules import StoppingRule
from chimera.arena.duel.types import Outcome
from chimera.core.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 1_000
"""Intervals drawn: more than a picture has columns for would only cost time."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """What is drawn, by the number of samples, ties among them; NaN where there is nothing to draw.

    `samples`, `rate`, `low` and `high` are of one shape: the points of the running interval. `contender` and
    `champion`, of shape (budget + 1,), are the win rates that stop the duel after each sample; past the last sample,
    those that would if there were no more ties.
    """

    samples: npt.NDArray[np.int64]
    rate: Floats
    low: Floats
    high: Floats
    contender: Floats
    champion: Floats


def curves(history: Sequence[Outcome], rule: StoppingRule) -> Curves:
    """The curves of a duel. Raises InputError for more outcomes than its budget."""
    if len(history) > rule.budget:
        raise InputError(f"a duel of {rule.budget} samples has no {len(history)} outcomes: give the rule it went by")
    ahead = rule.budget - len(history)
    wins = np.cumsum([0, *(outcome == "win" for outcome in history)])
    decisive = np.cumsum([0, *(outcome != "tie" for outcome in history), *[True] * ahead])
    step = -(-len(history) // MAX_POINTS) or 1
    samples = np.unique([*range(0, len(history) + 1, step), len(history)])
    ends = np.array([rule.interval(int(wins[at]), int(decisive[at])) for at in samples])
    boundary = rule.boundary()
    most, fewest = boundary.champion[decisive], boundary.contender[decisive]
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curves(
            samples=samples,
            rate=wins[samples] / decisive[samples],
            low=ends[:, 0],
            high=ends[:, 1],
            contender=np.where(fewest <= decisive, fewest / decisive, np.nan),
            champion=np.where(most >= 0, most / decisive, np.nan),
        )


def plot_duel(history: Sequence[Outcome], rule: StoppingRule, path: Path) -> None:
    """Draw a duel's outcomes, in order, into the PNG file `path`.

    Raises MissingExtra without matplotlib, InputError for more outcomes than the rule's budget or a path that cannot
    be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "arena") from None
    figure = Figure(figsize=(9.0, 5.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    _draw(figure.add_subplot(), curves(history, rule), rule, ties=sum(outcome == "tie" for outcome in history))
    try:
        with path.open("wb") as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise InputError(f"the plot cannot be written to {path}: {error.strerror or error}") from error


def _draw(axes: Axes, drawn: Curves, rule: StoppingRule, *, ties: int) -> None:
    every = np.arange(rule.budget + 1)
    axes.fill_between(drawn.samples, drawn.low, drawn.high, color="tab:blue", alpha=0.2, label="interval")
    axes.plot(drawn.samples, drawn.rate, color="tab:blue", marker=".", markersize=3, label="win rate")
    axes.plot(every, drawn.contender, color="tab:green", drawstyle="steps-post", label="contender wins")
    axes.plot(every, drawn.champion, color="tab:red", drawstyle="steps-post", label="champion holds")
    axes.axhline(rule.p0, color="black", linestyle="--", linewidth=1, label=f"ratio to beat, {rule.p0:.4g}")
    z = "" if rule.z is None else f", z = {rule.z:.4f}"
    axes.set(
        title=f"{rule.name}{z}: {drawn.samples[-1]} of {rule.budget} samples, {ties} ties",
        xlabel="samples",
        ylabel="contender's win rate, ties left out",
        xlim=(0, rule.budget),
        ylim=(0, 1),
    )
    axes.legend(loc="best", fontsize="small")
