"""Keys of two small circuits, made once; a batch of 20 records in chunks of 8, and its proofs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from chimera.sandbox.proofs.batch import plan, prove_task
from chimera.sandbox.proofs.claim import ChangedClaim, MeanClaim
from chimera.sandbox.proofs.envelope import Envelope, Opening
from chimera.sandbox.proofs.groth16 import Groth16, Loaded
from chimera.sandbox.proofs.system import VerifyingKey
from chimera.sandbox.schema import Column, Integers, Schema

RECORDS = Schema(
    columns=(
        Column(name="heat", low=-4.0, high=4.0),
        Column(name="count", low=0.0, high=10.0, step=1.0),
        Column(name="flag", low=0.0, high=1.0, step=1.0),
        Column(name="share", low=0.0, high=1.0, step=0.01),
    )
)

ROWS, CHUNK_ROWS = 20, 8


@dataclass(frozen=True)
class Keys:
    """A set-up: both keys, and the proving one loaded."""

    proving: bytes
    verifying: VerifyingKey
    loaded: Loaded


@dataclass(frozen=True)
class Proved:
    """An envelope with the openings of its batches."""

    envelope: Envelope
    openings: tuple[Opening, ...]
    batches: tuple[Integers, ...]


def set_up(claim: MeanClaim | ChangedClaim) -> Keys:
    proving, verifying = Groth16().set_up(claim.circuit, made_by="an auditor")
    return Keys(proving, verifying, Groth16().load(proving))


def prove(claim: MeanClaim | ChangedClaim, batches: tuple[Integers, ...], keys: Keys, **more: Any) -> Proved:
    tasks, openings = plan(claim, batches, **more)
    chunks = tuple(prove_task(Groth16(), keys.loaded, task) for task in tasks)
    return Proved(Envelope(claim=claim, key_id=keys.verifying.id, chunks=chunks), openings, batches)


def biased() -> Integers:
    """Records whose "heat" is 0.95 above a mean of 0, up to the lattice."""
    rng = np.random.default_rng(9)
    heat = rng.normal(0.0, 0.5, ROWS)
    values = np.column_stack(
        [heat - heat.mean() + 0.95, rng.integers(0, 11, ROWS), rng.integers(0, 2, ROWS), rng.random(ROWS)]
    )
    return RECORDS.index(values)


def mean_claim(**changes: Any) -> MeanClaim:
    given: dict[str, Any] = {
        "records": RECORDS,
        "rows": ROWS,
        "chunk_rows": CHUNK_ROWS,
        "reference": (0.0, 5.0, 0.5, 0.5),
        "bias": (0.95, 0.0, 0.0, 0.0),
        "tolerance": (0.001, 5.0, 0.5, 0.5),
        "about": {"kind": "biased", "strength": "0.95"},
    }
    return MeanClaim(**given | changes)


def changed_claim(**changes: Any) -> ChangedClaim:
    given: dict[str, Any] = {"records": RECORDS, "rows": ROWS, "chunk_rows": CHUNK_ROWS, "changed": 3}
    return ChangedClaim(**given | changes)


@pytest.fixture(scope="session")
def mean_keys() -> Keys:
    return set_up(mean_claim())


@pytest.fixture(scope="session")
def other_key() -> VerifyingKey:
    """Of the same circuit as `mean_keys`, by another set-up."""
    return Groth16().set_up(mean_claim().circuit, made_by="somebody else")[1]


@pytest.fixture(scope="session")
def changed_keys() -> Keys:
    return set_up(changed_claim())


@pytest.fixture(scope="session")
def proved(mean_keys: Keys) -> Proved:
    return prove(mean_claim(), (biased(),), mean_keys)


@pytest.fixture(scope="session")
def proved_changed(changed_keys: Keys) -> Proved:
    original = biased()
    changed = original.copy()
    for record, column in ((0, 0), (9, 1), (19, 3)):
        changed[record, column] = 0 if changed[record, column] else 1
    return prove(changed_claim(), (original, changed), changed_keys)
