"""Wiring of threats and proofs: a batch and the keys of its reader in, the same batch with its proof out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.sandbox.batches import ThreatBatch
from chimera.sandbox.proofs.system import VerifyingKey
from chimera.system.proving import Progress, prove_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What proofs are made with. The set-up that made both was run by whoever is to be convinced."""

    proving: Path
    verifying: VerifyingKey


async def prove_threats(
    batch: ThreatBatch,
    keys: Keys,
    *,
    provers: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ThreatBatch:
    """The batch with a proof of its claim, in chunks as large as the keys are made for; it has new commitments.

    With `provers` the chunks are proved by so many actors on the Ray of `settings`. Raises InputError where the keys
    are for other batches, ProofError, ClusterError.
    """
    circuit, claim = keys.verifying.circuit, batch.claim
    if circuit.levels != claim.circuit.levels:
        raise InputError(
            "the keys are for batches of other columns than these: run `chimera sandbox set-up` with the model's schema"
        )
    if circuit.kind != claim.kind:
        raise InputError(
            f"the keys prove {circuit.kind!r}, and of {batch.kind} threats {claim.kind!r} is proved: "
            f"run `chimera sandbox set-up --kind {claim.kind}`"
        )
    claim = type(claim).model_validate({**claim.model_dump(), "chunk_rows": circuit.rows})
    envelope, openings = await prove_batch(
        claim,
        batch.places,
        proving_key=keys.proving,
        verifying_key=keys.verifying,
        provers=provers,
        settings=settings,
        progress=progress,
    )
    return replace(batch, claim=claim, commitment=envelope.commitment, proof=envelope, openings=openings)
