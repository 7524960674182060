"""The two circuits: what the columns of a committed batch sum to, and how many of its records were changed.

A batch is records of lattice places, (rows, columns) of integers from 0 to the column's `levels`. A circuit has room
for a fixed number of records; of a smaller chunk the rest is zeros, and `count` says how many are records.

For each cell: its bits are bits, and where `levels` + 1 is no power of two, `levels` minus the cell fits into as many
bits. So a cell out of its column's range has no proof. The cell itself is a combination of its bits.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from chimera.core.errors import InputError
from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen
from chimera.sandbox.proofs.poseidon import FIELD, FIELD_BITS, NUMBERS, Algebra, Wire, sponge
from chimera.sandbox.proofs.r1cs import Builder, Constraints, Counter, Evaluator, Tracer
from chimera.sandbox.schema import MAX_COLUMNS, MAX_LEVELS, Integers, Schema

Kind: TypeAlias = Literal["mean", "changed"]

MAX_CONSTRAINTS = 32_768
"""Of a circuit: a power of two, to which set-up and prover round up."""

MAX_CELLS = 1_024
"""Of a chunk."""

COMMITMENT_TAG = "chimera/sandbox/commitment/v1"


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commitment is opened by: the places (n, columns), and the salt that hides them."""

    cells: Integers
    salt: int


@dataclass(frozen=True, slots=True)
class Statement:
    """The public inputs of a proof, in the circuit's order: `commitments`, `context`, `count`, `sums`.

    `context` is 32 bytes that the proof is bound to. `sums` are the columns' sums, or the number of changed records.
    """

    commitments: tuple[int, ...]
    context: bytes
    count: int
    sums: tuple[int, ...]

    def inputs(self) -> tuple[int, ...]:
        high, low = int.from_bytes(self.context[:16]), int.from_bytes(self.context[16:])
        return (*self.commitments, high, low, self.count, *self.sums)


class Circuit(Frozen):
    """A circuit for at most `rows` records, whose columns have these `levels`. Keys are made for one."""

    kind: Kind
    rows: Annotated[int, Field(ge=1, le=MAX_CELLS)]
    levels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_LEVELS)], ...], Field(min_length=1, max_length=MAX_COLUMNS)
    ]

    @property
    def batches(self) -> int:
        """How many committed batches a proof is about: with `changed`, the original and the changed one."""
        return 2 if self.kind == "changed" else 1

    @property
    def public(self) -> int:
        """Public inputs, without the one."""
        return self.batches + 3 + (1 if self.kind == "changed" else len(self.levels))

    def constraints(self) -> Constraints:
        """Its rows. Kept for the circuits that were asked for last. Raises InputError for one that is too large."""
        return _traced(self)

    def commit(self, batch: Committed) -> int:
        """The salted Poseidon hash of a batch of at most `rows` records. Raises InputError where it does not fit."""
        cells = _filled(self, batch.cells)
        records: list[list[int]] = cells.tolist()
        return commitment_of(NUMBERS, self, len(batch.cells), batch.salt, records)

    def sums(self, batches: Sequence[Committed]) -> tuple[int, ...]:
        """The columns' sums of a batch; of an original and a changed one, the number of records that differ."""
        if self.kind == "mean":
            return tuple(int(total) for total in batches[0].cells.sum(axis=0))
        return (int((batches[0].cells != batches[1].cells).any(axis=1).sum()),)

    def statement(self, batches: Sequence[Committed], context: bytes) -> Statement:
        """What is true of these batches, bound to `context`. Raises InputError where they do not fit the circuit."""
        if len(batches) != self.batches or len({len(batch.cells) for batch in batches}) != 1:
            raise InputError(f"a proof of {self.kind!r} takes {self.batches} batches of as many records")
        commitments = tuple(self.commit(batch) for batch in batches)
        return Statement(commitments, context, len(batches[0].cells), self.sums(batches))

    def assignment(self, statement: Statement, batches: Sequence[Committed]) -> list[int]:
        """The values of all variables: one, the public inputs, and the private ones."""
        builder = Evaluator()
        build(builder, self, statement, [(batch.salt, _filled(self, batch.cells)) for batch in batches])
        return builder.assignment


