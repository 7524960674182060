"""A picture of how right the confidence is: the share that people agree to, against what was promised."""

from __future__ import annotations

from pathlib import Path

from chimera.core.errors import InputError, MissingExtra
from chimera.review.calibrate import Calibration

COLOUR, QUIET = "#4477aa", "#bbbbbb"


def plot_reliability(calibration: Calibration, path: Path) -> None:
    """Draw the reliability table into the PNG file `path` (DeGroot and Fienberg, The Statistician 32, 1983).

    Raises MissingExtra without matplotlib, InputError for a path that cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "content") from None
    figure = Figure(figsize=(7.0, 7.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 1.0])
    upper.plot([0, 1], [0, 1], linestyle="--", color=QUIET, label="as promised")
    seen = [(b.confidence, b.approved, b.interval) for b in calibration.bins]
    known = [(c, a, i) for c, a, i in seen if c is not None and a is not None and i is not None]
    if known:
        xs, ys = [c for c, _, _ in known], [a for _, a, _ in known]
        errors = [[max(0.0, a - low) for _, a, (low, _) in known], [max(0.0, high - a) for _, a, (_, high) in known]]
        upper.errorbar(xs, ys, yerr=errors, fmt="o-", color=COLOUR, capsize=3, label="people agreed, with 95 %")
    for proposed, name in ((calibration.automatic, "automatic above"), (calibration.person, "a person below")):
        if proposed.threshold is not None:
            upper.axvline(proposed.threshold, color=COLOUR, alpha=0.4, label=f"{name} {proposed.threshold:g}")
    upper.set(ylabel="share that people agreed to", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(loc="upper left")
    lows = [b.low for b in calibration.bins]
    lower.bar(lows, [b.count for b in calibration.bins], 0.09, align="edge", color=QUIET)
    lower.bar(lows, [b.labelled for b in calibration.bins], 0.09, align="edge", color=COLOUR)
    lower.set(xlabel="confidence", ylabel="proposals (blue: looked at)")
    try:
        with path.open("wb") as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
