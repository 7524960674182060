"""Pictures of a training, and a batch's files: what is in them, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from chimera.core.errors import InputError, ProofError
from chimera.sandbox.batch_files import (
    DATA_FILE,
    OPENING_FILE,
    SCHEMA_FILE,
    Unproved,
    check_opened,
    read_batch,
    read_opening,
    write_batch,
)
from chimera.sandbox.datasets import read_schema, read_table
from chimera.sandbox.plots import PRIVATE, plot_epsilon, plot_marginals
from chimera.sandbox.proofs.batch import plan
from chimera.sandbox.proofs.claim import MeanClaim
from chimera.sandbox.proofs.envelope import Opening, batch_commitment
from chimera.sandbox.schema import Column, Schema, Table

SCHEMA = Schema(
    columns=(Column(name="a", low=-4, high=4), Column(name="class", low=0, high=9, step=1)), classes=("no", "yes")
)


def table(n: int, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.normal(0, 1, n), rng.integers(0, 10, n)])
    return Table(SCHEMA, SCHEMA.snap(values), rng.integers(0, 2, n))


def test_marginals_say_that_they_are_private_and_the_same_tables_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg", "three.svg", "one.png"):
        plot_marginals(table(300, 0), table(200, 2 if name == "three.svg" else 1), tmp_path / name)
    one, two, three = ((tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    assert PRIVATE.encode() in one
    assert 5_000 < (tmp_path / "one.png").stat().st_size < 100_000
    assert imread(tmp_path / "one.png").std() > 0.05


def test_a_table_of_many_columns_is_drawn_in_part(tmp_path: Path) -> None:
    wide = Schema(columns=tuple(Column(name=f"c{at}", low=0, high=1) for at in range(40)))
    values = np.random.default_rng(0).random((50, 40)) * np.linspace(0.1, 1, 40)
    plot_marginals(Table(wide, values), Table(wide, values), tmp_path / "wide.svg")
    text = (tmp_path / "wide.svg").read_text()
    assert "16 of 40 columns" in text and "<!-- c39 -->" in text and "<!-- c1 -->" not in text


def test_epsilon_is_drawn_with_its_budget_and_infinite_is_a_word(tmp_path: Path) -> None:
    plot_epsilon([1, 50, 100], [0.5, 0.8, 1.0], tmp_path / "one.svg", budget=1.0, delta=1e-5)
    plot_epsilon([1, 50], [math.inf, math.inf], tmp_path / "none.svg", budget=math.inf, delta=1e-5)
    assert "budget 1" in (tmp_path / "one.svg").read_text()
    assert "epsilon: infinite" in (tmp_path / "none.svg").read_text()


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends in"):
        plot_marginals(table(5, 0), table(5, 1), tmp_path / "one.pdf")
    with pytest.raises(InputError, match="no records"):
        plot_marginals(table(0, 0), table(5, 1), tmp_path / "one.png")
    with pytest.raises(InputError, match="cannot be written"):
        plot_marginals(table(5, 0), table(5, 1), tmp_path / "no" / "one.png")
    other = Table(Schema(columns=(Column(name="b", low=0, high=1),)), [[0.5]])
    with pytest.raises(InputError, match="same columns"):
        plot_marginals(table(5, 0), other, tmp_path / "one.png")


def unproved(data: Table) -> tuple[Unproved, tuple[Opening, ...]]:
    means = data.values.mean(axis=0)
    claim = MeanClaim(
        records=SCHEMA, rows=len(data), chunk_rows=4, reference=tuple(means), bias=(0.0, 0.0), tolerance=(1e-3, 1e-3)
    )
    tasks, openings = plan(claim, [SCHEMA.index(data.values)])
    commitment = batch_commitment(claim, [task.statement.commitments for task in tasks])
    return Unproved(claim=claim, commitment=commitment), openings


def test_a_batch_comes_back_from_its_files_and_is_the_committed_one(tmp_path: Path) -> None:
    data = table(10, 3)
    batch, openings = unproved(data)
    folder = tmp_path / "batch"
    write_batch(folder, batch, data, openings)
    assert read_batch(folder / "BATCH.json") == batch
    again = read_table(folder / DATA_FILE, read_schema(folder / SCHEMA_FILE))
    assert (SCHEMA.index(again.values) == SCHEMA.index(data.values)).all()
    assert again.labels is not None and data.labels is not None and (again.labels == data.labels).all()
    check_opened(batch, read_opening(folder / OPENING_FILE), folder / DATA_FILE)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "private" in (folder / OPENING_FILE).read_text()[:60]
    with pytest.raises(InputError, match="not empty"):
        write_batch(folder, batch, data, openings)


def test_other_records_and_another_opening_are_told(tmp_path: Path) -> None:
    data = table(10, 3)
    batch, openings = unproved(data)
    write_batch(tmp_path / "batch", batch, data, openings)
    write_batch(tmp_path / "other", *_swapped(data))
    opening = read_opening(tmp_path / "batch" / OPENING_FILE)
    with pytest.raises(ProofError, match="record 1 is not"):
        check_opened(batch, opening, tmp_path / "other" / DATA_FILE)
    with pytest.raises(ProofError, match="not that of the committed"):
        check_opened(batch, read_opening(tmp_path / "other" / OPENING_FILE))
    lines = (tmp_path / "batch" / DATA_FILE).read_text().splitlines()
    (tmp_path / "short.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(ProofError, match="has 9 records"):
        check_opened(batch, opening, tmp_path / "short.csv")
    (tmp_path / "no.json").write_text("{}")
    for read in (read_batch, read_opening):
        with pytest.raises(ProofError):
            read(tmp_path / "no.json")
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / "none.json")


def _swapped(data: Table) -> tuple[Unproved, Table, tuple[Opening, ...]]:
    """The same records with the first two exchanged: the same means, another batch."""
    order = np.array([1, 0, *range(2, len(data))])
    moved = data.take(order)
    batch, openings = unproved(moved)
    return batch, moved, openings
