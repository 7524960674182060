"""Evidence made for tests: honest pairs in real environments, sealed into chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bittensor_core import Keypair

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.registry import environment
from chimera.arena.types import Block, Role, Sample, Verdict
from chimera.arena.validators.blocks import GENESIS_HASH, block_hash, seal
from chimera.arena.validators.challenges import own_id

ALICE, BOB = Keypair.create_from_uri("//Alice"), Keypair.create_from_uri("//Bob")

START = 1_800_000_000


def sample(challenge_id: str = "seed:1", role: Role = "champion", **changes: Any) -> Sample:
    """A small sample of no environment that exists."""
    fields: dict[str, Any] = {
        "env_id": "coin-v0",
        "challenge_id": challenge_id,
        "miner_id": "old" if role == "champion" else "new",
        "role": role,
        "prompt": "heads or tails?",
        "response": "heads é",
        "info": {"challenge_id": challenge_id, "sides": 2},
        "verdict": Verdict(ok=role == "contender", reason="" if role == "contender" else "it was tails"),
        "elapsed_ms": 5,
    }
    return Sample(**{**fields, **changes})


def pair(challenge_id: str = "seed:1", **changes: Any) -> list[Sample]:
    """Two small samples of no environment that exists."""
    return [sample(challenge_id, role, **changes) for role in ("champion", "contender")]


def played(challenge_id: str, role: Role, *, env_id: str = "mult8-v0", miner_id: str, right: bool) -> Sample:
    """An honest sample of a real environment. A miner that is not right says nothing."""
    kind = environment(env_id)
    challenge = rules.deal(kind.rules, challenge_id)
    info, prompt, replies = rules.info_of(challenge, challenge_id), challenge.prompt(), []
    while challenge.verdict is None:
        replies.append(challenge.gold() if right else "")
        challenge.reply(replies[-1])
    return Sample(
        env_id=env_id,
        challenge_id=challenge_id,
        miner_id=miner_id,
        role=role,
        prompt=prompt,
        response=rules.response_of(kind.rules, replies),
        info=info,
        verdict=challenge.verdict,
        elapsed_ms=3,
    )


def duelled(
    challenge_id: str, *, env_id: str = "mult8-v0", champion: str = "old", contender: str = "new"
) -> list[Sample]:
    """An honest pair that the contender wins."""
    return [
        played(challenge_id, "champion", env_id=env_id, miner_id=champion, right=False),
        played(challenge_id, "contender", env_id=env_id, miner_id=contender, right=True),
    ]


def own_pairs(signer: Keypair, first: int, count: int, *, env_id: str = "mult8-v0") -> list[Sample]:
    """Honest pairs on a validator's own challenges `first`, `first + 1`, ..."""
    ids = [own_id(signer.ss58_address, counter) for counter in range(first, first + count)]
    return [each for challenge_id in ids for each in duelled(challenge_id, env_id=env_id)]


def chained(signer: Keypair, parts: Sequence[Sequence[Sample]], *, start: int = START) -> list[Block]:
    """A chain with one block for each of `parts`, a minute apart, from `start`."""
    blocks: list[Block] = []
    for index, samples in enumerate(parts):
        prev_hash = block_hash(blocks[-1].header) if blocks else GENESIS_HASH
        blocks.append(seal(samples, prev_hash=prev_hash, index=index, timestamp=start + 60 * index, signer=signer))
    return blocks
