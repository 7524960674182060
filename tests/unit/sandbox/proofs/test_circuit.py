"""The circuits hold for what is true, and for nothing else: false statements, cells out of range, loose variables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.sandbox.proofs.circuit import (
    MAX_CONSTRAINTS,
    Circuit,
    Committed,
    Kind,
    Statement,
    build,
    commitment_of,
    constraint_count,
    packed,
    rows_per_chunk,
)
from chimera.sandbox.proofs.poseidon import FIELD, FIELD_BITS, NUMBERS
from chimera.sandbox.proofs.r1cs import Constraints, Evaluator
from chimera.sandbox.schema import Column, Integers, Schema

CONTEXT = bytes(range(32))

MEAN = Circuit(kind="mean", rows=3, levels=(10, 7))
CHANGED = Circuit(kind="changed", rows=3, levels=(10, 7))
WIDE = Circuit(kind="changed", rows=2, levels=(65_535,) * 17)


def cells_of(circuit: Circuit, data: st.DataObject, rows: int) -> Integers:
    record = st.tuples(*(st.integers(0, level) for level in circuit.levels))
    return np.array(data.draw(st.lists(record, min_size=rows, max_size=rows)), np.int64)


def holds(circuit: Circuit, statement: Statement, batches: list[Committed]) -> bool:
    """Whether a prover who ignores every refusal would satisfy the constraints with these cells."""
    builder = Evaluator()
    filled = []
    for batch in batches:
        cells = np.zeros((circuit.rows, len(circuit.levels)), np.int64)
        cells[: len(batch.cells)] = batch.cells
        filled.append((batch.salt, cells))
    build(builder, circuit, statement, filled)
    return circuit.constraints().hold(builder.assignment)


@settings(max_examples=25)
@given(st.sampled_from([MEAN, CHANGED, WIDE]), st.data())
def test_it_holds_exactly_for_the_true_statement(circuit: Circuit, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, circuit.rows))
    first = cells_of(circuit, data, rows)
    second = np.where(data.draw(st.booleans()), first, cells_of(circuit, data, rows))
    batches = [Committed(first, 5), Committed(second, 6)][: circuit.batches]
    statement = circuit.statement(batches, CONTEXT)
    assert circuit.constraints().hold(circuit.assignment(statement, batches))
    if circuit.kind == "changed":
        assert statement.sums == (sum(a != b for a, b in zip(first.tolist(), second.tolist(), strict=True)),)
    else:
        assert statement.sums == tuple(sum(column) for column in zip(*first.tolist(), strict=True))
    inputs = list(statement.inputs())
    place = data.draw(st.integers(0, len(inputs) - 1).filter(lambda i: not 0 <= i - circuit.batches <= 1))
    inputs[place] = (inputs[place] + data.draw(st.integers(1, FIELD - 1))) % FIELD
    false = Statement(
        tuple(inputs[: circuit.batches]), CONTEXT, inputs[circuit.batches + 2], tuple(inputs[circuit.batches + 3 :])
    )
    assert not holds(circuit, false, batches)


@pytest.mark.parametrize("bad", [[[11, 0]], [[15, 7]], [[-1, 0]], [[0, 8]], [[FIELD - 1, 0]]])
def test_a_cell_out_of_range_has_no_witness(bad: list[list[int]]) -> None:
    builder = Evaluator()
    cells = np.array([[3, 3], [4, 4], [5, 5]]).astype(object)
    cells[0] = bad[0]
    sums = tuple(int(total) % FIELD for total in cells.sum(axis=0))
    build(builder, MEAN, Statement((0,), CONTEXT, 3, sums), [(5, cells)])
    # Even with the commitment that this witness has: every row but the commitment's is what a cheat must satisfy.
    a, b, c = MEAN.constraints().evaluate(builder.assignment)
    broken = sum(x * y % FIELD != z for x, y, z in zip(a, b, c, strict=True))
    assert broken > 1


@pytest.mark.parametrize(
    ("circuit", "batches"),
    [
        (MEAN, [Committed(np.array([[3, 3]]), 5)]),
        (CHANGED, [Committed(np.array([[3, 3], [1, 1], [2, 2]]), 5), Committed(np.array([[3, 4], [2, 1], [0, 0]]), 6)]),
    ],
)
def test_no_variable_is_loose(circuit: Circuit, batches: list[Committed]) -> None:
    """Each alone, changed by anything, breaks a row that it stands in: none is left to the prover."""
    constraints = circuit.constraints()
    assignment = circuit.assignment(circuit.statement(batches, CONTEXT), batches)
    assert constraints.hold(assignment)
    triples = list(zip(constraints.a, constraints.b, constraints.c, strict=True))
    used: dict[int, list[int]] = {}
    for number, triple in enumerate(triples):
        for variable in {variable for row in triple for variable, _ in row}:
            used.setdefault(variable, []).append(number)
    rng = np.random.default_rng(4)
    for variable in range(1, constraints.variables):
        changed = list(assignment)
        changed[variable] = (changed[variable] + int(rng.integers(1, 2**62))) % FIELD
        a, b, c = zip(*(triples[number] for number in used[variable]), strict=True)
        only = Constraints(a, b, c, constraints.public, constraints.variables)
        assert only.hold(assignment) and not only.hold(changed), f"variable {variable} is loose"


def test_records_beyond_the_count_are_zeros() -> None:
    three = Committed(np.array([[3, 3], [4, 4], [5, 5]]), 5)
    two = Committed(three.cells[:2], 5)
    honest = MEAN.statement([two], CONTEXT)
    assert holds(MEAN, honest, [two])
    for cells in (three, two):
        for count in (1, 2, 3):
            told = replace(MEAN.statement([cells], CONTEXT), count=count)
            assert holds(MEAN, told, [cells]) == (count == len(cells.cells))


@pytest.mark.parametrize(
    ("flags", "count", "records", "good"),
    [
        ([1, 1, 0], 2, [[3, 3], [4, 4], [0, 0]], True),
        ([1, 1, 0], 2, [[3, 3], [4, 4], [5, 5]], False),
        ([1, 1, 1], 2, [[3, 3], [4, 4], [5, 5]], False),
        ([1, 0, 1], 2, [[3, 3], [0, 0], [5, 5]], False),
        ([2, 0, 0], 2, [[3, 3], [0, 0], [0, 0]], False),
    ],
    ids=["honest", "hidden record", "one flag more", "a hole", "no bit"],
)
def test_a_cheat_cannot_hide_records(flags: list[int], count: int, records: list[list[int]], good: bool) -> None:
    cells = np.array(records)
    commitment = commitment_of(NUMBERS, MEAN, count, 5, records)
    builder = Evaluator()
    sums = tuple(int(total) for total in cells.sum(axis=0))
    build(builder, MEAN, Statement((commitment,), CONTEXT, count, sums), [(5, cells)])
    begin = 1 + MEAN.public + 2  # after the squares of the context's halves
    builder.assignment[begin : begin + 3] = flags
    assert MEAN.constraints().hold(builder.assignment) == good


class Denier(Evaluator):
    """A prover who takes every difference for none."""

    def value(self, wire: int) -> int:
        return 0


@pytest.mark.parametrize("circuit", [CHANGED, WIDE])
def test_a_cheat_cannot_deny_a_change(circuit: Circuit) -> None:
    batches = [Committed(np.full((2, len(circuit.levels)), place), place) for place in (3, 4)]
    for sums, builder in (((0,), Denier()), ((2,), Evaluator())):
        statement = replace(circuit.statement(batches, CONTEXT), sums=sums)
        cells = np.zeros((2, circuit.rows, len(circuit.levels)), np.int64)
        cells[:, :2] = [batch.cells for batch in batches]
        build(builder, circuit, statement, [(batch.salt, part) for batch, part in zip(batches, cells, strict=True)])
        assert circuit.constraints().hold(builder.assignment) == (sums == (2,))


@pytest.mark.parametrize("levels", [(65_535,) * 40, (1, 10, 65_535), (65_535, 1) * 20])
def test_packed_cells_can_be_told_apart(levels: tuple[int, ...]) -> None:
    """No element wraps around the field: the cells can be read off it again."""
    cells = [level - place % 2 for place, level in enumerate(levels * 3)]
    found: list[int] = []
    left = packed(NUMBERS, cells, levels)
    used, element = 0, left.pop(0)
    for place in range(len(cells)):
        width = levels[place % len(levels)].bit_length()
        if used + width >= FIELD_BITS:
            used, element = 0, left.pop(0)
        found.append(element >> used & ((1 << width) - 1))
        used += width
    assert found == cells and not left


@pytest.mark.parametrize("circuit", [MEAN, CHANGED, WIDE])
def test_the_count_of_constraints_is_that_of_the_traced_circuit(circuit: Circuit) -> None:
    constraints = circuit.constraints()
    assert constraint_count(circuit) == len(constraints)
    assert constraints.public == circuit.public


def test_each_input_has_a_row_of_its_own() -> None:
    constraints = MEAN.constraints()
    rows = zip(constraints.a, constraints.b, constraints.c, strict=True)
    alone = {a[0][0] for a, b, c in rows if len(a) == 1 and not b and not c}
    assert alone == set(range(constraints.public + 1))


@pytest.mark.parametrize("kind", ["mean", "changed"])
@pytest.mark.parametrize(("columns", "step"), [(1, 0.0), (8, 0.0), (30, 0.01), (300, 0.0)])
def test_chunks_fill_circuits_and_fit(kind: Kind, columns: int, step: float) -> None:
    schema = Schema(columns=tuple(Column(name=str(i), low=0, high=1, step=step) for i in range(columns)))
    rows = rows_per_chunk(kind, schema)
    circuit = Circuit(kind=kind, rows=rows, levels=tuple(int(level) for level in schema.levels))
    assert 0 < constraint_count(circuit) <= MAX_CONSTRAINTS
    assert rows * columns * circuit.batches <= 1_024


def test_a_record_too_large_for_a_circuit_is_refused() -> None:
    schema = Schema(columns=tuple(Column(name=str(i), low=0, high=1, step=1 / 33_000) for i in range(1_024)))
    with pytest.raises(InputError, match="prove fewer columns"):
        rows_per_chunk("mean", schema)


@pytest.mark.parametrize(
    "cells", [np.zeros((4, 2), np.int64), np.zeros((1, 3), np.int64), np.zeros((1, 2)), np.array([[11, 0]])]
)
def test_what_does_not_fit_is_refused(cells: Integers) -> None:
    with pytest.raises(InputError):
        MEAN.commit(Committed(cells, 1))


def test_a_commitment_binds_cells_salt_count_and_shape() -> None:
    cells = np.array([[3, 3], [0, 0]])
    bound = MEAN.commit(Committed(cells, 5))
    assert bound == MEAN.commit(Committed(cells, 5)) == CHANGED.commit(Committed(cells, 5))
    others = [Committed(cells, 6), Committed(cells[:1], 5), Committed(cells[::-1], 5)]
    wider = Circuit(kind="mean", rows=4, levels=MEAN.levels)
    assert len({bound, wider.commit(Committed(cells, 5)), *(MEAN.commit(other) for other in others)}) == 5
