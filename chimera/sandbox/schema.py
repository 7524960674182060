"""What a table's columns may hold, declared beforehand: ranges and lattice are public, never read off the data.

A range that is taken from the data is a release of its minimum and maximum, which no noise protects. So a schema says
them: from what is measured, from a published description, from a contract.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, model_validator

from chimera.core.errors import InputError
from chimera.core.types import Frozen

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

MAX_COLUMNS = 1_024

MAX_CLASSES = 256

MAX_LEVELS = 65_535
"""Steps from the lowest to the highest value of a column. One without a lattice of its own is put on so many."""


MIN_GRAIN = 1e-300


class Column(Frozen):
    """A number between `low` and `high`, both included; with a `step` it is `low` plus a multiple of that."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    low: FiniteFloat
    high: FiniteFloat
    step: Annotated[FiniteFloat, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Column:
        if not self.low < self.high:
            raise ValueError(f"column {self.name!r}: low {self.low} must be below high {self.high}")
        if not (math.isfinite(self.high - self.low) and (self.high - self.low) / MAX_LEVELS > MIN_GRAIN):
            raise ValueError(f"column {self.name!r}: {self.low} to {self.high} is no range to count in")
        steps = (self.high - self.low) / self.step if self.step else 1.0
        if self.step and (abs(steps - round(steps)) > 1e-6 or not 1 <= round(steps) <= MAX_LEVELS):
            raise ValueError(
                f"column {self.name!r}: {self.low} to {self.high} must be 1 to {MAX_LEVELS} whole steps of {self.step}"
            )
        return self

    @property
    def levels(self) -> int:
        """The highest index of the lattice; the lowest is 0."""
        return round((self.high - self.low) / self.step) if self.step else MAX_LEVELS

    @property
    def grain(self) -> float:
        """What one index is, in the column's own unit."""
        return (self.high - self.low) / self.levels


class Schema(Frozen):
    """Columns in order, and the classes that a record may belong to: none where records have no label."""

    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=MAX_COLUMNS)]
    classes: Annotated[tuple[str, ...], Field(max_length=MAX_CLASSES)] = ()

    @model_validator(mode="after")
    def _different(self) -> Schema:
        for what, names in (("columns", [column.name for column in self.columns]), ("classes", list(self.classes))):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        return self

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        """By what it says: arrays that were worked out of it cannot be compared at once."""
        if not isinstance(other, Schema):
            return NotImplemented
        return type(self) is type(other) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.columns, self.classes))

    @cached_property
    def low(self) -> Floats:
        return np.array([column.low for column in self.columns])

    @cached_property
    def span(self) -> Floats:
        """(columns,) high - low."""
        return np.array([column.high - column.low for column in self.columns])

    @cached_property
    def levels(self) -> Integers:
        """(columns,) the highest index of each."""
        return np.array([column.levels for column in self.columns])

    @cached_property
    def grain(self) -> Floats:
        """(columns,) what one index is."""
        return np.array([column.grain for column in self.columns])

    def encode(self, values: Floats) -> Floats:
        """(n, columns) in the columns' units -> the same in [-1, 1]; what is outside the range is put at its end."""
        return np.clip((values - self.low) / self.span * 2.0 - 1.0, -1.0, 1.0)

    def decode(self, encoded: Floats) -> Floats:
        """The other way, onto the lattice and into the range."""
        return self.values(self.index(self.low + (np.clip(encoded, -1.0, 1.0) + 1.0) / 2.0 * self.span))

    def index(self, values: Floats) -> Integers:
        """(n, columns) the nearest places on the lattice, 0 to `levels`. Raises InputError for a cell that is none."""
        if not np.isfinite(values).all():
            raise InputError("a cell is not a finite number: leave such records out, or fill them in before")
        return np.clip(np.rint((values - self.low) / self.grain), 0, self.levels).astype(np.int64)

    def values(self, index: Integers) -> Floats:
        """(n, columns) the values at these places of the lattice."""
        return self.low + index * self.grain

    def snap(self, values: Floats) -> Floats:
        """The nearest values that the columns may hold."""
        return self.values(self.index(values))


class Table:
    """Records of a schema: `values` (n, columns) and, where it has classes, `labels` (n,), each an index into them.

    Raises InputError where they do not fit the schema.
    """

    def __init__(self, schema: Schema, values: Any, labels: Any = None) -> None:
        self.schema = schema
        self.values: Floats = np.array(values, np.float64)
        self.labels: Integers | None = None if labels is None else np.array(labels, np.int64)
        if self.values.ndim != 2 or self.values.shape[1] != len(schema):
            raise InputError(f"values of shape {self.values.shape} are not records of {len(schema)} columns")
        if not np.isfinite(self.values).all():
            raise InputError("a cell is not a finite number: leave such records out, or fill them in before")
        if (self.labels is None) != (not schema.classes):
            raise InputError("labels are needed where the schema has classes, and only there")
        if self.labels is not None:
            if self.labels.shape != (len(self),):
                raise InputError(f"labels of shape {self.labels.shape} are not one for each of {len(self)} records")
            if len(self) and (self.labels.min() < 0 or self.labels.max() >= len(schema.classes)):
                raise InputError(f"a label is not an index into {len(schema.classes)} classes")

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: npt.NDArray[Any]) -> Table:
        """Those records: indices, or a mask."""
        return Table(self.schema, self.values[rows], None if self.labels is None else self.labels[rows])

    @property
    def encoded(self) -> Floats:
        """(n, columns) in [-1, 1]."""
        return self.schema.encode(self.values)
