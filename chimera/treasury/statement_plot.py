"""A picture of a statement: what was spent each day, by category, and how much of each cap was used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chimera.core.errors import InputError, MissingExtra
from chimera.treasury.statement_lines import OTHERS, CapLine, Statement, month_bounds
from chimera.treasury.types import DAY_US, NANO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CATEGORIES = 8
"""Categories with a colour of their own, the largest; the rest is one."""

MAX_CAPS = 8
"""Caps that are drawn: those that were used most."""

MAX_NAME = 28
COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#997700", "#994455")
"""Told apart by most of those who are colour-blind (Tol, "Colour schemes", 2021)."""
OTHERS_COLOUR = "#bbbbbb"
LINES = ("-", "--", "-.", ":")


def plot_statement(statement: Statement, path: Path, *, currency: str = "USD") -> None:
    """Draw what a statement says of one currency into the PNG file `path`.

    Raises MissingExtra without matplotlib, InputError for a path that cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "anomaly") from None
    figure = Figure(figsize=(11.0, 7.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # needs no display, and leaves pyplot's own state alone
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.15, 1.0])
    _draw_spending(upper, statement, currency)
    _draw_caps(lower, statement, currency)
    figure.suptitle(f"Treasury, {statement.month}, {currency}", fontsize="large")
    try:
        with path.open("wb") as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _draw_spending(axes: Axes, statement: Statement, currency: str) -> None:
    spent = {int(day.day[-2:]): day.by_category for day in statement.days if day.currency == currency}
    totals: dict[str, int] = {}
    for by_category in spent.values():
        for category, amount in by_category.items():
            totals[category] = totals.get(category, 0) + amount
    largest = sorted((name for name in totals if name != OTHERS), key=lambda name: (-totals[name], name))
    named, rest = largest[:MAX_CATEGORIES], {*largest[MAX_CATEGORIES:], *({OTHERS} & totals.keys())}
    days = range(1, _days(statement) + 1)
    layers = [(name, colour, {name}) for name, colour in zip(named, COLOURS, strict=False)]
    layers += [(OTHERS, OTHERS_COLOUR, rest)] if rest else []
    base = [0.0] * len(days)
    for name, colour, members in layers:
        heights = [sum(spent.get(day, {}).get(member, 0) for member in members) / NANO for day in days]
        label = f"{_short(name)}: {_rounded(sum(totals[member] for member in members))}"
        axes.bar(days, heights, bottom=base, width=0.82, color=colour, label=label)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    axes.set_title(f"Spent each day, by category ({currency})", loc="left", fontsize="medium")
    axes.set_ylabel(f"{currency} a day")
    if not layers:
        axes.text(0.5, 0.5, "nothing was spent", transform=axes.transAxes, ha="center", color="0.4")
    _finish(axes, bool(layers))


def _draw_caps(axes: Axes, statement: Statement, currency: str) -> None:
    caps = [line for line in statement.caps if line.cap.currency == currency and line.cap.limit]
    caps.sort(key=lambda line: -line.highest / line.cap.limit)
    for number, line in enumerate(caps[:MAX_CAPS]):
        percents = [100.0 * used / line.cap.limit for used in line.by_day]
        style = LINES[number % len(LINES)]
        days = range(1, len(percents) + 1)
        axes.plot(days, percents, style, color=COLOURS[number], marker=".", drawstyle="steps-mid", label=_name(line))
    axes.axhline(100.0, color="black", linestyle=(0, (6, 3)), linewidth=1.0, label="the limit")
    left_out = len(caps) - MAX_CAPS
    which = f", the {MAX_CAPS} most used of {len(caps)}" if left_out > 0 else ""
    axes.set_title(
        f"Highest use of each cap, day by day, and its limit in {currency}{which}", loc="left", fontsize="medium"
    )
    axes.set_ylabel("% of the limit")
    axes.set_xlabel(f"day of {statement.month} (UTC)")
    axes.set_ylim(0.0, max([105.0, *(100.0 * line.highest / line.cap.limit + 5.0 for line in caps)]))
    _finish(axes, True)
    _mark_days(axes, range(1, _days(statement) + 1))


def _finish(axes: Axes, has_legend: bool) -> None:
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    if has_legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def _mark_days(axes: Axes, days: Sequence[int]) -> None:
    axes.set_xlim(0.4, len(days) + 0.6)
    axes.set_xticks([day for day in days if day == 1 or day % 2])


def _days(statement: Statement) -> int:
    since, until = month_bounds(statement.month)
    return (until - since) // DAY_US


def _name(line: CapLine) -> str:
    whose = "all accounts" if line.cap.account == "*" else _short(line.cap.account)
    return f"{whose}, {line.cap.window.replace('_', ' ')}: {_rounded(line.cap.limit)}"


def _rounded(amount: int) -> str:
    """In whole units, with as many digits as a legend needs."""
    units = amount / NANO
    return f"{units:,.2f}" if units >= 1.0 else f"{units:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."
