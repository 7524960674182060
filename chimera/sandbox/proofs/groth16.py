"""Groth16 over BN254: a proof is three points, verifying it four pairings, and each circuit needs a set-up.

Jens Groth: "On the Size of Pairing-Based Non-interactive Arguments", EUROCRYPT 2016 (eprint 2016/260), section 3.2.
Points, multi-scalar multiplications, FFTs and pairings are those of `zksnake`, a binding of arkworks. Set-up and prover
are written anew on them: a key with a point for each variable, and not for each power of tau, makes multiplications by
the bits of a witness nearly free.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from pydantic import ValidationError

from chimera.core.errors import ProofError
from chimera.sandbox.proofs.circuit import Circuit, Committed, Statement
from chimera.sandbox.proofs.points import G1, G1_BYTES, G2, G2_BYTES, curve, polynomials, read_g1, read_g2, write
from chimera.sandbox.proofs.poseidon import FIELD
from chimera.sandbox.proofs.r1cs import Constraints
from chimera.sandbox.proofs.system import VerifyingKey

PROOF_BYTES = 2 * G1_BYTES + G2_BYTES

MAGIC = b"chimera groth16-bn254 proving key 1\n"

GENERATOR = 5
"""Of the field's multiplicative group."""

MAX_HEADER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Loaded:
    """A proving key. `a` and `b1`, `b2` have a point for each variable that stands in A and in B, in their order."""

    circuit: Circuit
    alpha: G1
    beta1: G1
    beta2: G2
    delta1: G1
    delta2: G2
    a: list[G1]
    b1: list[G1]
    b2: list[G2]
    k: list[G1]
    h: list[G1]


