"""Validators to merge: an honest one, and one of each kind that is not. A store is its objects by index, as bytes.

Miners have a skill: the chance, settled by the challenge's name, that they know the answer. So all who ask the same get
the same reply, as from a model that is asked with a fixed seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bittensor_core import Keypair

from chimera.arena.duel.types import outcome
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.registry import environment
from chimera.arena.types import Block, Role, Sample
from chimera.arena.validators.blocks import GENESIS_HASH, SIGNING_PREFIX, block_hash, encode_block, seal, unsigned_bytes
from chimera.arena.validators.challenges import Own, own_id, parse, shared_id
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import Merged
from chimera.core.errors import ChainError

Pair = tuple[Sample, Sample]
Store = dict[int, bytes]

RANDOMNESS = {round: f"{round:02x}" * 32 for round in range(1, 9)}

CHAMPION, GOOD, POOR = "oracle:champion", "oracle:good", "oracle:poor"


class FixedBeacon:
    """The beacon of `RANDOMNESS`."""

    async def randomness(self, round: int) -> str:
        if round not in RANDOMNESS:
            raise ChainError(f"round {round} is not known")
        return RANDOMNESS[round]


@dataclass(frozen=True, kw_only=True)
class World:
    """What there is to be sampled, and by how much. A lie is a reply from a miner that never gave it."""

    skills: tuple[tuple[str, float], ...] = ((CHAMPION, 0.5), (GOOD, 0.95), (POOR, 0.2))
    env_ids: tuple[str, ...] = ("mult8-v0",)
    round: int = 1
    shared: int = 12
    own: int = 40
    began_s: int = 1_000
    per_block: int = 24

    def knows(self, miner: str, env_id: str, challenge_id: str) -> bool:
        return random.Random(f"{miner} {env_id} {challenge_id}").random() < dict(self.skills)[miner]

    def sample(self, env_id: str, challenge_id: str, miner: str, role: Role, *, lies: bool = False) -> Sample:
        kind = environment(env_id).rules
        play, rng, replies = rules.deal(kind, challenge_id), random.Random(f"{miner} {challenge_id}"), []
        prompt, info = play.prompt(), rules.info_of(play, challenge_id)
        knows = self.knows(miner, env_id, challenge_id) != lies
        while play.verdict is None:
            replies.append(play.gold() if knows else "" if lies else play.guess(rng))
            play.reply(replies[-1])
        return Sample(
            env_id=env_id,
            challenge_id=challenge_id,
            miner_id=miner,
            role=role,
            prompt=prompt,
            response=rules.response_of(kind, replies),
            info=info,
            verdict=play.verdict,
            elapsed_ms=rng.randrange(1_000),
        )

    def pair(self, env_id: str, challenge_id: str, contender: str, *, lies: bool = False) -> Pair:
        return (
            self.sample(env_id, challenge_id, CHAMPION, "champion", lies=lies),
            self.sample(env_id, challenge_id, contender, "contender", lies=lies),
        )

    def pairs(self, hotkey: str, *, lies: Callable[[str], bool] = lambda _: False) -> list[Pair]:
        """A round, as `RoundPlan` orders it. `lies` says which challenges are lied about."""
        found = []
        for env_id in self.env_ids:
            contenders = [miner for miner, _ in self.skills if miner != CHAMPION]
            for number, contender in enumerate(contenders):
                names = [shared_id(self.round, RANDOMNESS[self.round], i) for i in range(self.shared)]
                names += [own_id(hotkey, number * self.own + i) for i in range(self.own)]
                found += [self.pair(env_id, name, contender, lies=lies(name)) for name in names]
        return found

    def chain(self, signer: Keypair, pairs: Sequence[Pair]) -> list[Block]:
        """Blocks of these pairs, whatever they are."""
        blocks: list[Block] = []
        for start in range(0, len(pairs), self.per_block):
            samples = [sample for pair in pairs[start : start + self.per_block] for sample in pair]
            blocks.append(self.after(blocks[-1] if blocks else None, signer, samples))
        return blocks

    def after(self, last: Block | None, signer: Keypair, samples: Iterable[Sample]) -> Block:
        return seal(
            tuple(samples),
            prev_hash=block_hash(last.header) if last else GENESIS_HASH,
            index=last.header.block_index + 1 if last else 0,
            timestamp=self.began_s + (last.header.block_index + 1 if last else 0),
            signer=signer,
        )


def key(name: str) -> Keypair:
    """The key pair of a validator of this name."""
    return Keypair.create_from_uri(f"//{name}")


def hotkey(name: str) -> str:
    address: str = key(name).ss58_address
    return address


def stored(blocks: Sequence[Block]) -> Store:
    return {index: encode_block(block) for index, block in enumerate(blocks)}


def changed(sample: Sample, **fields: Any) -> Sample:
    return sample.model_copy(update=fields)


def honest(world: World, name: str) -> Store:
    return stored(world.chain(key(name), world.pairs(hotkey(name))))


def liar(world: World, name: str) -> Store:
    """Turns every verdict round, with replies of its own making, which pass any audit."""
    return stored(world.chain(key(name), world.pairs(hotkey(name), lies=lambda _: True)))


def two_faced(world: World, name: str) -> Store:
    """Tells the truth where others can compare, and lies about the rest."""
    return stored(world.chain(key(name), world.pairs(hotkey(name), lies=lambda each: isinstance(parse(each), Own))))


def false_verdict(world: World, name: str) -> Store:
    """Says of one wrong reply that it was right."""
    pairs = world.pairs(hotkey(name))
    at = next(index for index, pair in enumerate(pairs) if not pair[1].verdict.ok)
    champion, contender = pairs[at]
    pairs[at] = champion, changed(contender, verdict=contender.verdict.model_copy(update={"ok": True, "reason": ""}))
    return stored(world.chain(key(name), pairs))


def false_verdict_on_the_champion(world: World, name: str) -> Store:
    """Says of one of the champion's right replies that it was wrong."""
    pairs = world.pairs(hotkey(name))
    at = next(index for index, pair in enumerate(pairs) if pair[0].verdict.ok)
    champion, contender = pairs[at]
    verdict = champion.verdict.model_copy(update={"ok": False, "reason": "so they say"})
    pairs[at] = changed(champion, verdict=verdict), contender
    return stored(world.chain(key(name), pairs))


