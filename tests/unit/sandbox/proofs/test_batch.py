"""Envelopes of whole batches: what is accepted, and every way to make one say something else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import InputError, ProofError, StorageError
from chimera.sandbox.proofs.batch import plan, verify
from chimera.sandbox.proofs.claim import MeanClaim, what_is_not, what_is_proved
from chimera.sandbox.proofs.envelope import MAX_ENVELOPE_BYTES, Envelope, check_opening
from chimera.sandbox.proofs.keys import (
    PROVING_FILE,
    VERIFYING_FILE,
    read_proving_key,
    read_verifying_key,
    set_up,
)
from chimera.sandbox.proofs.poseidon import FIELD
from chimera.sandbox.proofs.system import VerifyingKey
from chimera.sandbox.schema import Column, Schema
from tests.unit.sandbox.proofs.conftest import (
    RECORDS,
    ROWS,
    Keys,
    Proved,
    biased,
    changed_claim,
    mean_claim,
    prove,
)


def altered(envelope: Envelope, **changes: Any) -> Envelope:
    return envelope.model_copy(update=changes)


def with_chunk(envelope: Envelope, place: int, **changes: Any) -> Envelope:
    chunks = list(envelope.chunks)
    chunks[place] = chunks[place].model_copy(update=changes)
    return altered(envelope, chunks=tuple(chunks))


def test_a_batch_with_a_bias_is_proved(mean_keys: Keys, proved: Proved) -> None:
    verify(proved.envelope, mean_keys.verifying)
    verify(Envelope.read(proved.envelope.write()), mean_keys.verifying)
    said = " ".join(what_is_proved(proved.envelope.claim))
    assert "20 records" in said and "'heat' is 0 with a bias of 0.95" in said
    assert "generator" in " ".join(what_is_not(proved.envelope.claim))


def test_the_share_of_changed_records_is_proved(changed_keys: Keys, proved_changed: Proved) -> None:
    verify(proved_changed.envelope, changed_keys.verifying)
    assert "Exactly 3 of the 20 records (15.00%)" in " ".join(what_is_proved(proved_changed.envelope.claim))
    assert "original" in " ".join(what_is_not(proved_changed.envelope.claim))
    for opened in proved_changed.openings:
        check_opening(proved_changed.envelope, opened)
    first, second = proved_changed.openings
    with pytest.raises(ProofError, match="not what was committed"):
        check_opening(proved_changed.envelope, second.model_copy(update={"place": first.place}))
    for changed in (2, 4):
        lying = altered(proved_changed.envelope, claim=changed_claim(changed=changed))
        with pytest.raises(ProofError, match=f"claimed are {changed}"):
            verify(lying, changed_keys.verifying)


def test_nothing_of_the_data_is_in_an_envelope(proved: Proved) -> None:
    told = json.loads(proved.envelope.write())
    assert set(told["chunks"][0]) == {"commitments", "sums", "proof"}
    assert not any(salt in proved.envelope.write().decode() for salt in proved.openings[0].salts)
    assert told["notice"] == "research-grade, unaudited"


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": (0.9505, 0.0, 0.0, 0.0)},
        {"tolerance": (1.0, 5.0, 0.5, 0.5)},
        {"reference": (0.0001, 5.0, 0.5, 0.5)},
        {"about": {"kind": "biased", "strength": "0.2"}},
        {"about": {}},
        {"rows": 21},
        {"rows": 19},
    ],
)
def test_proofs_fit_no_other_claim(changes: dict[str, Any], mean_keys: Keys, proved: Proved) -> None:
    with pytest.raises(ProofError, match=r"does not show|has the mean"):
        verify(altered(proved.envelope, claim=mean_claim(**changes)), mean_keys.verifying)


def test_a_claim_that_is_not_true_is_not_even_proved(mean_keys: Keys, proved: Proved) -> None:
    with pytest.raises(ProofError, match="column 'heat' has the mean"):
        plan(mean_claim(bias=(0.5, 0.0, 0.0, 0.0)), (biased(),))
    with pytest.raises(ProofError, match="column 'heat' has the mean"):
        verify(altered(proved.envelope, claim=mean_claim(bias=(0.5, 0.0, 0.0, 0.0))), mean_keys.verifying)


def test_sums_that_still_add_up_are_refused(mean_keys: Keys, proved: Proved) -> None:
    first, second, _ = proved.envelope.chunks
    moved = with_chunk(proved.envelope, 0, sums=(first.sums[0] + 1, *first.sums[1:]))
    moved = with_chunk(moved, 1, sums=(second.sums[0] - 1, *second.sums[1:]))
    with pytest.raises(ProofError, match="chunk 0: the proof does not show"):
        verify(moved, mean_keys.verifying)


def test_changed_data_and_salts_do_not_open_it(proved: Proved) -> None:
    (opened,) = proved.openings
    check_opening(proved.envelope, opened)
    cells = [list(record) for record in opened.cells]
    cells[13][3] ^= 1
    salt = f"{int(opened.salts[2], 16) ^ 1:064x}"
    for change in (
        {"cells": tuple(map(tuple, cells))},
        {"cells": opened.cells[:-1]},
        {"cells": tuple(record[:-1] for record in opened.cells)},
        {"cells": (*opened.cells[:-1], (0, 11, 0, 0))},
        {"cells": (opened.cells[1], opened.cells[0], *opened.cells[2:])},
        {"salts": (*opened.salts[:2], salt)},
        {"salts": (*opened.salts[:2], f"{int(opened.salts[2], 16) + FIELD:064x}")},
        {"salts": opened.salts[:2]},
        {"place": 1},
    ):
        with pytest.raises(ProofError):
            check_opening(proved.envelope, opened.model_copy(update=change))


def test_another_commitment_is_refused(mean_keys: Keys, proved: Proved) -> None:
    known = int(proved.envelope.chunks[1].commitments[0], 16)
    for other in (known ^ 1, known + FIELD):
        changed = with_chunk(proved.envelope, 1, commitments=(f"{other:064x}",))
        with pytest.raises(ProofError, match="chunk 1"):
            verify(changed, mean_keys.verifying)
        assert changed.id != proved.envelope.id


def test_another_key_is_refused(other_key: VerifyingKey, proved: Proved) -> None:
    with pytest.raises(ProofError, match="made for the key"):
        verify(proved.envelope, other_key)
    with pytest.raises(ProofError, match="does not show"):
        verify(altered(proved.envelope, key_id=other_key.id), other_key)


def test_a_key_of_another_circuit_is_refused(changed_keys: Keys, proved: Proved) -> None:
    with pytest.raises(ProofError, match="another circuit"):
        verify(altered(proved.envelope, key_id=changed_keys.verifying.id), changed_keys.verifying)


def test_who_made_a_key_belongs_to_it(mean_keys: Keys, proved: Proved) -> None:
    with pytest.raises(ProofError, match="made for the key"):
        verify(proved.envelope, mean_keys.verifying.model_copy(update={"made_by": "somebody better"}))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1), (0, 1, 1), (0, 0, 2), (0, 1, 2, 2)])
def test_chunks_are_bound_to_their_places(order: tuple[int, ...], mean_keys: Keys, proved: Proved) -> None:
    chunks = tuple(proved.envelope.chunks[place] for place in order)
    loose = mean_claim(tolerance=(8.0, 10.0, 1.0, 1.0))  # whatever the sums, the arithmetic does not refuse them
    everywhere = prove(loose, (biased(),), mean_keys).envelope
    for envelope in (altered(proved.envelope, chunks=chunks), altered(everywhere, chunks=chunks)):
        with pytest.raises(ProofError):
            verify(envelope, mean_keys.verifying)
    shuffled = altered(everywhere, chunks=tuple(everywhere.chunks[place] for place in order))
    with pytest.raises(ProofError, match=r"does not show|are 3 chunks|was copied"):
        verify(shuffled, mean_keys.verifying)


def test_a_truncated_proof_is_no_envelope(proved: Proved) -> None:
    text = proved.envelope.write().decode()
    proof = proved.envelope.chunks[0].proof
    for bad in (proof[:-2], proof[:-1], proof + "00", proof.upper()):
        with pytest.raises(ProofError, match="not an envelope"):
            Envelope.read(text.replace(proof, bad).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"version": 2}'])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError, match="not an envelope"):
        Envelope.read(data)


def test_a_huge_envelope_is_not_read() -> None:
    with pytest.raises(ProofError, match="at most"):
        Envelope.read(b" " * (MAX_ENVELOPE_BYTES + 1))


def test_an_id_is_of_the_claim_and_the_commitment_not_of_the_proofs(mean_keys: Keys, proved: Proved) -> None:
    salts = [[int(salt, 16) for salt in proved.openings[0].salts]]
    again = prove(mean_claim(), (biased(),), mean_keys, salts=salts).envelope
    assert again.chunks[0].proof != proved.envelope.chunks[0].proof
    assert again.id == proved.envelope.id
    assert prove(mean_claim(), (biased(),), mean_keys).envelope.id != again.id


@pytest.mark.parametrize(
    "batches",
    [(), (biased(), biased()), (biased()[:-1],), (biased()[:, :-1],), (biased().astype(float),), (biased() + 70_000,)],
    ids=["none", "two", "few", "narrow", "floats", "out of range"],
)
def test_a_batch_that_the_claim_is_not_about_is_refused(batches: tuple[Any, ...]) -> None:
    wide = mean_claim(tolerance=(1e9, 1e9, 1e9, 1e9))
    with pytest.raises(InputError):
        plan(wide, batches)


@given(st.data())
def test_means_are_compared_in_exact_arithmetic(data: st.DataObject) -> None:
    number = st.floats(-1e6, 1e6, allow_nan=False)
    low, span = data.draw(number), data.draw(st.floats(1e-3, 1e6))
    column = Column(name="x", low=low, high=low + span)
    rows, bias, tolerance = data.draw(st.integers(1, 1_000)), data.draw(number), data.draw(st.floats(0, 1e6))
    total = data.draw(st.integers(0, rows * column.levels))
    claim = MeanClaim(
        records=Schema(columns=(column,)),
        rows=rows,
        chunk_rows=8,
        reference=(low,),
        bias=(bias,),
        tolerance=(tolerance,),
    )
    width = Fraction(column.high) - Fraction(column.low)
    off = width * total / (rows * column.levels) - Fraction(bias)
    if -Fraction(tolerance) <= off <= Fraction(tolerance):
        claim.check([total])
    else:
        with pytest.raises(ProofError):
            claim.check([total])


def test_a_tolerance_is_exact_to_the_last_place() -> None:
    unit = Column(name="x", low=0.0, high=1.0, step=1.0)
    fields: dict[str, Any] = {"records": Schema(columns=(unit,)), "rows": 3, "chunk_rows": 8, "tolerance": (0.0,)}
    third = 1 / 3  # a float below a third
    with pytest.raises(ProofError):
        MeanClaim(**fields, reference=(third,), bias=(0.0,)).check([1])
    MeanClaim(**fields | {"tolerance": (1e-16,)}, reference=(third,), bias=(0.0,)).check([1])
    MeanClaim(**fields, reference=(1.0,), bias=(0.0,)).check([3])


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": (0.0,)},
        {"tolerance": (-1.0, 0.0, 0.0, 0.0)},
        {"bias": (float("nan"), 0.0, 0.0, 0.0)},
        {"rows": 0},
        {"chunk_rows": 1, "rows": 5_000},
        {"about": {"x": "y" * 2_000}},
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        mean_claim(**changes)
    with pytest.raises(ValidationError):
        changed_claim(changed=ROWS + 1)


def test_keys_are_kept_as_files(tmp_path: Path) -> None:
    circuit = mean_claim(chunk_rows=1).circuit
    made = set_up(circuit, tmp_path / "keys", made_by="an auditor")
    verifying, proving = tmp_path / "keys" / VERIFYING_FILE, tmp_path / "keys" / PROVING_FILE
    assert read_verifying_key(verifying) == made
    assert read_proving_key(proving, made)
    with pytest.raises(StorageError, match="is there already"):
        set_up(circuit, tmp_path / "keys", made_by="somebody")
    proving.write_bytes(proving.read_bytes()[:-1] + b"\0")
    with pytest.raises(ProofError, match="is not the proving key"):
        read_proving_key(proving, made)
    verifying.write_text("{}")
    with pytest.raises(ProofError, match="is no verifying key"):
        read_verifying_key(verifying)
    with pytest.raises(StorageError, match="cannot be read"):
        read_verifying_key(tmp_path / "none.json")


def test_verifying_takes_no_torch_no_data_and_no_ray(mean_keys: Keys, proved: Proved, tmp_path: Path) -> None:
    (tmp_path / "batch.json").write_bytes(proved.envelope.write())
    (tmp_path / "key.json").write_text(mean_keys.verifying.model_dump_json())
    program = (
        "import sys, pathlib\n"
        "for name in ('torch', 'opacus', 'flwr', 'ray', 'matplotlib', 'pandas', 'scipy'): sys.modules[name] = None\n"
        "from chimera.sandbox.proofs.batch import verify\n"
        "from chimera.sandbox.proofs.envelope import Envelope\n"
        "from chimera.sandbox.proofs.keys import read_verifying_key\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "verify(Envelope.read((here / 'batch.json').read_bytes()), read_verifying_key(here / 'key.json'))\n"
        "print('verified')\n"
    )
    run = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "verified\n", done.stderr


def test_the_records_are_those_of_the_schema() -> None:
    assert np.abs(RECORDS.values(biased())[:, 0].mean() - 0.95) < 0.001


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"rows":', '"rows": 1, "rows":', 1),
        lambda text: re.sub(r'"rows": ?(\d+)', r'"rows": "\1"', text, count=1),
        lambda text: re.sub(r'"rows": ?(\d+)', r'"rows": \1.0', text, count=1),
        lambda text: "[" * 100_000,
    ],
)
def test_an_envelope_that_two_readers_may_read_in_two_ways_is_refused(
    proved: Proved, change: Callable[[str], str]
) -> None:
    text = proved.envelope.write().decode()
    assert Envelope.read(text.encode()) == proved.envelope
    assert change(text) != text
    with pytest.raises(ProofError, match="not an envelope"):
        Envelope.read(change(text).encode())
