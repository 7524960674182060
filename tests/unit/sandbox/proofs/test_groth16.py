"""The proof system: what it refuses of proofs, inputs and keys; an independent verifier agrees with it."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chimera.core.errors import InputError, ProofError
from chimera.sandbox.proofs.batch import plan
from chimera.sandbox.proofs.circuit import Committed, build
from chimera.sandbox.proofs.groth16 import MAGIC, Groth16, proof_of
from chimera.sandbox.proofs.points import curve, write
from chimera.sandbox.proofs.poseidon import FIELD
from chimera.sandbox.proofs.r1cs import Evaluator
from chimera.sandbox.proofs.system import VerifyingKey
from tests.unit.sandbox.proofs.conftest import Keys, Proved, biased, changed_claim

SYSTEM = Groth16()


def independent() -> Any:
    """py_ecc raises Python's recursion limit, with which JSON that nests deep overflows the stack of any test."""
    limit = sys.getrecursionlimit()
    try:
        return importlib.import_module("py_ecc.optimized_bn128")
    finally:
        sys.setrecursionlimit(limit)


ecc = independent()


def first_of(proved: Proved) -> tuple[list[int], bytes]:
    """The public inputs and the proof of the first chunk."""
    chunk, claim = proved.envelope.chunks[0], proved.envelope.claim
    context = claim.contexts()[0]
    halves = [int.from_bytes(context[:16]), int.from_bytes(context[16:])]
    commitments = [int(commitment, 16) for commitment in chunk.commitments]
    return [*commitments, *halves, claim.counts()[0], *chunk.sums], bytes.fromhex(chunk.proof)


