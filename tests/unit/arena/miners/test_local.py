"""Miners that need no model: what they know, and that everyone gets the same from them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.envs.challenge import Challenge, deal
from chimera.arena.envs.episode import play
from chimera.arena.envs.registry import environment, environments
from chimera.arena.miners.client import open_miner
from chimera.arena.miners.miner import Miner
from chimera.arena.types import Sample
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError
from tests.conftest import ROOT

KINDS: dict[str, type[Challenge]] = {env_id: environment(env_id).rules for env_id in environments()}


async def played(miner: Miner, env_id: str, challenge_id: str) -> Sample:
    return await play(KINDS[env_id], challenge_id, miner, role="champion", clock=ManualClock())


async def solved(spec: str, env_id: str, count: int, prefix: str = "duel/1") -> list[bool]:
    miner = open_miner(spec)
    return [(await played(miner, env_id, f"{prefix}/{i}")).verdict.ok for i in range(count)]


async def gold(env_id: str, count: int) -> list[bool]:
    return await solved("oracle:p=1", env_id, count)


@pytest.mark.parametrize("env_id", sorted(KINDS))
async def test_an_oracle_that_always_knows_solves_what_can_be_solved_and_one_that_never_does_nothing(
    env_id: str,
) -> None:
    best = await gold(env_id, 60)
    assert sum(best) > 20
    assert await solved("oracle:p=0", env_id, 60) == [False] * 60


async def test_the_share_that_an_oracle_solves_is_p() -> None:
    share = sum(await solved("oracle:p=0.7", "mult8-v0", 2_000)) / 2_000
    assert abs(share - 0.7) < 5 * (0.7 * 0.3 / 2_000) ** 0.5


async def test_oracles_fail_independently_of_one_another_and_of_the_environment() -> None:
    one = await solved("oracle:p=0.5", "mult8-v0", 600)
    again = await solved("oracle:p=0.5", "mult8-v0", 600)
    other = await solved("oracle:p=0.50", "mult8-v0", 600)
    elsewhere = await solved("oracle:p=0.5", "subset-v0", 600)
    assert one == again
    for different in (other, elsewhere):
        same = sum(a == b for a, b in zip(one, different, strict=True))
        assert abs(same - 300) < 5 * 600**0.5 / 2, "a coin's, within 5 sigma"


async def test_an_oracle_decides_once_for_a_whole_play() -> None:
    """In several turns it plays the gold line to its end, or fails: no play is half one and half the other."""
    always, sometimes = open_miner("oracle:p=1"), open_miner("oracle:p=0.5")
    could = did = 0
    for i in range(300):
        best, half = [await played(miner, "tictactoe-v0", f"duel/1/{i}") for miner in (always, sometimes)]
        assert half.response == best.response or not half.verdict.ok
        could += best.verdict.ok
        did += half.verdict.ok
    assert abs(did - could / 2) < 5 * could**0.5 / 2


async def test_minimax_plays_games_perfectly_and_says_beforehand_what_it_does_not_play() -> None:
    assert await solved("minimax", "tictactoe-v0", 100) == await gold("tictactoe-v0", 100)
    minimax = open_miner("minimax")
    assert [env_id for env_id in sorted(KINDS) if minimax.supports(env_id)] == ["tictactoe-v0"]
    with pytest.raises(InputError, match="not mult8-v0"):
        await played(minimax, "mult8-v0", "duel/1/0")
    assert all(open_miner(spec).supports("mult8-v0") for spec in ("random", "oracle:p=0.5"))


async def test_random_knows_the_rules_and_not_the_answers() -> None:
    assert not any(await solved("random", "mult8-v0", 200))
    games = await solved("random", "tictactoe-v0", 200)
    assert 0 < sum(games) < sum(await gold("tictactoe-v0", 200))


@given(
    env_id=st.sampled_from(sorted(KINDS)),
    number=st.integers(0, 10**9),
    spec=st.sampled_from(["random", "oracle:p=0.3"]),
)
async def test_whoever_asks_gets_the_same_play(env_id: str, number: int, spec: str) -> None:
    challenge_id = f"own/x/{number}"
    first = await played(open_miner(spec), env_id, challenge_id)
    miner = open_miner(spec)
    await played(miner, env_id, "own/y/1")  # what it did before changes nothing
    assert await played(miner, env_id, challenge_id) == first


def test_another_process_under_another_hash_seed_gets_the_same_play() -> None:
    program = """
import asyncio
from chimera.arena.envs.episode import play
from chimera.arena.envs.registry import environment
from chimera.arena.miners.client import open_miner
from chimera.core.clock import ManualClock
for env_id in ("ledger-v0", "tictactoe-v0"):
    for spec in ("random", "oracle:p=0.5"):
        for i in range(5):
            kind = environment(env_id).rules
            sample = asyncio.run(play(kind, f"d/{i}", open_miner(spec), role="champion", clock=ManualClock()))
            print(sample.response)
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 20


@pytest.mark.parametrize("env_id", sorted(KINDS))
def test_the_empty_reply_which_an_oracle_falls_back_on_never_solves_a_challenge(env_id: str) -> None:
    for i in range(50):
        challenge = deal(KINDS[env_id], f"d/{i}")
        challenge.reply("")
        assert challenge.verdict is not None and not challenge.verdict.ok
