"""A batch in chunks: what has to be proved of each, its proof, and the envelope of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chimera.core.errors import InputError, ProofError
from chimera.sandbox.proofs.circuit import Committed, Statement, fresh_salt
from chimera.sandbox.proofs.claim import ChangedClaim, MeanClaim
from chimera.sandbox.proofs.envelope import Chunk, Envelope, Opening, opening, split
from chimera.sandbox.proofs.system import ProofSystem, ProvingKey, VerifyingKey, open_system
from chimera.sandbox.schema import Integers


@dataclass(frozen=True, slots=True)
class Task:
    """A chunk that is to be proved. It holds the chunk's cells and salts."""

    statement: Statement
    batches: tuple[Committed, ...]


def plan(
    claim: MeanClaim | ChangedClaim, batches: Sequence[Integers], *, salts: Sequence[Sequence[int]] = ()
) -> tuple[tuple[Task, ...], tuple[Opening, ...]]:
    """The tasks of a claim about these batches, in order, and the opening of each batch.

    `batches` are lattice places (rows, columns), as `Schema.index` gives them: one for a mean, the original and the
    changed one for changes. `salts`, one for each chunk of each batch, are drawn if there are none; the same ones give
    a batch the same commitment in two envelopes with the same `chunk_rows`. Raises ProofError where the claim is not
    true, InputError where the batches do not fit it.
    """
    circuit, counts = claim.circuit, claim.counts()
    if len(batches) != circuit.batches or any(cells.shape != (claim.rows, len(claim.records)) for cells in batches):
        shapes = ", ".join(str(cells.shape) for cells in batches)
        raise InputError(
            f"the claim is about {circuit.batches} batches of {claim.rows} records of {len(claim.records)} columns,"
            f" not {shapes or 'none'}"
        )
    salts = salts or [[fresh_salt() for _ in counts] for _ in batches]
    if [len(drawn) for drawn in salts] != [len(counts)] * len(batches):
        raise InputError(f"each of {len(batches)} batches takes {len(counts)} salts, one a chunk")
    parts = [
        [Committed(part, salt) for part, salt in zip(split(cells, counts), drawn, strict=True)]
        for cells, drawn in zip(batches, salts, strict=True)
    ]
    sums = [circuit.sums(chunk) for chunk in zip(*parts, strict=True)]
    claim.check([sum(totals) for totals in zip(*sums, strict=True)])
    tasks = tuple(
        Task(circuit.statement(chunk, context), chunk)
        for chunk, context in zip(zip(*parts, strict=True), claim.contexts(), strict=True)
    )
    return tasks, tuple(
        opening(cells, drawn, place=place) for place, (cells, drawn) in enumerate(zip(batches, salts, strict=True))
    )


def prove_task(system: ProofSystem[ProvingKey], key: ProvingKey, task: Task) -> Chunk:
    """The chunk with its proof."""
    return Chunk(
        commitments=tuple(f"{commitment:064x}" for commitment in task.statement.commitments),
        sums=task.statement.sums,
        proof=system.prove(key, task.statement, task.batches).hex(),
    )


def verify(envelope: Envelope, key: VerifyingKey) -> None:
    """Whether an envelope's claim holds for its commitments, under the caller's own key.

    The key must come from somebody whom the caller trusts, and not with the batch. Needs neither data nor torch.
    Raises ProofError, which says what does not hold. What it means that this returns: `what_is_proved`, `what_is_not`.
    """
    claim, chunks = envelope.claim, envelope.chunks
    if envelope.key_id != key.id:
        raise ProofError(f"the proofs were made for the key {envelope.key_id[:16]}..., and yours is {key.id[:16]}...")
    if key.circuit != claim.circuit:
        raise ProofError("the verifying key was made for another circuit than the claim's")
    if len(chunks) != len(claim.counts()):
        raise ProofError(f"{claim.rows} records are {len(claim.counts())} chunks, and there are {len(chunks)}")
    if any(len(chunk.commitments) != claim.circuit.batches for chunk in chunks):
        raise ProofError(f"a chunk has not {claim.circuit.batches} commitments")
    if len({chunk.commitments for chunk in chunks}) != len(chunks):
        raise ProofError("two chunks have the same commitment: one was copied")
    if any(len(chunk.sums) != key.circuit.public - key.circuit.batches - 3 for chunk in chunks):
        raise ProofError("a chunk's sums are not one for each column")
    claim.check([sum(totals) for totals in zip(*(chunk.sums for chunk in chunks), strict=True)])
    system = open_system(key.system)
    for number, (chunk, context, count) in enumerate(zip(chunks, claim.contexts(), claim.counts(), strict=True)):
        commitments = tuple(int(commitment, 16) for commitment in chunk.commitments)
        statement = Statement(commitments, context, count, chunk.sums)
        try:
            system.verify(key, statement.inputs(), bytes.fromhex(chunk.proof))
        except ProofError as error:
            raise ProofError(f"chunk {number}: {error}") from None
