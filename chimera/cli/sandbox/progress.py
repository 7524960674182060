"""How far a training is: a bar in a terminal, a line now and then anywhere else, both on standard error."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from chimera.actors.trainer import Progress
from chimera.cli import render

LINES = 10
"""Of a training that runs from its first step to its last."""


@contextmanager
def shown(steps: int, budget: float) -> Iterator[Callable[[Progress], None]]:
    """Within the block, what it gives shows progress towards so many steps."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
        )
        with Bars(*columns, console=Console(stderr=True, highlight=False), transient=True) as bars:
            row = bars.add_task("training", total=steps, said="")
            yield lambda progress: bars.update(row, completed=progress.spent, said=line(progress, budget))
        return
    last = -1

    def told(progress: Progress) -> None:
        nonlocal last
        tenth = progress.spent * LINES // steps
        if tenth > last:
            last = tenth
            render.note(f"step {progress.spent} of {steps}: {line(progress, budget)}")

    yield told


def line(progress: Progress, budget: float) -> str:
    """Losses, epsilon and time left, for people."""
    losses = ", ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
    spent = f"epsilon {progress.epsilon:.3f} of {budget:g}" if math.isfinite(budget) else "epsilon: infinite"
    left = f"{_time(progress.left_s)} left" if progress.left and progress.left_s is not None else ""
    return ", ".join(part for part in (f"loss {losses}" if losses else "", spent, left) if part)


def _time(seconds: float) -> str:
    if seconds >= 3_600:
        return f"{seconds / 3_600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
