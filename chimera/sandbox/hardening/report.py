"""What hardening changed: detection and false alarms before and after, with how sure that is."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from chimera.core.stats import wilson_interval
from chimera.core.types import Frozen
from chimera.sandbox.threats.kinds import ThreatKind

Z = 1.959964
"""Of 95 %."""

Interval = tuple[float, float]


class Paired(Frozen):
    """The same batches, judged before and after."""

    batches: PositiveInt
    both: NonNegativeInt
    """Found before and after."""
    only_before: NonNegativeInt
    only_after: NonNegativeInt

    @model_validator(mode="after")
    def _within(self) -> Paired:
        if self.both + self.only_before + self.only_after > self.batches:
            raise ValueError(f"more than {self.batches} batches were found")
        return self

    @property
    def before(self) -> float:
        """The share found before."""
        return (self.both + self.only_before) / self.batches

    @property
    def after(self) -> float:
        return (self.both + self.only_after) / self.batches

    @property
    def before_interval(self) -> Interval:
        """95 %, Wilson's."""
        return wilson_interval(self.both + self.only_before, self.batches)

    @property
    def after_interval(self) -> Interval:
        return wilson_interval(self.both + self.only_after, self.batches)

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def gain_interval(self) -> Interval:
        """95 %, of the difference of paired shares: half a batch is added to each of the four counts.

        Source: A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions",
        Statistics in Medicine 24 (2005).
        """
        n, up, down = self.batches + 2.0, self.only_after + 0.5, self.only_before + 0.5
        half = Z / n * math.sqrt(up + down - (up - down) ** 2 / n)
        middle = (up - down) / n
        return max(-1.0, middle - half), min(1.0, middle + half)


class Measured(Paired):
    """Threats of one kind and strength. `against` says which detector evasive ones were made to get past."""

    kind: ThreatKind
    strength: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    against: Literal["", "detector", "hardened"] = ""

    @property
    def title(self) -> str:
        return f"{self.kind}, against the {self.against} one" if self.against == "hardened" else str(self.kind)


class FalseAlarms(Paired):
    """Clean batches, drawn again and again from the records set aside: how a rate of other records would differ from
    that of these is not in the intervals."""


class HardenReport(Frozen):
    """Measured on records, and threats made of them, that neither learning nor thresholds had seen."""

    detector: str
    rows: PositiveInt
    """Records of a batch."""
    alarms_per_1000: Annotated[float, Field(gt=0.0, lt=1000.0)]
    """The budget of false alarms that both thresholds were set for."""
    records: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Clean records to fit, to calibrate and to measure on."""
    seed: int
    measured: tuple[Measured, ...]
    controls: tuple[Measured, ...]
    """Threats of strength 0: what is found here is the making of threats, not what is wrong with them."""
    clean: FalseAlarms

    def as_table(self) -> str:
        """For a terminal: detection in percent, false alarms of 1,000, each with its 95 % interval."""
        lines = [
            f"{self.detector}, batches of {self.rows}; records to fit, calibrate, measure on: "
            + ", ".join(f"{count:,}" for count in self.records),
            f"{'threats':<36}{'sigma/share':>12}{'before':>20}{'after':>20}{'gain':>24}",
        ]
        rows = [*self.measured, *self.controls]
        lines += [f"{row.title:<36}{row.strength:>12.2f}{_cells(row, 100.0, 1)}" for row in rows]
        lines.append(f"{'false alarms of 1,000 clean batches':<48}{_cells(self.clean, 1000.0, 2)}")
        lines.append(f"{self.clean.batches:,} clean batches; detection in percent; in brackets 95 % intervals")
        return "\n".join(lines)


def _cells(row: Paired, unit: float, digits: int) -> str:
    return (
        f"{_share(row.before, row.before_interval, unit, digits):>20}"
        f"{_share(row.after, row.after_interval, unit, digits):>20}"
        f"{_share(row.gain, row.gain_interval, unit, digits, '+'):>24}"
    )


def _share(value: float, interval: Interval, unit: float, digits: int, sign: str = "") -> str:
    low, high = (f"{bound * unit:{sign}.{digits}f}" for bound in interval)
    return f"{value * unit:{sign}.{digits}f} [{low}, {high}]"