class Groth16:
    """The `ProofSystem` of this module. It keeps nothing."""

    def set_up(self, circuit: Circuit, *, made_by: str) -> tuple[bytes, VerifyingKey]:
        constraints = circuit.constraints()
        tau, alpha, beta, gamma, delta = (1 + secrets.randbelow(FIELD - 1) for _ in range(5))  # forgotten on return
        size = _domain(constraints)
        left, right, out = _at(tau, constraints)
        combined = [(beta * x + alpha * y + z) % FIELD for x, y, z in zip(left, right, out, strict=True)]
        public, per_gamma, per_delta = constraints.public + 1, pow(gamma, -1, FIELD), pow(delta, -1, FIELD)
        z_per_delta = (pow(tau, size, FIELD) - 1) * per_delta
        in_right = [right[variable] for variable in constraints.in_b]
        alpha1, beta1, delta1 = map(write, _times_g1([alpha, beta, delta]))
        beta2, delta2, gamma2 = map(write, _times_g2([beta, delta, gamma]))
        header = circuit.model_dump_json().encode()
        proving = b"".join(
            [
                MAGIC,
                len(header).to_bytes(4),
                header,
                *(alpha1, beta1, delta1, beta2, delta2),
                *map(write, _times_g1([left[variable] for variable in constraints.in_a])),
                *map(write, _times_g1(in_right)),
                *map(write, _times_g2(in_right)),
                *map(write, _times_g1([value * per_delta % FIELD for value in combined[public:]])),
                *map(write, _times_g1([power * z_per_delta % FIELD for power in _powers(tau, size - 1)])),
            ]
        )
        inputs = _times_g1([value * per_gamma % FIELD for value in combined[:public]])
        verifying = VerifyingKey(
            made_by=made_by,
            circuit=circuit,
            proving_key_sha256=hashlib.sha256(proving).hexdigest(),
            alpha=alpha1.hex(),
            beta=beta2.hex(),
            gamma=gamma2.hex(),
            delta=delta2.hex(),
            ic=tuple(write(point).hex() for point in inputs),
        )
        return proving, verifying

    def load(self, proving_key: bytes) -> Loaded:
        header_end = len(MAGIC) + 4
        size = int.from_bytes(proving_key[len(MAGIC) : header_end])
        if not proving_key.startswith(MAGIC) or size > MAX_HEADER_BYTES:
            raise ProofError("this is not a proving key of groth16-bn254: ask whoever ran the set-up for the file")
        try:
            circuit = Circuit.model_validate_json(proving_key[header_end : header_end + size])
        except ValidationError as error:
            raise ProofError(f"the proving key names no circuit: {error.errors()[0]['msg']}") from None
        constraints = circuit.constraints()
        in_a, in_b = len(constraints.in_a), len(constraints.in_b)
        private = constraints.variables - constraints.public - 1
        groups1 = (in_a, in_b, private, _domain(constraints) - 1)
        if len(proving_key) != header_end + size + (3 + sum(groups1)) * G1_BYTES + (2 + in_b) * G2_BYTES:
            raise ProofError("the proving key is cut off, or was made for another circuit than it says")
        blocks = _Blocks(proving_key, header_end + size)
        alpha, beta1, delta1 = blocks.g1(3)
        beta2, delta2 = blocks.g2(2)
        a, b1, b2 = blocks.g1(in_a), blocks.g1(in_b), blocks.g2(in_b)
        k, h = blocks.g1(private), blocks.g1(groups1[3])
        return Loaded(circuit, alpha, beta1, beta2, delta1, delta2, a, b1, b2, k, h)

    def prove(self, key: Loaded, statement: Statement, batches: Sequence[Committed]) -> bytes:
        assignment = key.circuit.assignment(statement, batches)
        if not key.circuit.constraints().hold(assignment):
            raise ProofError("the statement is not true of the batch, so there is no proof of it")
        return proof_of(key, assignment)

    def verify(self, key: VerifyingKey, inputs: Sequence[int], proof: bytes) -> None:
        points = _points(key)
        if len(inputs) != len(points.ic) - 1:
            raise ProofError(f"{len(points.ic) - 1} public inputs belong to this key, not {len(inputs)}")
        if any(type(value) is not int or not 0 <= value < FIELD for value in inputs):
            raise ProofError(
                "a public input is not a number of the field: adding its order would be another name for it"
            )
        if len(proof) != PROOF_BYTES:
            raise ProofError(f"a proof has {PROOF_BYTES} bytes, not {len(proof)}")
        a = read_g1(proof[:G1_BYTES], "the proof's point A")
        b = read_g2(proof[G1_BYTES:-G1_BYTES], "the proof's point B")
        c = read_g1(proof[-G1_BYTES:], "the proof's point C")
        sum_of_inputs = curve.multiscalar_mul_g1(points.ic, [1, *inputs])
        left = [-a, points.alpha, sum_of_inputs, c]
        if curve.multi_pairing(left, [b, points.beta, points.gamma, points.delta]) != _ONE:
            raise ProofError("the proof does not show this statement under this key")


def proof_of(key: Loaded, assignment: Sequence[int]) -> bytes:
    """A proof of an assignment that satisfies the constraints; of any other, bytes that do not verify."""
    constraints = key.circuit.constraints()
    r, s = secrets.randbelow(FIELD), secrets.randbelow(FIELD)
    in_a = [assignment[variable] for variable in constraints.in_a]
    in_b = [assignment[variable] for variable in constraints.in_b]
    a = curve.multiscalar_mul_g1(key.a, in_a) + key.alpha + key.delta1 * r
    b1 = curve.multiscalar_mul_g1(key.b1, in_b) + key.beta1 + key.delta1 * s
    b2 = curve.multiscalar_mul_g2(key.b2, in_b) + key.beta2 + key.delta2 * s
    private = list(assignment[constraints.public + 1 :])
    c = curve.multiscalar_mul_g1(key.k, private) + curve.multiscalar_mul_g1(key.h, _quotient(constraints, assignment))
    c += a * s + b1 * r + key.delta1 * (-r * s % FIELD)
    return write(a) + write(b2) + write(c)


_ONE = curve.pairing(curve.g1() * 0, curve.g2())


@dataclass(frozen=True, slots=True)
class _Points:
    """Those of a verifying key."""

    alpha: G1
    beta: G2
    gamma: G2
    delta: G2
    ic: list[G1]