def fresh_salt() -> int:
    return secrets.randbelow(FIELD)


def rows_per_chunk(kind: Kind, schema: Schema) -> int:
    """The most records that a circuit of this kind has room for: about a thousand cells.

    Raises InputError where not even one record fits.
    """
    levels = tuple(int(level) for level in schema.levels)
    batches = 2 if kind == "changed" else 1
    rows = max(1, MAX_CELLS // (batches * len(levels)))
    while rows and constraint_count(Circuit(kind=kind, rows=rows, levels=levels)) > MAX_CONSTRAINTS:
        rows = rows * 9 // 10
    if not rows:
        raise InputError(f"one record of {len(levels)} columns is too large for a circuit: prove fewer columns")
    return rows


def constraint_count(circuit: Circuit) -> int:
    """How many rows its constraints have, without making them."""
    counter = Counter()
    build(counter, circuit, *_nothing(circuit))
    return counter.rows


@lru_cache(maxsize=4)
def _traced(circuit: Circuit) -> Constraints:
    if (count := constraint_count(circuit)) > MAX_CONSTRAINTS:
        raise InputError(f"a circuit has at most {MAX_CONSTRAINTS} constraints, not {count}: give it fewer records")
    tracer = Tracer()
    build(tracer, circuit, *_nothing(circuit))
    return tracer.constraints()


def _nothing(circuit: Circuit) -> tuple[Statement, list[tuple[int, Integers]]]:
    """Values of the right shape, for a builder that does not look at them."""
    sums = circuit.public - circuit.batches - 3
    empty = np.zeros((circuit.rows, len(circuit.levels)), np.int64)
    return Statement((0,) * circuit.batches, bytes(32), 0, (0,) * sums), [(0, empty)] * circuit.batches


def _filled(circuit: Circuit, cells: Integers) -> Integers:
    """The same with zeros up to the circuit's rows. Raises InputError for cells that it has no place for."""
    if cells.ndim != 2 or cells.shape[1] != len(circuit.levels) or not 1 <= len(cells) <= circuit.rows:
        raise InputError(
            f"cells of shape {cells.shape} are not 1 to {circuit.rows} records of {len(circuit.levels)} columns"
        )
    if cells.dtype.kind not in "iu":
        raise InputError(f"cells are places on the lattice, integers, and not {cells.dtype}: see Schema.index")
    if (cells < 0).any() or (cells > np.array(circuit.levels)).any():
        raise InputError("a cell is outside of its column's range, from 0 to `levels`")
    filled = np.zeros((circuit.rows, len(circuit.levels)), np.int64)
    filled[: len(cells)] = cells
    return filled


def build(
    builder: Builder[Wire], circuit: Circuit, statement: Statement, batches: Sequence[tuple[int, Integers]]
) -> None:
    """The circuit itself, of batches given as salt and padded cells."""
    commitments = [builder.public(value) for value in statement.commitments]
    high, low, count, *sums = [builder.public(value) for value in statement.inputs()[len(commitments) :]]
    zero, one = builder.combine([]), builder.combine([], 1)
    for half in (high, low):
        builder.product(half, half)
    absent = _absent(builder, circuit.rows, statement.count, count)
    grids = []
    for (salt, cells), commitment in zip(batches, commitments, strict=True):
        grid = [
            [_cell(builder, *known) for known in zip(record, circuit.levels, strict=True)] for record in cells.tolist()
        ]
        found = commitment_of(builder, circuit, count, builder.private(salt), grid)
        builder.constrain(found, one, commitment)
        for record, none_here in zip(grid, absent, strict=True):  # cells are not negative: their sum is 0 if they are
            builder.constrain(builder.combine([(1, cell) for cell in record]), none_here, zero)
        grids.append(grid)
    if circuit.kind == "mean":
        found_sums = [builder.combine([(1, cell) for cell in column]) for column in zip(*grids[0], strict=True)]
    else:
        pairs = zip(*grids, strict=True)
        found_sums = [builder.combine([(1, _differ(builder, circuit.levels, *pair)) for pair in pairs])]
    for found, said in zip(found_sums, sums, strict=True):
        builder.constrain(found, one, said)


def _absent(builder: Builder[Wire], rows: int, present: int, count: Wire) -> list[Wire]:
    """For each place of a record a wire that is 1 where there is none: the first `count` places have one."""
    zero, one = builder.combine([]), builder.combine([], 1)
    flags = [_bit(builder, int(place < present)) for place in range(rows)]
    absent = [builder.combine([(-1, flag)], 1) for flag in flags]
    for before, flag in zip(absent[:-1], flags[1:], strict=True):
        builder.constrain(before, flag, zero)
    builder.constrain(builder.combine([(1, flag) for flag in flags]), one, count)
    return absent


def _bit(builder: Builder[Wire], value: int) -> Wire:
    bit = builder.private(value)
    builder.constrain(bit, builder.combine([(-1, bit)], 1), builder.combine([]))
    return bit


def _bits(builder: Builder[Wire], value: int, width: int) -> Wire:
    """A number from 0 to 2^width - 1."""
    return builder.combine([(1 << place, _bit(builder, value >> place & 1)) for place in range(width)])


def _cell(builder: Builder[Wire], value: int, levels: int) -> Wire:
    """A number from 0 to `levels`."""
    width = levels.bit_length()
    cell = _bits(builder, value, width)
    if levels != (1 << width) - 1:
        rest = _bits(builder, levels - value, width)
        one = builder.combine([], 1)
        builder.constrain(builder.combine([(1, cell), (1, rest)]), one, builder.combine([], levels))
    return cell


def packed(algebra: Algebra[Wire], cells: Sequence[Wire], levels: Sequence[int]) -> list[Wire]:
    """Cells side by side, as many to an element as fit; `levels` begin anew with every record."""
    elements: list[Wire] = []
    terms: list[tuple[int, Wire]] = []
    used = 0
    for place, cell in enumerate(cells):
        width = levels[place % len(levels)].bit_length()
        if used + width > FIELD_BITS - 1:
            elements.append(algebra.combine(terms))
            terms, used = [], 0
        terms.append((1 << used, cell))
        used += width
    return [*elements, algebra.combine(terms)]


def commitment_of(
    algebra: Algebra[Wire], circuit: Circuit, count: Wire, salt: Wire, grid: Sequence[Sequence[Wire]]
) -> Wire:
    """Both kinds of circuit commit alike, so a batch can have one commitment and a proof of each kind."""
    shape = canonical_json({"rows": circuit.rows, "levels": list(circuit.levels)})
    header = int.from_bytes(hashlib.sha256(f"{COMMITMENT_TAG}\0{shape}".encode()).digest()) % FIELD
    cells = packed(algebra, [cell for record in grid for cell in record], circuit.levels)
    return sponge(algebra, algebra.combine([], header), [salt, count, *cells])


def _differ(builder: Builder[Wire], levels: Sequence[int], first: Sequence[Wire], second: Sequence[Wire]) -> Wire:
    """1 where two records differ, else 0."""
    parts = [
        _not_zero(builder, builder.combine([(1, left), (-1, right)]))
        for left, right in zip(packed(builder, first, levels), packed(builder, second, levels), strict=True)
    ]
    return parts[0] if len(parts) == 1 else _not_zero(builder, builder.combine([(1, part) for part in parts]))


def _not_zero(builder: Builder[Wire], wire: Wire) -> Wire:
    """1 where a wire is not 0, else 0: flag = wire * inverse, and wire * (1 - flag) = 0."""
    value = builder.value(wire)
    flag = builder.product(wire, builder.private(pow(value, -1, FIELD) if value else 0))
    builder.constrain(wire, builder.combine([(-1, flag)], 1), builder.combine([]))
    return flag