def fq2_root(value: Any) -> Any:
    """A square root of an element of Fp2, by the norm; None where there is none."""
    real, imaginary = (int(part) for part in value.coeffs)
    norm = (real * real + imaginary * imaginary) % ecc.field_modulus
    root = pow(norm, (ecc.field_modulus + 1) // 4, ecc.field_modulus)
    for signed in (root, -root):
        half = (real + signed) * pow(2, -1, ecc.field_modulus) % ecc.field_modulus
        x = pow(half, (ecc.field_modulus + 1) // 4, ecc.field_modulus)
        if x and x * x % ecc.field_modulus == half and root * root % ecc.field_modulus == norm:
            return ecc.FQ2([x, imaginary * pow(2 * x, -1, ecc.field_modulus) % ecc.field_modulus])
    return None


def g1_of(data: bytes) -> Any:
    """A compressed point of G1, read by other code than the package's."""
    x = int.from_bytes(data, "little") & ((1 << 254) - 1)
    y = pow(x**3 + 3, (ecc.field_modulus + 1) // 4, ecc.field_modulus)
    greater = max(y, ecc.field_modulus - y)
    point = (ecc.FQ(x), ecc.FQ(greater if data[-1] & 0x80 else ecc.field_modulus - greater), ecc.FQ(1))
    assert ecc.is_on_curve(point, ecc.b)
    return point


def g2_of(data: bytes) -> Any:
    x = ecc.FQ2([int.from_bytes(data[:32], "little"), int.from_bytes(data[32:], "little") & ((1 << 254) - 1)])
    y = fq2_root(x * x * x + ecc.b2)
    negative = -y
    order = [tuple(int(part) for part in reversed(root.coeffs)) for root in (y, negative)]
    greater, less = (y, negative) if order[0] > order[1] else (negative, y)
    point = (x, greater if data[-1] & 0x80 else less, ecc.FQ2.one())
    assert ecc.is_on_curve(point, ecc.b2)
    return point


def oracle(key: VerifyingKey, inputs: Sequence[int], proof: bytes) -> bool:
    """Groth's equation e(A, B) = e(alpha, beta) e(inputs, gamma) e(C, delta), in pure Python, by py_ecc."""
    ic = [g1_of(bytes.fromhex(point)) for point in key.ic]
    total = ic[0]
    for point, value in zip(ic[1:], inputs, strict=True):
        total = ecc.add(total, ecc.multiply(point, value % ecc.curve_order))
    pairs = [
        (g2_of(proof[32:96]), ecc.neg(g1_of(proof[:32]))),
        (g2_of(bytes.fromhex(key.beta)), g1_of(bytes.fromhex(key.alpha))),
        (g2_of(bytes.fromhex(key.gamma)), total),
        (g2_of(bytes.fromhex(key.delta)), g1_of(proof[96:])),
    ]
    product = ecc.FQ12.one()
    for second, first in pairs:
        product *= ecc.pairing(second, first, final_exponentiate=False)
    return bool(ecc.final_exponentiate(product) == ecc.FQ12.one())


def agrees(case: int, keys: Keys, proved: Proved) -> bool:
    """Whether both verifiers say the same of a random case. Even ones are true, odd ones have something changed."""
    rng = random.Random(case)
    cells = biased()[:8]
    cells[rng.randrange(8), 0] = rng.randrange(65_536)
    batch = Committed(cells, rng.randrange(FIELD))
    statement = keys.loaded.circuit.statement([batch], rng.randbytes(32))
    inputs, proof = list(statement.inputs()), SYSTEM.prove(keys.loaded, statement, [batch])
    if case % 2:
        kind = rng.choice(["input", "point", "other proof"])
        if kind == "input":
            inputs[rng.randrange(len(inputs))] ^= 1
        elif kind == "point":
            proof = proof[:96] + write(curve.g1() * rng.randrange(1, FIELD))
        else:
            proof = first_of(proved)[1]
    try:
        SYSTEM.verify(keys.verifying, inputs, proof)
        accepted = True
    except ProofError:
        accepted = False
    return accepted == (case % 2 == 0) == oracle(keys.verifying, inputs, proof)


@pytest.mark.parametrize("case", range(4))
def test_an_independent_verifier_agrees(case: int, mean_keys: Keys, proved: Proved) -> None:
    assert agrees(case, mean_keys, proved)


@pytest.mark.soak
@pytest.mark.parametrize("case", range(100, 120))
def test_an_independent_verifier_agrees_twenty_times(case: int, mean_keys: Keys, proved: Proved) -> None:
    assert agrees(case, mean_keys, proved)


def test_a_proof_is_of_its_inputs_only(mean_keys: Keys, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    SYSTEM.verify(mean_keys.verifying, inputs, proof)
    for place in range(len(inputs)):
        with pytest.raises(ProofError, match="does not show"):
            SYSTEM.verify(mean_keys.verifying, [*inputs[:place], inputs[place] ^ 1, *inputs[place + 1 :]], proof)


def test_a_shifted_input_is_refused_that_the_equation_would_take(mean_keys: Keys, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    for place in range(len(inputs)):
        shifted = [*inputs[:place], inputs[place] + FIELD, *inputs[place + 1 :]]
        with pytest.raises(ProofError, match="not a number of the field"):
            SYSTEM.verify(mean_keys.verifying, shifted, proof)
    with pytest.raises(ProofError, match="not a number of the field"):
        SYSTEM.verify(mean_keys.verifying, [*inputs[:-1], -1], proof)
    with pytest.raises(ProofError, match="public inputs"):
        SYSTEM.verify(mean_keys.verifying, [*inputs, 0], proof)
    point = curve.g1()
    assert curve.multiscalar_mul_g1([point], [5]) == curve.multiscalar_mul_g1([point], [5 + FIELD])


def outside_g2() -> bytes:
    """A point of the curve of G2 that is not in its subgroup, compressed."""
    for x in range(1, 100):
        y = fq2_root(ecc.FQ2([x, 0]) ** 3 + ecc.b2)
        if y is not None and ecc.multiply((ecc.FQ2([x, 0]), y, ecc.FQ2.one()), ecc.curve_order)[2] != ecc.FQ2.zero():
            return x.to_bytes(32, "little") + bytes(32)
    raise AssertionError("nine in ten points are outside")


IDENTITY = bytes(31) + b"\x40"


@pytest.mark.parametrize(
    ("begin", "put"),
    [
        (0, IDENTITY),
        (32, bytes(32) + IDENTITY),
        (96, IDENTITY),
        (0, b"\5" + IDENTITY[1:]),
        (32, outside_g2()),
        (0, (4).to_bytes(32, "little")),
        (0, (1 + ecc.field_modulus).to_bytes(32, "little")),
        (96, b"\xff" * 32),
    ],
    ids=["A zero", "B zero", "C zero", "zero with an x", "B outside", "A off the curve", "A shifted", "flags"],
)
def test_a_bad_point_is_refused(begin: int, put: bytes, mean_keys: Keys, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    with pytest.raises(ProofError, match="the proof's point"):
        SYSTEM.verify(mean_keys.verifying, inputs, proof[:begin] + put + proof[begin + len(put) :])


@pytest.mark.parametrize("size", [0, 127, 129])
def test_a_proof_of_another_length_is_refused(size: int, mean_keys: Keys, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    with pytest.raises(ProofError, match="128 bytes"):
        SYSTEM.verify(mean_keys.verifying, inputs, (proof + b"\0")[:size])


def test_a_false_statement_has_no_proof_even_by_force(mean_keys: Keys) -> None:
    circuit = mean_keys.loaded.circuit
    batch = Committed(biased()[:8], 5)
    true = circuit.statement([batch], bytes(32))
    false = replace(true, sums=(true.sums[0] + 1, *true.sums[1:]))
    with pytest.raises(ProofError, match="not true of the batch"):
        SYSTEM.prove(mean_keys.loaded, false, [batch])
    forced = proof_of(mean_keys.loaded, circuit.assignment(false, [batch]))
    with pytest.raises(ProofError, match="does not show"):
        SYSTEM.verify(mean_keys.verifying, false.inputs(), forced)


def test_a_cell_out_of_range_has_no_proof_even_by_force(mean_keys: Keys) -> None:
    circuit = mean_keys.loaded.circuit
    cells = biased()[:8]
    cells[2, 1] = 11  # one above its column's levels; four bits hold it
    with pytest.raises(InputError, match="outside of its column's range"):
        circuit.statement([Committed(cells, 5)], bytes(32))
    # A cheat commits to it all the same: the commitment is read off the witness.
    sums = tuple(int(total) for total in cells.sum(axis=0))
    honest = circuit.statement([Committed(biased()[:8], 5)], bytes(32))
    builder = Evaluator()
    build(builder, circuit, replace(honest, sums=sums), [(5, cells)])
    rows = zip(*circuit.constraints().evaluate(builder.assignment), strict=True)
    hash_of_cheat = next(a for a, b, c in rows if c == honest.commitments[0] and a * b % FIELD != c)
    statement = replace(honest, commitments=(hash_of_cheat,), sums=sums)
    forging = Evaluator()
    build(forging, circuit, statement, [(5, cells)])
    broken = [a * b % FIELD != c for a, b, c in zip(*circuit.constraints().evaluate(forging.assignment), strict=True)]
    assert 0 < sum(broken) < 10, "all but the range is satisfied"
    with pytest.raises(ProofError, match="does not show"):
        SYSTEM.verify(mean_keys.verifying, statement.inputs(), proof_of(mean_keys.loaded, forging.assignment))


def test_proofs_of_the_same_statement_differ_and_can_be_made_of_each_other(mean_keys: Keys, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    batch = Committed(proved.batches[0][:8], int(proved.openings[0].salts[0], 16))
    statement = mean_keys.loaded.circuit.statement([batch], proved.envelope.claim.contexts()[0])
    assert SYSTEM.prove(mean_keys.loaded, statement, [batch]) != proof
    a, second = curve.PointG1.from_bytes(proof[:32]), curve.PointG2.from_bytes(proof[32:96])
    SYSTEM.verify(mean_keys.verifying, inputs, write(-a) + write(-second) + proof[96:])


def test_a_key_that_anybody_can_forge_under_is_refused(mean_keys: Keys, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    key = mean_keys.verifying
    for change in (
        {"delta": key.gamma},
        {"beta": key.delta},
        {"alpha": IDENTITY.hex()},
        {"gamma": (bytes(32) + IDENTITY).hex()},
        {"delta": outside_g2().hex()},
        {"ic": key.ic[:-1]},
        {"ic": (*key.ic[:-1], IDENTITY.hex())},
        {"ic": (*key.ic[:-1], key.ic[1])},
    ):
        with pytest.raises(ProofError, match="verifying key"):
            SYSTEM.verify(key.model_copy(update=change), inputs, proof)


def test_keys_of_another_set_up_verify_nothing(other_key: VerifyingKey, proved: Proved) -> None:
    inputs, proof = first_of(proved)
    with pytest.raises(ProofError, match="does not show"):
        SYSTEM.verify(other_key, inputs, proof)


def test_what_is_no_proving_key_is_refused(mean_keys: Keys) -> None:
    good = mean_keys.proving
    header_end = len(MAGIC) + 4
    points = header_end + int.from_bytes(good[len(MAGIC) : header_end])
    for bad in (
        b"",
        b"x" * 1_000,
        good[:-1],
        good + b"\0",
        MAGIC + b"\xff" * 100,
        good[:header_end] + b"!" + good[header_end + 1 :],
        good[:points] + IDENTITY + good[points + 32 :],
        good[:points] + (4).to_bytes(32, "little") + good[points + 32 :],
    ):
        with pytest.raises(ProofError):
            SYSTEM.load(bad)


def test_changed_records_are_counted_by_the_proof(changed_keys: Keys, proved_changed: Proved) -> None:
    inputs, proof = first_of(proved_changed)
    SYSTEM.verify(changed_keys.verifying, inputs, proof)
    assert inputs[-1] == 1
    tasks, _ = plan(changed_claim(changed=0), (biased(), biased()))
    assert [task.statement.sums for task in tasks] == [(0,)] * 3
    assert np.array_equal(tasks[0].batches[0].cells, tasks[0].batches[1].cells)
