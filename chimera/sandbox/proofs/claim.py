"""What is claimed of a batch: exact arithmetic over what a proof shows, and plain words for what that means.

A circuit shows sums of lattice places, chunk by chunk. A claim is about the columns' own units; it is checked in
rational numbers, in which a float is exactly the fraction that it stands for, so nothing is rounded anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, FiniteFloat, model_validator

from chimera.core.errors import ProofError
from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen
from chimera.sandbox.proofs.circuit import MAX_CELLS, Circuit, Kind
from chimera.sandbox.schema import MAX_COLUMNS, Schema

MAX_ROWS = 1_000_000

MAX_CHUNKS = 4_096

CLAIM_TAG = "chimera/sandbox/claim/v1"

CONTEXT_TAG = b"chimera/sandbox/context/v1\0"

Rows: TypeAlias = Annotated[int, Field(ge=1, le=MAX_ROWS)]

Vector: TypeAlias = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=MAX_COLUMNS)]


class _Claim(Frozen):
    """What every claim has. `about` is what the caller wants bound too: a threat's kind, its strength, an epsilon."""

    version: Literal[1] = 1
    records: Schema
    rows: Rows
    chunk_rows: Annotated[int, Field(ge=1, le=MAX_CELLS)]
    about: Annotated[
        dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=1_000)]], Field(max_length=64)
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_too_long(self) -> Self:
        if -(-self.rows // self.chunk_rows) > MAX_CHUNKS:
            raise ValueError(f"{self.rows} records in chunks of {self.chunk_rows} are more than {MAX_CHUNKS} chunks")
        return self

    def digest(self) -> bytes:
        """SHA-256 of the claim's canonical JSON. Each proof is bound to it, so none is one of another claim."""
        told = canonical_json(self.model_dump(mode="json"))
        return hashlib.sha256(f"{CLAIM_TAG}\0{told}".encode()).digest()

    def counts(self) -> tuple[int, ...]:
        """How many records each chunk has: only the last may have fewer than `chunk_rows`."""
        return tuple(min(self.chunk_rows, self.rows - begin) for begin in range(0, self.rows, self.chunk_rows))

    def contexts(self) -> tuple[bytes, ...]:
        """What each chunk's proof is bound to: the claim, and the chunk's place in the batch."""
        digest = self.digest()
        return tuple(
            hashlib.sha256(CONTEXT_TAG + digest + place.to_bytes(8)).digest() for place in range(len(self.counts()))
        )

    def _circuit(self, kind: Kind) -> Circuit:
        return Circuit(kind=kind, rows=self.chunk_rows, levels=tuple(int(level) for level in self.records.levels))


class MeanClaim(_Claim):
    """The mean of each column is `reference` plus `bias`, give or take `tolerance`: all in the columns' own units."""

    kind: Literal["mean"] = "mean"
    reference: Vector
    bias: Vector
    tolerance: Annotated[tuple[Annotated[FiniteFloat, Field(ge=0)], ...], Field(min_length=1, max_length=MAX_COLUMNS)]

    @model_validator(mode="after")
    def _one_a_column(self) -> Self:
        for name, vector in (("reference", self.reference), ("bias", self.bias), ("tolerance", self.tolerance)):
            if len(vector) != len(self.records):
                raise ValueError(f"{name} has {len(vector)} numbers for {len(self.records)} columns")
        return self

    @property
    def circuit(self) -> Circuit:
        """The one that this claim's keys have to be made for."""
        return self._circuit("mean")

    def check(self, sums: Sequence[int]) -> None:
        """Whether columns that sum to this are as claimed. Raises ProofError, which names the first that is not."""
        given = zip(self.records.columns, sums, self.reference, self.bias, self.tolerance, strict=True)
        for column, total, reference, bias, tolerance in given:
            low, high = Fraction(column.low), Fraction(column.high)
            mean = low + (high - low) * total / (column.levels * self.rows)
            if abs(mean - Fraction(reference) - Fraction(bias)) > Fraction(tolerance):
                raise ProofError(
                    f"column {column.name!r} has the mean {float(mean):.6g}; claimed is"
                    f" {reference:.6g} + {bias:.6g} give or take {tolerance:.6g}"
                )


class ChangedClaim(_Claim):
    """Exactly `changed` of the records differ between an original batch and this one, record by record."""

    kind: Literal["changed"] = "changed"
    changed: Annotated[int, Field(ge=0, le=MAX_ROWS)]

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.changed > self.rows:
            raise ValueError(f"{self.changed} of {self.rows} records cannot have been changed")
        return self

    @property
    def circuit(self) -> Circuit:
        return self._circuit("changed")

    def check(self, sums: Sequence[int]) -> None:
        (changed,) = sums
        if changed != self.changed:
            raise ProofError(f"{changed} records were changed; claimed are {self.changed}")


Claim: TypeAlias = Annotated[MeanClaim | ChangedClaim, Field(discriminator="kind")]


def what_is_proved(claim: MeanClaim | ChangedClaim) -> tuple[str, ...]:
    """Plain sentences for what a verified envelope with this claim shows."""
    lines = [
        f"Whoever made the proofs knew {claim.rows} records of {len(claim.records)} columns that the commitments bind.",
        "Each of their cells is on its column's lattice and within its column's range.",
    ]
    if isinstance(claim, ChangedClaim):
        share = f"{claim.changed / claim.rows:.2%}"
        lines.append(
            f"Exactly {claim.changed} of the {claim.rows} records ({share}) differ from the committed original."
        )
    else:
        given = zip(claim.records.columns, claim.reference, claim.bias, claim.tolerance, strict=True)
        lines += [
            f"The mean of {column.name!r} is {reference:.6g} with a bias of {bias:.6g}, give or take {tolerance:.6g}."
            for column, reference, bias, tolerance in given
        ]
    return (*lines, "The proofs are bound to this claim and to all that it says it is about; they fit no other.")


def what_is_not(claim: MeanClaim | ChangedClaim) -> tuple[str, ...]:
    """Plain sentences for what nobody should read into it."""
    chunks = len(claim.counts())
    shown = (
        "how many records of each chunk were changed" if isinstance(claim, ChangedClaim) else "each chunk's column sums"
    )
    lines = [
        "Not that a generator made the records, nor which one: anybody who has such records can prove this.",
        "Not that the data is real, useful or private, nor what the claim says it is about: that is only bound to it.",
        "Not that data somebody hands over is the committed batch: that takes the opening, cells and salts.",
        "Nothing about the classes of the records: labels are not committed.",
        f"Nothing hides {shown}: there are {chunks}, and each is public.",
        "Not to whoever ran the set-up, who could have kept its secrets and can then forge any proof.",
        "Nobody has audited the circuits or the library: research-grade.",
    ]
    if isinstance(claim, MeanClaim):
        lines.insert(2, "Not that the reference means are those of any data: they are part of the claim.")
    else:
        lines.insert(2, "Not that the committed original is any data that you know, unless you were given its opening.")
    return tuple(lines)