def forged_info(world: World, name: str) -> Store:
    """Poses an easier challenge than the one that was dealt, and solves that."""
    pairs = world.pairs(hotkey(name))
    champion, contender = pairs[3]
    pairs[3] = champion, changed(contender, info={**contender.info, "left": 10_000_000})
    return stored(world.chain(key(name), pairs))


def unlinked(world: World, name: str) -> Store:
    """Its second block follows a block that nobody has."""
    blocks = world.chain(key(name), world.pairs(hotkey(name)))
    header = blocks[1].header.model_copy(update={"prev_hash": "ab" * 32})
    forged = blocks[1].model_copy(update={"header": header})
    return {**stored(blocks), 1: signed_again(forged, key(name))}


def forged_prompt(world: World, name: str) -> Store:
    pairs = world.pairs(hotkey(name))
    champion, contender = pairs[3]
    pairs[3] = champion, changed(contender, prompt="Compute 1 * 1")
    return stored(world.chain(key(name), pairs))


def cherry_picker(world: World, name: str) -> Store:
    """Leaves out what the champion won."""
    pairs = [pair for pair in world.pairs(hotkey(name)) if outcome(pair[0].verdict, pair[1].verdict) != "loss"]
    return stored(world.chain(key(name), pairs))


def gap_in_chain(world: World, name: str) -> Store:
    """Keeps a block back that is not the last."""
    blocks = honest(world, name)
    del blocks[1]
    return blocks


