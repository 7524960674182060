"""Whatever a miner replies, there is a record of the play, and its verdict is the one that anyone computes from it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.canonical import decode, encode
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.challenge import MAX_TURNS
from chimera.arena.envs.episode import MAX_SAMPLING_SEED, play
from chimera.arena.envs.ledger import Ledger
from chimera.arena.envs.mult8 import Mult8
from chimera.arena.envs.registry import environment, environments
from chimera.arena.envs.tictactoe import TicTacToe
from chimera.arena.miners.miner import Answer, Miner, Turn
from chimera.arena.types import MAX_TEXT_CHARS, Sample, Verdict
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, MinerError
from tests.unit.arena.envs.test_challenge import Endless


class Scripted(Miner):
    """Says what it is told to, then the same for ever; takes half a second for each reply."""

    miner_id = "scripted"

    def __init__(self, clock: ManualClock, *texts: str, request_id: str | None = "call-1") -> None:
        self.clock, self.texts, self.request_id = clock, list(texts), request_id
        self.turns: list[Turn] = []

    async def reply(self, turn: Turn) -> Answer:
        self.turns.append(turn)
        self.clock.advance(0.5)
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        return Answer(text=text, request_id=self.request_id)


class Perfect(Scripted):
    """Says what is right."""

    async def reply(self, turn: Turn) -> Answer:
        await super().reply(turn)
        return Answer(text=turn.challenge.gold())


class Cheat(Scripted):
    """Plays on the challenge that it is handed, until that one says that all is well."""

    async def reply(self, turn: Turn) -> Answer:
        while turn.challenge.verdict is None:
            turn.challenge.reply(turn.challenge.gold())
        vars(turn.challenge)["_verdict"] = Verdict(ok=True)
        return Answer(text="0")


class Down(Scripted):
    """Cannot be reached."""

    async def reply(self, turn: Turn) -> Answer:
        raise MinerError("out of reach")


async def played(kind: type[rules.Challenge], miner: Miner, challenge_id: str = "seed:4") -> Sample:
    clock = miner.clock if isinstance(miner, Scripted) else ManualClock()
    return await play(kind, challenge_id, miner, role="contender", clock=clock)


def holds(sample: Sample) -> Sample:
    """The sample is evidence: it has canonical bytes, and anyone comes to its verdict."""
    assert Sample(**decode(encode(sample.plain()))) == sample
    kind = environment(sample.env_id)
    assert kind.verify(sample.prompt, sample.response, sample.info) == sample.verdict
    return sample


@pytest.mark.parametrize("env_id", environments())
async def test_a_perfect_player_is_right_in_every_environment(env_id: str) -> None:
    miner = Perfect(ManualClock(), "")
    sample = holds(await played(environment(env_id).rules, miner))
    assert sample.verdict == Verdict(ok=True)
    assert (sample.env_id, sample.miner_id, sample.role) == (env_id, "scripted", "contender")
    assert sample.elapsed_ms == 500 * len(miner.turns)


async def test_a_miner_is_told_the_conversation_so_far() -> None:
    miner = Perfect(ManualClock(), "")
    sample = await played(Ledger, miner)
    replies = decode(sample.response.encode())
    assert len(miner.turns) == len(replies) > 3
    for number, turn in enumerate(miner.turns):
        assert [message.role for message in turn.messages] == ["user", "assistant"] * number + ["user"]
        assert [message.content for message in turn.messages[1::2]] == replies[:number]
        assert turn.messages[0].content == sample.prompt
        assert all(message.content for message in turn.messages)


async def test_champion_and_contender_are_given_the_same_seed_and_others_another() -> None:
    seeds = set()
    for challenge_id in ("seed:1", "seed:1", "seed:2", "own/x/1"):
        miner = Scripted(ManualClock(), "1")
        await played(Mult8, miner, challenge_id)
        seeds.add(miner.turns[0].seed)
        assert 0 <= miner.turns[0].seed <= MAX_SAMPLING_SEED
    assert len(seeds) == 3


@pytest.mark.parametrize("env_id", environments())
@pytest.mark.parametrize(
    "text", ["", "\ud800", "1\udfff", "x" * (MAX_TEXT_CHARS + 1), "\x00" * MAX_TEXT_CHARS, "\U0001f600"]
)
async def test_a_reply_that_cannot_be_kept_fails_and_is_kept_as_nothing(env_id: str, text: str) -> None:
    sample = holds(await played(environment(env_id).rules, Scripted(ManualClock(), text)))
    assert not sample.verdict.ok
    assert len(sample.response) <= MAX_TEXT_CHARS


async def test_a_record_that_grows_too_long_ends_the_play() -> None:
    """Each reply would fit, and they do not fit together."""
    clock = ManualClock()
    padding = " " * 30_000
    gold = [turn.challenge.gold() for turn in await asked(Ledger)]
    sample = holds(await played(Ledger, Scripted(clock, *(f"{reply}{padding}" for reply in gold))))
    replies = decode(sample.response.encode())
    assert [reply.strip() for reply in replies] == [*gold[:2], ""]
    assert sample.verdict.reason == "the reply to part 3 is not a whole number"


async def asked(kind: type[rules.Challenge]) -> list[Turn]:
    miner = Perfect(ManualClock(), "")
    await played(kind, miner)
    return miner.turns


async def test_a_policy_that_tampers_with_its_challenge_gains_nothing() -> None:
    for env_id in environments():
        sample = holds(await played(environment(env_id).rules, Cheat(ManualClock(), "")))
        assert not sample.verdict.ok


async def test_a_fault_that_is_not_the_miner_s_leaves_no_sample() -> None:
    with pytest.raises(MinerError, match="out of reach"):
        await played(TicTacToe, Down(ManualClock(), ""))


async def test_a_play_without_end_is_the_environment_s_fault() -> None:
    miner = Scripted(ManualClock(), "on")
    with pytest.raises(InputError, match="endless-v0 is broken"):
        await played(Endless, miner)
    assert len(miner.turns) == MAX_TURNS


async def test_what_is_no_challenge_s_id_is_refused() -> None:
    with pytest.raises(InputError, match="not the id"):
        await played(Mult8, Scripted(ManualClock(), "1"), "no id")


@pytest.mark.parametrize(
    ("given_id", "kept"), [("a-1", "a-1"), (None, None), ("", None), ("x" * 201, None), ("\ud800", None)]
)
async def test_a_request_id_is_kept_if_it_can_be(given_id: str | None, kept: str | None) -> None:
    sample = holds(await played(Mult8, Scripted(ManualClock(), "1", request_id=given_id)))
    assert sample.request_id == kept


@given(st.sampled_from(environments()), st.integers(0, 10**6), st.lists(st.text(max_size=20), min_size=1, max_size=8))
async def test_whatever_is_said_can_be_audited(env_id: str, seed: int, texts: list[str]) -> None:
    kind = environment(env_id).rules
    rng = random.Random(seed)
    guess = rules.deal(kind, f"seed:{seed}").guess(rng)
    holds(await played(kind, Scripted(ManualClock(), guess, *texts), f"seed:{seed}"))
