"""What went wrong: the reason for a patch, in the form that whoever writes one is told it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.types import Frozen
from chimera.core.watching import Alert, AnomalyDetected

MAX_TEXT_CHARS = 100_000
MAX_READINGS = 1_000
SHOWN_READINGS = 40
"""Of a metric's history, evenly spread: enough to see its shape."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class Failure(Frozen):
    """A traceback, a failing test, an anomaly or a person's description, and the module that it is blamed on.

    `module` is the dotted name. `readings` are `(timestamp, value)` of `metric`, oldest first, when a metric told it.
    """

    kind: Literal["traceback", "test", "anomaly", "prediction", "description"]
    module: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=256)
    text: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    metric: str | None = None
    readings: tuple[tuple[Number, Number], ...] = Field(default=(), max_length=MAX_READINGS)

    def told(self) -> str:
        """The failure as text, for a model and for people."""
        parts = [f"{_HEADS[self.kind]} (module {self.module}):\n{self.text}"]
        if self.readings:
            every = -(-len(self.readings) // SHOWN_READINGS)
            first = self.readings[0][0]
            shown = ", ".join(f"{at - first:.6g} s: {value:.6g}" for at, value in self.readings[::every])
            parts.append(f"The metric {self.metric!r} since {first:.0f}, seconds and value: {shown}")
        return "\n\n".join(parts)


_HEADS = {
    "traceback": "An exception was raised",
    "test": "A test fails",
    "anomaly": "A metric behaves as it did not before",
    "prediction": "A metric is about to cross its limit",
    "description": "Somebody says what is wrong",
}


def failure_of(alert: Alert, module: str, readings: Sequence[tuple[float, float]] = ()) -> Failure:
    """The failure that an alert of the watch tells, with the last of its metric's `readings` (timestamp, value)."""
    if isinstance(alert, AnomalyDetected):
        kind: Literal["anomaly", "prediction"] = "anomaly"
        seen = ", ".join(f"{each.channel} {each.distance:.4g} {each.unit}" for each in alert.evidence) or "nothing more"
        text = (
            f"{alert.metric}: {alert.kind.value}, score {alert.score:.3g}. At its oddest it was {alert.value:.6g}, "
            f"where the past led to expect {alert.expected:.6g}. It began at {alert.since:.0f}. What was seen: {seen}."
        )
    else:
        kind = "prediction"
        text = (
            f"{alert.metric} is {alert.value:.6g} and will be {alert.side} its limit {alert.limit:.6g} in "
            f"{alert.in_s:.0f} s, by a forecast of {alert.forecast:.6g}."
        )
    return Failure(kind=kind, module=module, text=text, metric=alert.metric, readings=tuple(readings)[-MAX_READINGS:])
