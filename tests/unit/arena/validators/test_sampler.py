"""What a round asks: the shared slice, then own challenges; no gap and no repeat, whatever was cut short before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.arena.duel.match import MinerRef
from chimera.arena.types import Block, BlockHeader, Sample, Verdict
from chimera.arena.validators.audit import Draws
from chimera.arena.validators.challenges import MAX_SHARED, Own, Shared, parse
from chimera.arena.validators.sampler import Asked, RoundPlan
from chimera.core.errors import InputError

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
OTHER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
RANDOM = "ab" * 32
MINERS = tuple(MinerRef(miner_id=name, spec="random") for name in ("old", "new", "other"))


def plan(**changes: Any) -> RoundPlan:
    return RoundPlan.model_validate(
        {"env_ids": ("mult8-v0", "tictactoe-v0"), "miners": MINERS, "shared": 3, "own": 4, **changes}
    )


def pair(env_id: str, challenge_id: str, contender: str, champion: str = "old") -> tuple[Sample, Sample]:
    common = {
        "env_id": env_id,
        "challenge_id": challenge_id,
        "prompt": "p",
        "response": "r",
        "info": {},
        "verdict": Verdict(ok=True),
        "elapsed_ms": 0,
    }
    return (
        Sample.model_validate({**common, "miner_id": champion, "role": "champion"}),
        Sample.model_validate({**common, "miner_id": contender, "role": "contender"}),
    )


def block_of(*pairs: tuple[Sample, Sample]) -> Block:
    header = BlockHeader(prev_hash="0" * 64, block_index=0, timestamp=0, validator_hotkey=HOTKEY, merkle_root="0" * 64)
    return Block(header=header, samples=tuple(sample for both in pairs for sample in both))


def test_a_match_asks_the_shared_slice_and_then_its_own() -> None:
    match = plan().match("mult8-v0", MINERS[1], champion_id="old", asked=Asked(HOTKEY), round=9, randomness=RANDOM)
    assert [parse(name) for name in match.challenge_ids] == [
        *(Shared(9, RANDOM, i) for i in range(3)),
        *(Own(HOTKEY, i) for i in range(4)),
    ]
    assert (match.champion.miner_id, match.contender.miner_id, match.rule) == ("old", "new", None)


def test_without_the_beacon_there_is_no_shared_slice() -> None:
    match = plan().match("mult8-v0", MINERS[1], champion_id="old", asked=Asked(HOTKEY), round=9, randomness=None)
    assert all(isinstance(parse(name), Own) for name in match.challenge_ids)


steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # how many rounds later
        st.sampled_from(["mult8-v0", "tictactoe-v0"]),
        st.sampled_from(["new", "other"]),
        st.integers(0, 8),  # pairs before the process dies
        st.booleans(),  # whether a new process reads the chain
        st.booleans(),  # whether the beacon can be had
    ),
    max_size=30,
)


@given(steps)
def test_whatever_is_cut_short_the_chain_has_no_gap_and_no_repeat(
    steps: list[tuple[int, str, str, int, bool, bool]],
) -> None:
    draws, asked, chain, round = Draws(HOTKEY), Asked(HOTKEY), list[Block](), 1
    for later, env_id, contender, played, restarts, beacon in steps:
        round += later
        miner = next(miner for miner in MINERS if miner.miner_id == contender)
        randomness = RANDOM if beacon else None
        match = plan().match(env_id, miner, champion_id="old", asked=asked, round=round, randomness=randomness)
        pairs = [pair(env_id, name, contender) for name in match.challenge_ids[:played]]
        for champion, other in pairs:
            draws.take(champion, other)  # raises for any gap or repeat
        if pairs:
            chain.append(block_of(*pairs))
            asked.saw(chain[-1])
        if restarts:
            asked = Asked(HOTKEY)
            for block in chain:
                asked.saw(block)


def test_a_round_that_is_over_is_not_sampled_again() -> None:
    asked = Asked(HOTKEY)
    asked.saw(block_of(pair("mult8-v0", f"beacon/7/{RANDOM}/0", "new")))
    with pytest.raises(InputError, match="round 6 is over"):
        plan().match("mult8-v0", MINERS[1], champion_id="old", asked=asked, round=6, randomness=RANDOM)


def test_what_others_asked_is_none_of_its_own() -> None:
    asked = Asked(HOTKEY)
    asked.saw(block_of(pair("mult8-v0", f"own/{OTHER}/41", "new")))
    assert asked.own("mult8-v0") == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_ids": ("mult8-v0", "mult8-v0")}, "named twice"),
        ({"miners": (MINERS[0], MINERS[0])}, "named twice"),
        ({"shared": MAX_SHARED + 1}, "less than or equal"),
        ({"own": 0}, "greater than or equal"),
        ({"env_ids": ()}, "at least 1"),
    ],
)
def test_plans_that_make_no_round_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plan(**changes)


def test_a_champion_that_has_left_the_subnet_is_named() -> None:
    with pytest.raises(InputError, match="gone is not among the miners"):
        plan().champion("gone")
    assert [miner.miner_id for miner in plan().contenders("new")] == ["old", "other"]