def shortened(world: World, name: str) -> Store:
    """Keeps its last block back: nobody can tell, unless they knew it."""
    blocks = honest(world, name)
    del blocks[len(blocks) - 1]
    return blocks


def repeater(world: World, name: str) -> Store:
    """Samples that it has had, again in a new block."""
    blocks = world.chain(key(name), world.pairs(hotkey(name)))
    return stored([*blocks, world.after(blocks[-1], key(name), blocks[0].samples)])


def twice_in_a_block(world: World, name: str) -> Store:
    pairs = world.pairs(hotkey(name))
    return stored(world.chain(key(name), [*pairs[:20], pairs[19], *pairs[20:]]))


def copier(world: World, name: str, of: str) -> Store:
    """Another's block where its own next one should be."""
    blocks = honest(world, name)
    return {**blocks, len(blocks): honest(world, of)[0]}


def thief(world: World, name: str, of: str) -> Store:
    """Another's samples, signed by itself."""
    return stored(world.chain(key(name), world.pairs(hotkey(of))))


def fortune_teller(world: World, name: str) -> Store:
    """Makes the beacon's randomness up until it likes the challenges."""
    pairs = world.pairs(hotkey(name))
    env_id = world.env_ids[0]
    made_up = [world.pair(env_id, shared_id(world.round, "f" * 64, i), POOR) for i in range(world.shared)]
    own = [pair for pair in pairs if isinstance(parse(pair[0].challenge_id), Own)]
    return stored(world.chain(key(name), [*made_up, *own]))


def unsigned(world: World, name: str) -> Store:
    """A block with somebody else's signature."""
    blocks = honest(world, name)
    other = world.chain(key(f"{name}Else"), world.pairs(hotkey(name)))[1].header.signature
    block = world.chain(key(name), world.pairs(hotkey(name)))[1]
    return {**blocks, 1: encode_block(block.model_copy(update={"header": changed_header(block, signature=other)}))}


def changed_header(block: Block, **fields: Any) -> Any:
    return block.header.model_copy(update=fields)


def garbage(world: World, name: str) -> Store:
    return {**honest(world, name), 2: b'{"header": "is not canonical JSON"}'}


def another_branch(world: World, name: str, index: int = 1) -> bytes:
    """A block that could stand where `name`'s honest chain has its block `index`, signed by the same key."""
    blocks = world.chain(key(name), world.pairs(hotkey(name)))
    return encode_block(world.after(blocks[index - 1], key(name), blocks[index].samples[:-2]))


def signed_again(block: Block, signer: Keypair) -> bytes:
    """The same block with another signature of the same key: sr25519's are random."""
    signature = signer.sign(SIGNING_PREFIX + unsigned_bytes(block.header)).hex()
    return encode_block(block.model_copy(update={"header": changed_header(block, signature=signature)}))


async def blocks(store: Store | Sequence[bytes]) -> AsyncIterator[bytes]:
    """A store's objects in order, or these bytes."""
    for data in [store[index] for index in sorted(store)] if isinstance(store, dict) else store:
        yield data


def merged(
    stores: Mapping[str, Store | Sequence[bytes]], *, stakes: Mapping[str, int] | None = None, **options: Any
) -> Merged:
    """What `merge` makes of the stores of these names; `options` are its own."""
    return asyncio.run(
        merge(
            {hotkey(name): blocks(store) for name, store in stores.items()},
            stakes=None if stakes is None else {hotkey(name): stake for name, stake in stakes.items()},
            **options,
        )
    )


def offences(found: Merged) -> dict[str, str]:
    """Kinds of offences by hotkey."""
    return {offence.hotkey: offence.kind for offence in found.offences}


def aside(found: Merged) -> set[tuple[str, str]]:
    """Whose own challenges with which contender are set aside."""
    return {(each.hotkey, each.contender) for each in found.set_aside}
