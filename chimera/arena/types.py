"""What evidence is made of: verdicts, samples, headers and blocks. Frozen, keyword-only, one canonical form each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from chimera.arena.canonical import MAX_INT, Plain
from chimera.core.types import Frozen

MAX_TEXT_CHARS = 65_536
"""Characters in a prompt or a response."""

MAX_BLOCK_SAMPLES = 1_024

MAX_BLOCK_BYTES = 16_000_000
"""Canonical bytes of one block."""

EnvId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}-v[0-9]{1,4}$")]
"""An environment's name and version, as in `mult8-v0`."""

ChallengeId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/\-]{0,191}$")]
"""The public name of one challenge; everything about it follows from this and the environment's id."""

MinerId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/=@,\-]{0,255}$")]
"""A miner: its hotkey on a subnet, or its address off one, such as `oracle:p=0.7`."""

Hotkey = Annotated[str, StringConstraints(pattern=r"^[1-9A-HJ-NP-Za-km-z]{46,50}$")]
"""A validator's public key, as an SS58 address."""

HexHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

HexSignature = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{128})?$")]
"""An sr25519 signature; empty in a header that has not been signed."""

Role = Literal["champion", "contender"]

Count = Annotated[int, Field(ge=0, le=MAX_INT, strict=True)]

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]


class Verdict(Frozen):
    """Whether a response solves its challenge, and if not, why: a fact that anyone can compute again."""

    ok: Annotated[bool, Field(strict=True)]
    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class Sample(Frozen):
    """One miner's response to one challenge. `info` is what a verifier needs, and never the answer."""

    env_id: EnvId
    challenge_id: ChallengeId
    miner_id: MinerId
    role: Role
    prompt: Text
    response: Text
    info: dict[str, Any]
    verdict: Verdict
    request_id: Annotated[str, StringConstraints(max_length=200)] | None = None
    elapsed_ms: Count

    def plain(self) -> dict[str, Plain]:
        """This sample as canonical bytes hold it."""
        return self.model_dump()


class BlockHeader(Frozen):
    """What a validator signs: which samples, and which block before. `timestamp` is in seconds since the epoch."""

    prev_hash: HexHash
    block_index: Count
    timestamp: Count
    validator_hotkey: Hotkey
    merkle_root: HexHash
    signature: HexSignature = ""


class Block(Frozen):
    """A header and its samples, in the order of the Merkle tree's leaves."""

    header: BlockHeader
    samples: Annotated[tuple[Sample, ...], Field(min_length=1, max_length=MAX_BLOCK_SAMPLES)]
