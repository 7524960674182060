"""What is sent with a batch: the claim, a commitment, sums and a proof for each chunk. No cell and no salt is in it.

Whoever is handed the data as well gets an opening, and sees by it that the data is what was committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from chimera.core.errors import InputError, ProofError
from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen
from chimera.sandbox.proofs.circuit import MAX_CELLS, Circuit, Committed
from chimera.sandbox.proofs.claim import MAX_CHUNKS, MAX_ROWS, ChangedClaim, Claim, MeanClaim
from chimera.sandbox.proofs.poseidon import FIELD
from chimera.sandbox.proofs.system import NOTICE, Hex32
from chimera.sandbox.schema import MAX_COLUMNS, MAX_LEVELS, Integers

MAX_ENVELOPE_BYTES = 64 << 20

Cell = Annotated[int, Field(ge=0, le=MAX_LEVELS)]


class Chunk(Frozen):
    """What is shown of a chunk. `commitments` are hex: of the batch, or of the original and the changed one.

    `sums` are the columns' sums of lattice places, or how many records were changed. `proof` is hex.
    """

    commitments: Annotated[tuple[Hex32, ...], Field(min_length=1, max_length=2)]
    sums: Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_CELLS * MAX_LEVELS)], ...], Field(max_length=MAX_COLUMNS)]
    proof: Annotated[str, Field(pattern=r"^[0-9a-f]{256}$")]


class Envelope(Frozen):
    """A claim and its proofs. `key_id` names the verifying key, which the reader has from somebody trusted."""

    version: Literal[1] = 1
    notice: Literal["research-grade, unaudited"] = NOTICE
    claim: Claim
    key_id: Hex32
    chunks: Annotated[tuple[Chunk, ...], Field(min_length=1, max_length=MAX_CHUNKS)]

    @property
    def commitment(self) -> str:
        """SHA-256 over the chunks' commitments, the circuit and the number of records, in hex."""
        commitments = [[int(commitment, 16) for commitment in chunk.commitments] for chunk in self.chunks]
        return batch_commitment(self.claim, commitments)

    @property
    def id(self) -> str:
        """Of the claim and the commitment, in hex. Not of the proofs: anybody can make others of the same statement."""
        bound = self.claim.digest() + bytes.fromhex(self.commitment)
        return hashlib.sha256(b"chimera/sandbox/envelope/v1\0" + bound).hexdigest()

    @classmethod
    def read(cls, data: bytes) -> Envelope:
        """The envelope in a file. Raises ProofError for one that is too large, or no envelope."""
        if len(data) > MAX_ENVELOPE_BYTES:
            raise ProofError(f"an envelope has at most {MAX_ENVELOPE_BYTES} bytes, not {len(data)}")
        try:
            json.loads(data, object_pairs_hook=_once)
            return cls.model_validate_json(data, strict=True)
        except (ValueError, RecursionError) as error:
            if not isinstance(error, ValidationError):
                raise ProofError(f"this is not an envelope: {str(error) or type(error).__name__}") from None
            first = error.errors()[0]
            raise ProofError(f"this is not an envelope: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def write(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


class Opening(Frozen):
    """A committed batch: its places on the lattice, record by record, and a salt for each chunk, in hex.

    Whoever has it knows the data. `place` is 0; of a claim that records were changed, 0 is the original and 1 the
    changed batch.
    """

    place: Annotated[int, Field(ge=0, le=1)] = 0
    cells: Annotated[tuple[tuple[Cell, ...], ...], Field(min_length=1, max_length=MAX_ROWS)]
    salts: Annotated[tuple[Hex32, ...], Field(min_length=1, max_length=MAX_CHUNKS)]


def _once(pairs: list[tuple[str, object]]) -> None:
    """Another reader might take the first of two members of one name, and we the last."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member stands in it twice")


def batch_commitment(claim: MeanClaim | ChangedClaim, commitments: Sequence[Sequence[int]]) -> str:
    """Of a whole batch, in hex: SHA-256 over those of its chunks, the circuit and the number of records."""
    circuit = claim.circuit
    told = canonical_json(
        {
            "chunks": [[f"{commitment:064x}" for commitment in chunk] for chunk in commitments],
            "levels": list(circuit.levels),
            "chunk_rows": circuit.rows,
            "rows": claim.rows,
        }
    )
    return hashlib.sha256(f"chimera/sandbox/batch/v1\0{told}".encode()).hexdigest()


def opening(cells: Integers, salts: Sequence[int], *, place: int = 0) -> Opening:
    """Of (rows, columns) places and one salt a chunk."""
    return Opening(place=place, cells=tuple(map(tuple, cells.tolist())), salts=tuple(f"{salt:064x}" for salt in salts))


def check_opening(envelope: Envelope, opened: Opening) -> None:
    """Whether an opening is that of the committed batch. Raises ProofError where it is not."""
    claim = envelope.claim
    circuit = claim.circuit
    if len({len(record) for record in opened.cells} | {len(claim.records)}) != 1 or len(opened.cells) != claim.rows:
        raise ProofError(f"the opening is not {claim.rows} records of {len(claim.records)} columns")
    if not len(opened.salts) == len(envelope.chunks) == len(claim.counts()):
        raise ProofError(f"the opening has {len(opened.salts)} salts for {len(envelope.chunks)} chunks")
    parts = split(np.array(opened.cells, np.int64), claim.counts())
    for number, (part, salt, chunk) in enumerate(zip(parts, opened.salts, envelope.chunks, strict=True)):
        if len(chunk.commitments) <= opened.place:
            raise ProofError(f"the envelope commits to no batch number {opened.place}")
        if f"{_commit(circuit, part, int(salt, 16)):064x}" != chunk.commitments[opened.place]:
            raise ProofError(f"chunk {number} of the data is not what was committed: the data or a salt was changed")


def split(cells: Integers, counts: Sequence[int]) -> list[Integers]:
    """The records of each chunk."""
    return np.split(cells, np.cumsum(counts)[:-1])


def _commit(circuit: Circuit, cells: Integers, salt: int) -> int:
    if salt >= FIELD:
        raise ProofError("a salt is not a number of the field")
    try:
        return circuit.commit(Committed(cells, salt))
    except InputError as error:
        raise ProofError(f"the opening cannot be a committed batch: {error}") from None
