"""Batches of threats from a trained model: the data, what is claimed of it, and what it has cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from chimera.sandbox.model import Model, say_epsilon
from chimera.sandbox.privacy.moments import Moments
from chimera.sandbox.proofs.batch import plan
from chimera.sandbox.proofs.circuit import rows_per_chunk
from chimera.sandbox.proofs.claim import ChangedClaim, MeanClaim
from chimera.sandbox.proofs.envelope import Envelope, Opening, batch_commitment
from chimera.sandbox.schema import Integers, Table
from chimera.sandbox.threats import (
    BatchDetector,
    Reference,
    ThreatKind,
    Threats,
    make_threats,
    make_window_threats,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ThreatBatch:
    """Threats, and what can be said of them. `data`, `places` and `openings` show the records; the rest does not."""

    data: Table
    kind: ThreatKind
    strength: float
    claim: MeanClaim | ChangedClaim
    commitment: str
    """Hex; of the salted records, so it says nothing of them."""
    proof: Envelope | None = None
    """That the committed records are as claimed. None where nobody has proved it yet."""
    epsilon: float
    """What the model has cost, at `delta`; infinite where a detector was asked that nobody has counted."""
    delta: float
    provenance: dict[str, str] = field(default_factory=dict)
    places: tuple[Integers, ...]
    """The batches that the claim is about, as places on the lattice: these records, or those before and these."""
    openings: tuple[Opening, ...]
    """Salts and places, by which whoever is given the data can check the commitment."""


def generate_threats(
    model: Model,
    n: int,
    kind: ThreatKind,
    strength: float,
    *,
    rng: np.random.Generator,
    detector: BatchDetector | None = None,
    public_detector: bool = False,
    windows: bool = False,
) -> ThreatBatch:
    """`n` records of that kind and strength (see `chimera.sandbox.threats`), claimed and committed to, not yet proved.

    What is claimed of biased, drifted and evasive ones is their columns' means, against those that the model's moments
    say; of poisoned ones, how many records were changed. `windows`: each record is a window of one metric.

    Evasive threats follow what `detector` says. Unless it is a `public_detector`, one that was fitted to no records but
    public or released ones, nobody has counted what it says of them: the batch's epsilon is infinite then. Raises
    InputError where it cannot be made.
    """
    reference = reference_of(model.moments)
    make = make_window_threats if windows else make_threats
    threats = make(model.sample, n, kind, strength, reference=reference, rng=rng, detector=detector)
    counted = detector is None or kind is not ThreatKind.EVASIVE or public_detector
    epsilon = model.privacy.epsilon if counted else math.inf
    about = {
        "threat": kind.value,
        "strength": repr(strength),
        "privacy": say_epsilon(epsilon, model.privacy.delta),
        "model": model.digest(),
    }
    claim, places = _claimed(threats, about)
    tasks, openings = plan(claim, places)
    return ThreatBatch(
        data=threats.table,
        kind=kind,
        strength=strength,
        claim=claim,
        commitment=batch_commitment(claim, [task.statement.commitments for task in tasks]),
        epsilon=epsilon,
        delta=model.privacy.delta,
        provenance=about,
        places=places,
        openings=openings,
    )


def reference_of(moments: Moments) -> Reference:
    """Means and standard deviations of all classes together, in the columns' units, as they were released."""
    shares = (moments.counts / moments.counts.sum())[:, None]
    means = (shares * moments.means).sum(axis=0)
    within = np.diagonal(moments.covariances, axis1=1, axis2=2)
    variances = (shares * (within + (moments.means - means) ** 2)).sum(axis=0)
    schema = moments.schema
    return Reference(schema.low + (means + 1.0) / 2.0 * schema.span, np.sqrt(variances) / 2.0 * schema.span)


def _claimed(threats: Threats, about: dict[str, str]) -> tuple[MeanClaim | ChangedClaim, tuple[Integers, ...]]:
    table, n = threats.table, len(threats.table)
    places = table.schema.index(table.values)
    if threats.kind is ThreatKind.POISONED:
        before = table.schema.index(threats.before.values)
        rows = min(n, rows_per_chunk("changed", table.schema))
        changed = int((before != places).any(axis=1).sum())
        return ChangedClaim(records=table.schema, rows=n, chunk_rows=rows, changed=changed, about=about), (
            before,
            places,
        )
    claim = MeanClaim(
        records=table.schema,
        rows=n,
        chunk_rows=min(n, rows_per_chunk("mean", table.schema)),
        reference=tuple((table.values.mean(axis=0) - threats.bias).tolist()),
        bias=tuple(threats.bias.tolist()),
        tolerance=tuple((table.schema.grain / n).tolist()),
        about=about,
    )
    return claim, (places,)
