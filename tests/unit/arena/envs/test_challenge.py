"""`verify` believes nothing but a challenge's name, and that only if it is one."""

from __future__ import annotations

import random
from typing import Any, Self

import gymnasium
import pytest

from chimera.arena.canonical import Plain
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.challenge import MAX_TURNS, Challenge
from chimera.arena.envs.mult8 import Mult8, Mult8Env
from chimera.arena.envs.subset import Subset
from chimera.arena.envs.tictactoe import TicTacToe, TicTacToeEnv
from chimera.arena.randomness import MAX_SEED, Stream
from chimera.arena.types import MAX_TEXT_CHARS, Verdict
from chimera.core.errors import EvidenceError, InputError

NO_IDS = ["", " ", "seed:1\n", "é", "\ud800", "x" * 193, "-x", "a b", None, 7, True, ["seed:1"]]


class Endless(Challenge):
    """Goes on until it is told to end, after however many turns."""

    env_id = "endless-v0"
    multi_turn = True

    def __init__(self) -> None:
        self._verdict: Verdict | None = None

    @classmethod
    def deal(cls, stream: Stream) -> Self:
        return cls()

    def prompt(self) -> str:
        return "say end"

    def public(self) -> dict[str, Plain]:
        return {"one": 1, "list": [1, "x"]}

    def reply(self, text: str) -> str:
        if text in ("", "end"):
            self._verdict = Verdict(ok=text == "end")
        return "go on"

    @property
    def verdict(self) -> Verdict | None:
        return self._verdict

    @property
    def score(self) -> int:
        return 0

    def gold(self) -> str:
        return "end"

    def guess(self, rng: random.Random) -> str:
        return "on"


@pytest.mark.parametrize("challenge_id", NO_IDS)
def test_what_is_no_id_is_refused_everywhere(challenge_id: Any) -> None:
    with pytest.raises(InputError, match="not the id of a challenge"):
        rules.deal(Mult8, challenge_id)
    play = rules.deal(Mult8, "seed:1")
    info = rules.info_of(play, challenge_id)
    assert not rules.verify(Mult8, play.prompt(), play.gold(), info).ok
    if challenge_id is not None:
        with pytest.raises(InputError, match="not the id of a challenge"):
            Mult8Env().reset(options={"challenge_id": challenge_id})


def verify(kind: type[Challenge], replies: list[str], **info: Any) -> Verdict:
    play = rules.deal(kind, "seed:1")
    given = rules.info_of(play, "seed:1") | info
    return rules.verify(kind, play.prompt(), rules.response_of(kind, replies), given)


@pytest.mark.parametrize(
    "forged",
    [
        *({"one": True}, {"one": 1.0}, {"one": "1"}, {"x": None}),
        *({"list": (1, "x")}, {"list": [True, "x"]}, {"list": [1]}),
    ],
)
def test_an_info_that_only_compares_equal_is_another(forged: dict[str, Any]) -> None:
    assert verify(Endless, ["end"]).ok
    assert verify(Endless, ["end"], **forged) == Verdict(ok=False, reason="info is not that of the challenge")


def test_a_transcript_has_a_most() -> None:
    assert verify(Endless, ["on"] * (MAX_TURNS - 1) + ["end"]).ok
    assert verify(Endless, ["on"] * MAX_TURNS + ["end"]).reason == f"there are more than {MAX_TURNS} replies"
    assert not verify(Endless, ["on"] * (MAX_TURNS - 1) + ["end", "on"]).ok
    assert not verify(Endless, ["end", "end"]).ok
    assert not verify(Endless, []).ok


@pytest.mark.parametrize(
    "response",
    [
        *('["end" ]', '["end"]\n', '[ "end"]', '["\\u0065nd"]', '"end"'),
        *('{"0":"end"}', "[1]", "", "\ud800"),
    ],
)
def test_a_transcript_has_one_form(response: str) -> None:
    play = rules.deal(Endless, "seed:1")
    verdict = rules.verify(Endless, play.prompt(), response, rules.info_of(play, "seed:1"))
    assert verdict == Verdict(ok=False, reason="the response is not a canonical list of replies")


def test_a_response_has_a_most_characters() -> None:
    play = rules.deal(Mult8, "seed:1")
    info = rules.info_of(play, "seed:1")
    gold = play.gold()
    padded = gold + " " * (MAX_TEXT_CHARS - len(gold))
    assert rules.verify(Mult8, play.prompt(), padded, info).ok
    assert not rules.verify(Mult8, play.prompt(), padded + " ", info).ok


def test_a_reply_without_utf_8_has_no_record() -> None:
    with pytest.raises(EvidenceError):
        rules.response_of(TicTacToe, ["\ud800"])


def test_a_challenge_of_one_turn_takes_one_reply() -> None:
    play = rules.deal(Subset, "seed:1")
    assert play.verdict is None and play.score == 0
    play.reply("no")
    assert play.verdict is not None and not play.verdict.ok
    with pytest.raises(ValueError, match="over"):
        play.reply(play.gold())
    assert play.score == 0


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match="from 0 to"):
        Mult8Env().reset(seed=seed)


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_after_a_seed_the_challenges_follow_from_it(seed: int) -> None:
    def ids() -> list[str]:
        env = Mult8Env()
        env.reset(seed=seed)
        return [env.challenge_id] + [str(env.reset()[1]["challenge_id"]) for _ in range(3)]

    assert ids() == ids()
    assert len(set(ids())) == 4
    assert ids()[0] == f"seed:{seed}"


def test_without_a_seed_every_environment_goes_its_own_way() -> None:
    assert Mult8Env().reset()[1] != Mult8Env().reset()[1]


def test_steps_outside_a_play_are_refused() -> None:
    env = TicTacToeEnv()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)  # type: ignore[arg-type]
    env.reset(seed=1)
    while not env.step(0)[2]:  # type: ignore[arg-type]
        pass
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(1)  # type: ignore[arg-type]


def test_a_reset_that_is_refused_leaves_the_play_as_it_was() -> None:
    env = Mult8Env(render_mode="ansi")
    env.reset(seed=1)
    with pytest.raises(InputError):
        env.reset(options={"challenge_id": "no id"})
    assert env.challenge_id == "seed:1"
    assert env.render() == env.challenge.prompt()
    assert env.step(env.challenge.gold())[1] == 1.0


def test_only_text_is_rendered() -> None:
    with pytest.raises(InputError, match="ansi"):
        Mult8Env(render_mode="human")
    env = Mult8Env()
    env.reset(seed=1)
    assert env.render() is None
