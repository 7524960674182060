"""Columns, their lattice and their ranges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import InputError
from chimera.sandbox.schema import MAX_LEVELS, Column, Schema, Table

SCHEMA = Schema(columns=(Column(name="grey", low=0, high=16, step=1), Column(name="length", low=-2.5, high=7.5)))


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
def test_what_is_snapped_lies_on_the_lattice_within_the_range_and_stays(cells: list[tuple[float, float]]) -> None:
    values = np.array(cells)
    snapped = SCHEMA.snap(values)
    assert (snapped >= SCHEMA.low).all() and (snapped <= SCHEMA.low + SCHEMA.span + 1e-9).all()
    assert (snapped[:, 0] == np.rint(snapped[:, 0])).all()
    assert (SCHEMA.index(SCHEMA.snap(snapped)) == SCHEMA.index(snapped)).all()
    inside = np.clip(values, SCHEMA.low, SCHEMA.low + SCHEMA.span)
    assert (np.abs(snapped - inside) <= SCHEMA.grain / 2 + 1e-9).all()


@given(st.integers(0, 16), st.integers(0, MAX_LEVELS))
def test_index_and_value_are_each_other_s_inverse(grey: int, length: int) -> None:
    index = np.array([[grey, length]])
    assert (SCHEMA.index(SCHEMA.values(index)) == index).all()
    assert (SCHEMA.index(SCHEMA.decode(SCHEMA.encode(SCHEMA.values(index)))) == index).all()


def test_encoded_is_between_minus_one_and_one() -> None:
    assert SCHEMA.encode(np.array([[0.0, 7.5], [16.0, -99.0]])).tolist() == [[-1.0, 1.0], [1.0, -1.0]]


@pytest.mark.parametrize(
    "column",
    [
        {"low": 1, "high": 1},
        {"low": 0, "high": float("inf")},
        {"low": 0, "high": 1, "step": 0.3},
        {"low": 0, "high": 70_000, "step": 1},
        {"low": 0, "high": 1, "step": -1},
        {"low": 0, "high": 1, "step": 2},
    ],
)
def test_a_column_that_cannot_be_is_refused(column: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Column(name="c", **column)


def test_names_are_different() -> None:
    column = Column(name="c", low=0, high=1)
    with pytest.raises(ValidationError, match="same name"):
        Schema(columns=(column, column))
    with pytest.raises(ValidationError, match="same name"):
        Schema(columns=(column,), classes=("a", "a"))


def test_schemas_are_equal_by_what_they_say_also_after_use() -> None:
    again = Schema.model_validate_json(SCHEMA.model_dump_json())
    for schema in (SCHEMA, again):
        schema.snap(np.zeros((1, 2)))
    assert again == SCHEMA and hash(again) == hash(SCHEMA)
    assert again != SCHEMA.model_copy(update={"classes": ("a",)})


def test_a_table_fits_its_schema() -> None:
    labelled = SCHEMA.model_copy(update={"classes": ("no", "yes")})
    assert len(Table(labelled, [[0, 0], [1, 1]], [0, 1]).take(np.array([True, False]))) == 1
    for schema, values, labels, why in [
        (SCHEMA, [[0.0]], None, "columns"),
        (SCHEMA, [[0.0, float("nan")]], None, "finite"),
        (SCHEMA, [[0.0, 0.0]], [0], "labels"),
        (labelled, [[0.0, 0.0]], None, "labels"),
        (labelled, [[0.0, 0.0]], [0, 1], "shape"),
        (labelled, [[0.0, 0.0]], [2], "index"),
        (labelled, [[0.0, 0.0]], [-1], "index"),
    ]:
        with pytest.raises(InputError, match=why):
            Table(schema, values, labels)
