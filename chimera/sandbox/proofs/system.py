"""The port to a proof system: set up a circuit, prove a statement about committed batches, verify it.

A proof here is succinct and zero-knowledge: it shows nothing but that the prover knew batches which the statement is
true of. Its bytes are never an identity: whoever sees a proof can make others of the same statement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias, TypeVar

from pydantic import Field

from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen
from chimera.sandbox.proofs.circuit import Circuit, Committed, Statement

NOTICE: Literal["research-grade, unaudited"] = "research-grade, unaudited"
"""Stands in every file and on every screen that shows a proof or a key."""

MAX_PUBLIC = 1_100

Hex32: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""32 bytes: a point of G1, a number of the field, a digest."""

Hex64: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class VerifyingKey(Frozen):
    """What a proof is verified by: small and public. It is worth as much as whoever ran the set-up is trusted.

    `proving_key_sha256` names the file that proofs are made with. `alpha`, `beta`, `gamma`, `delta` and `ic` are as in
    Groth's paper, each a compressed point in hex.
    """

    version: Literal[1] = 1
    system: Literal["groth16-bn254"] = "groth16-bn254"
    notice: Literal["research-grade, unaudited"] = NOTICE
    made_by: Annotated[str, Field(min_length=1, max_length=200)]
    circuit: Circuit
    proving_key_sha256: Hex32
    alpha: Hex32
    beta: Hex64
    gamma: Hex64
    delta: Hex64
    ic: Annotated[tuple[Hex32, ...], Field(max_length=MAX_PUBLIC)]

    @property
    def id(self) -> str:
        """Of all its fields, in hex: who made it and for what belongs to a key."""
        told = canonical_json(self.model_dump(mode="json"))
        return hashlib.sha256(f"chimera/sandbox/verifying-key/v1\0{told}".encode()).hexdigest()


ProvingKey = TypeVar("ProvingKey")


class ProofSystem(Protocol[ProvingKey]):
    """Keys are made for one circuit. A proving key is kept as bytes, and loaded once for many proofs."""

    def set_up(self, circuit: Circuit, *, made_by: str) -> tuple[bytes, VerifyingKey]:
        """New keys. Who runs this could keep what is drawn here, and forge: it is for the verifier or an auditor."""
        ...

    def load(self, proving_key: bytes) -> ProvingKey:
        """Raises ProofError for what is no proving key."""
        ...

    def prove(self, key: ProvingKey, statement: Statement, batches: Sequence[Committed]) -> bytes:
        """Raises ProofError where the statement is not true of the batches, InputError where they do not fit."""
        ...

    def verify(self, key: VerifyingKey, inputs: Sequence[int], proof: bytes) -> None:
        """Raises ProofError unless `proof` shows a statement with these public inputs."""
        ...


def open_system(name: Literal["groth16-bn254"] = "groth16-bn254") -> ProofSystem[Any]:
    """The proof system of a key. Raises MissingExtra without zksnake."""
    from chimera.sandbox.proofs.groth16 import Groth16

    systems: dict[str, type[ProofSystem[Any]]] = {"groth16-bn254": Groth16}
    return systems[name]()