@lru_cache(maxsize=8)
def _points(key: VerifyingKey) -> _Points:
    if len(key.ic) != key.circuit.public + 1:
        raise ProofError(f"the verifying key has {len(key.ic)} input points, its circuit {key.circuit.public + 1}")
    if len({key.beta, key.gamma, key.delta}) != 3:
        raise ProofError(
            "the verifying key's beta, gamma and delta are not different: with such a key anybody can forge"
        )
    if len(set(key.ic)) != len(key.ic):
        raise ProofError("two input points of the verifying key are the same: inputs could be traded for each other")
    return _Points(
        read_g1(bytes.fromhex(key.alpha), "the verifying key's alpha"),
        read_g2(bytes.fromhex(key.beta), "the verifying key's beta"),
        read_g2(bytes.fromhex(key.gamma), "the verifying key's gamma"),
        read_g2(bytes.fromhex(key.delta), "the verifying key's delta"),
        [read_g1(bytes.fromhex(point), f"the verifying key's input point {i}") for i, point in enumerate(key.ic)],
    )


class _Blocks:
    """Reads points one after another."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def g1(self, count: int) -> list[G1]:
        return [read_g1(block, "the proving key") for block in self._take(count, G1_BYTES)]

    def g2(self, count: int) -> list[G2]:
        return [read_g2(block, "the proving key") for block in self._take(count, G2_BYTES)]

    def _take(self, count: int, size: int) -> Iterator[bytes]:
        begin, self._at = self._at, self._at + count * size
        return (self._data[at : at + size] for at in range(begin, self._at, size))


def _times_g1(scalars: list[int]) -> list[G1]:
    points: list[G1] = curve.batch_multi_scalar_g1([curve.g1()] * len(scalars), scalars)
    return points


def _times_g2(scalars: list[int]) -> list[G2]:
    points: list[G2] = curve.batch_multi_scalar_g2([curve.g2()] * len(scalars), scalars)
    return points


def _domain(constraints: Constraints) -> int:
    return 1 << (len(constraints) - 1).bit_length()


def _at(tau: int, constraints: Constraints) -> tuple[list[int], list[int], list[int]]:
    """Each variable's three polynomials, which interpolate its columns of A, B and C, at `tau`."""
    basis: list[int] = polynomials.evaluate_lagrange_coefficients(_domain(constraints), tau)
    left, right, out = ([0] * constraints.variables for _ in range(3))
    for values, rows in ((left, constraints.a), (right, constraints.b), (out, constraints.c)):
        for weight, row in zip(basis, rows, strict=False):  # the domain is larger
            for variable, coefficient in row:
                values[variable] = (values[variable] + coefficient * weight) % FIELD
    return left, right, out


def _quotient(constraints: Constraints, assignment: Sequence[int]) -> list[int]:
    """The coefficients of (A B - C) / Z, computed on a coset of the domain, where Z is one number and not zero.

    The coset is made here: that of `zksnake` is the domain itself, on which Z is zero.
    """
    size = _domain(constraints)
    shifts = _powers(GENERATOR, size)

    def on_coset(values: list[int]) -> list[int]:
        coefficients = polynomials.ifft(values + [0] * (size - len(values)), size)
        shifted: list[int] = polynomials.fft(_each(coefficients, shifts), size)
        return shifted

    a, b, c = map(on_coset, constraints.evaluate(assignment))
    per_z = pow(pow(GENERATOR, size, FIELD) - 1, -1, FIELD)
    quotient = [(x * y - z) * per_z % FIELD for x, y, z in zip(a, b, c, strict=True)]
    unshifts = _powers(pow(GENERATOR, -1, FIELD), size)
    return _each(polynomials.ifft(quotient, size), unshifts)[: size - 1]


def _powers(base: int, count: int) -> list[int]:
    return list(accumulate(range(count - 1), lambda power, _: power * base % FIELD, initial=1))


def _each(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [x * y % FIELD for x, y in zip(left, right, strict=True)]
