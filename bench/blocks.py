"""Evidence: block headers signed and verified a second, beside bare sr25519; and what a sample costs in a block.

    python -m bench.blocks [--headers 2000] [--samples 256] [--rounds 5] [--json]

One process, one core. Headers are of blocks that hold one pair. A ratio is the median over rounds, each against the
bare signatures of the same round; other figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from bittensor_core import Keypair

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.registry import environment
from chimera.arena.types import Block, BlockHeader, Role, Sample
from chimera.arena.validators.audit import audit_chain
from chimera.arena.validators.blocks import (
    GENESIS_HASH,
    SIGNING_PREFIX,
    block_hash,
    check_block,
    check_link,
    encode_block,
    read_block,
    seal,
    unsigned_bytes,
)
from chimera.arena.validators.challenges import own_id

SIGNER = Keypair.create_from_uri("//Bench")


def answered(env_id: str, challenge_id: str, role: Role) -> Sample:
    """A perfect player's sample."""
    kind = environment(env_id)
    challenge = rules.deal(kind.rules, challenge_id)
    info, prompt, replies = rules.info_of(challenge, challenge_id), challenge.prompt(), []
    while challenge.verdict is None:
        replies.append(challenge.gold())
        challenge.reply(replies[-1])
    return Sample(
        env_id=env_id,
        challenge_id=challenge_id,
        miner_id=f"oracle:{role}",
        role=role,
        prompt=prompt,
        response=rules.response_of(kind.rules, replies),
        info=info,
        verdict=challenge.verdict,
        elapsed_ms=12,
    )


def pairs(env_id: str, count: int) -> list[Sample]:
    ids = [own_id(SIGNER.ss58_address, counter) for counter in range(count)]
    roles: tuple[Role, Role] = ("champion", "contender")
    return [answered(env_id, challenge_id, role) for challenge_id in ids for role in roles]


def per_s(count: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def chain_of(samples: list[Sample], count: int) -> list[Block]:
    """Blocks that all hold the same samples, each linked to the one before."""
    blocks: list[Block] = []
    previous = GENESIS_HASH
    for index in range(count):
        blocks.append(seal(samples, prev_hash=previous, index=index, timestamp=index, signer=SIGNER))
        previous = block_hash(blocks[-1].header)
    return blocks


def check_all(blocks: list[Block]) -> None:
    previous: BlockHeader | None = None
    for block in blocks:
        check_block(block)
        check_link(previous, block.header)
        previous = block.header


def bare(message: bytes, count: int) -> None:
    """What any signed header costs at the least."""
    for _ in range(count):
        if not Keypair(ss58_address=SIGNER.ss58_address).verify(message, SIGNER.sign(message)):
            raise AssertionError("a signature of our own does not verify")


def headers_round(headers: int) -> dict[str, float]:
    """Headers a second: signed, verified, both; and signatures alone, made and verified."""
    samples = pairs("mult8-v0", 1)
    blocks: list[Block] = []
    signed = per_s(headers, lambda: blocks.extend(chain_of(samples, headers)))
    verified = per_s(headers, lambda: check_all(blocks))
    both = 1 / (1 / signed + 1 / verified)
    message = SIGNING_PREFIX + unsigned_bytes(blocks[0].header)
    alone = per_s(headers, lambda: bare(message, headers))
    return {"signed": signed, "verified": verified, "both": both, "bare": alone, "ratio": both / alone}


def samples_round(env_id: str, count: int) -> dict[str, float]:
    """Samples a second in one block: sealed and written; read and checked; audited, verdicts and all."""
    samples = pairs(env_id, count // 2)
    sealed: list[bytes] = []
    written = per_s(count, lambda: sealed.append(encode_block(chain_of(samples, 1)[0])))
    read = per_s(count, lambda: read_block(sealed[0]))

    def audit() -> None:
        if not audit_chain(sealed, SIGNER.ss58_address).ok:
            raise AssertionError("an honest block has a fault")

    audited = per_s(count, audit)
    return {"sealed": written, "read": read, "audited": audited, "ratio": audited / read}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=int, default=2_000)
    parser.add_argument("--samples", type=int, default=256, help="in one block, an even number up to 1024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    headers = medians([headers_round(options.headers) for _ in range(options.rounds)])
    env_ids = ("mult8-v0", "tictactoe-v0")
    samples = {
        env_id: medians([samples_round(env_id, options.samples) for _ in range(options.rounds)]) for env_id in env_ids
    }
    if options.json:
        print(json.dumps({"headers": headers, "samples": samples}))
        return
    print("headers/s   signed  verified  signed and verified  bare sr25519  ratio")
    print(
        f"{headers['signed']:18.0f} {headers['verified']:9.0f} {headers['both']:20.0f}"
        f" {headers['bare']:13.0f} {headers['ratio']:6.2f}"
    )
    print("\nsamples/s in a block  sealed     read  audited  audited/read")
    for env_id, row in samples.items():
        print(f"{env_id:18} {row['sealed']:9.0f} {row['read']:8.0f} {row['audited']:8.0f} {row['ratio']:13.2f}")


if __name__ == "__main__":
    main()
