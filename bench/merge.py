"""How fast the evidence of several validators is merged, and in how much memory.

    python -m bench.merge [--samples 1000000] [--validators 3] [--block 1000] [--json]

Each validator's chain is made as it is read, block by block, so that nothing but the merge itself can grow: honest
samples of `mult8-v0` between a champion and three contenders, a sixth of them shared. Every block is decoded, its
signature, link and Merkle root are checked, and every verdict is computed again. Making the chains is timed apart and
left out of the rate. `rss_MB` is the process's memory as a tenth of the samples after another is in.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bittensor_core import Keypair

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.mult8 import Mult8
from chimera.arena.types import MAX_BLOCK_SAMPLES, Role, Sample
from chimera.arena.validators.blocks import GENESIS_HASH, block_hash, encode_block, seal
from chimera.arena.validators.challenges import own_id, shared_id
from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.throne import Throne

SKILLS = {"champion": 0.5, "poor": 0.3, "equal": 0.5, "good": 0.8}

MARKS = 10


@dataclass
class Result:
    """What one run came to. Times are the process's CPU seconds; `rss_mb` has one reading for each tenth."""

    samples: int
    blocks: int = 0
    merge_s: float = 0.0
    making_s: float = 0.0
    samples_per_s: float = 0.0
    rss_before_mb: float = 0.0
    rss_mb: list[float] = field(default_factory=list)
    growth_mb: float = 0.0
    winner: str = ""
    trusted: int = 0
    merged: int = 0

    def read(self, samples: int) -> None:
        """A block of so many samples has been merged."""
        self.blocks += 1
        self.merged += samples
        while len(self.rss_mb) < self.merged * MARKS // self.samples:
            self.rss_mb.append(rss_mb())


def rss_mb() -> float:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def names(hotkey: str, pairs: int) -> Iterator[tuple[str, str]]:
    """Challenges in the order of the validators' rounds: a contender, and its challenge."""
    own, contenders, told = 0, [miner for miner in SKILLS if miner != "champion"], 0
    for round in range(1, pairs + 1):
        for contender in contenders:
            ids = [shared_id(round, f"{round:064x}", i) for i in range(16)]
            ids += [own_id(hotkey, own + i) for i in range(80)]
            own += 80
            for challenge_id in ids:
                if told == pairs:
                    return
                told += 1
                yield contender, challenge_id


def sample(challenge_id: str, miner: str, role: Role) -> Sample:
    """What the miner makes of a challenge, by its skill and the challenge's name."""
    play = rules.deal(Mult8, challenge_id)
    prompt, info = play.prompt(), rules.info_of(play, challenge_id)
    knows = random.Random(f"{miner} {challenge_id}").random() < SKILLS[miner]
    reply = play.gold() if knows else "0"
    play.reply(reply)
    if play.verdict is None:
        raise AssertionError("one reply ends it")
    return Sample(
        env_id=Mult8.env_id,
        challenge_id=challenge_id,
        miner_id=miner,
        role=role,
        prompt=prompt,
        response=reply,
        info=info,
        verdict=play.verdict,
        elapsed_ms=40,
    )


async def chain(signer: Keypair, samples: int, block: int, result: Result) -> AsyncIterator[bytes]:
    """A validator's blocks, made as they are read."""
    began = time.process_time()
    prev, index, waiting = GENESIS_HASH, 0, list[Sample]()
    left = samples
    for contender, challenge_id in names(signer.ss58_address, samples // 2):
        waiting += sample(challenge_id, "champion", "champion"), sample(challenge_id, contender, "contender")
        left -= 2
        if len(waiting) >= block or left < 2:
            sealed = seal(waiting, prev_hash=prev, index=index, timestamp=1_000 + index, signer=signer)
            data = encode_block(sealed)
            prev, index, size, waiting = block_hash(sealed.header), index + 1, len(waiting), []
            del sealed
            result.making_s += time.process_time() - began
            yield data
            began = time.process_time()
            result.read(size)
    result.making_s += time.process_time() - began


async def measure(samples: int, validators: int, block: int) -> Result:
    """Merge, and decide by what comes out, so that a merge which lost its evidence shows."""
    result = Result(samples=samples // (2 * validators) * 2 * validators, rss_before_mb=rss_mb())
    signers = [Keypair.create_from_uri(f"//Bench{number}") for number in range(validators)]
    began = time.process_time()
    merged = await merge(
        {each.ss58_address: chain(each, result.samples // validators, block, result) for each in signers},
        most_samples=result.samples,
    )
    result.merge_s = time.process_time() - began - result.making_s
    ruling = decide(merged, Throne(champion="champion"), Terms(env_ids=(Mult8.env_id,)), p0=0.51, now_s=10**6)
    result.winner = ruling.winner
    result.trusted = sum(standing.trust_ppm > 0 for standing in merged.standings)
    result.samples_per_s = round(result.samples / result.merge_s)
    result.growth_mb = round(result.rss_mb[-1] - result.rss_mb[0], 1) if result.rss_mb else 0.0
    result.merge_s, result.making_s = round(result.merge_s, 1), round(result.making_s, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--validators", type=int, default=3)
    parser.add_argument("--block", type=int, default=1_000, help=f"samples in a block, up to {MAX_BLOCK_SAMPLES}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = asyncio.run(measure(options.samples, options.validators, options.block))
    if options.json:
        print(json.dumps(asdict(result)))
        return
    for name, value in asdict(result).items():
        print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
