"""One sample's proof: that a validator signed a block which holds it, shown without the block's other samples."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from chimera.arena import merkle
from chimera.arena.canonical import encode
from chimera.arena.types import MAX_BLOCK_BYTES, MAX_BLOCK_SAMPLES, Block, BlockHeader, HexHash, Sample
from chimera.arena.validators.blocks import check_signature
from chimera.core.errors import EvidenceError, InputError
from chimera.core.types import Frozen


class Proof(Frozen):
    """`path` are the hashes beside the way from the sample to the header's Merkle root, lowest first.

    `number` is the sample's place among `size`, from 0. Only the header is signed: both help to find the root, and
    prove nothing themselves.
    """

    header: BlockHeader
    sample: Sample
    number: Annotated[int, Field(ge=0, lt=MAX_BLOCK_SAMPLES, strict=True)]
    size: Annotated[int, Field(ge=1, le=MAX_BLOCK_SAMPLES, strict=True)]
    path: Annotated[tuple[HexHash, ...], Field(max_length=16)]


def prove(block: Block, number: int) -> Proof:
    """The proof of a sample of a block. Raises InputError when it has no such sample."""
    leaves = [encode(sample.plain()) for sample in block.samples]
    if not 0 <= number < len(leaves):
        raise InputError(f"the block has samples 0 to {len(leaves) - 1}, and no {number}")
    path = tuple(step.hex() for step in merkle.inclusion_proof(leaves, number))
    return Proof(header=block.header, sample=block.samples[number], number=number, size=len(leaves), path=path)


def read_proof(data: bytes) -> Proof:
    """The proof that this JSON holds, not yet believed. Raises EvidenceError: `limit`, `schema`."""
    if len(data) > MAX_BLOCK_BYTES:
        raise EvidenceError(f"a proof has at most {MAX_BLOCK_BYTES} bytes", "limit")
    try:
        return Proof.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise EvidenceError(f"this is not a proof: {where:.200}: {first['msg']:.200}", "schema") from None


def check_proof(proof: Proof) -> None:
    """Raises EvidenceError unless the header is signed (`signature`) and its root is over the sample (`merkle`)."""
    check_signature(proof.header)
    path, root = [bytes.fromhex(step) for step in proof.path], bytes.fromhex(proof.header.merkle_root)
    if not merkle.verify_inclusion(encode(proof.sample.plain()), proof.number, proof.size, path, root):
        raise EvidenceError("the path does not lead from the sample to the header's Merkle root", "merkle")
