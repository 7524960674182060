"""Miners that need no model: they know the rules, or the answer. Everyone who runs them gets the same replies."""

from __future__ import annotations

import random

from chimera.arena.envs.challenge import deal
from chimera.arena.miners.miner import Answer, Miner, Turn
from chimera.core.errors import InputError
from chimera.core.rng import rng

GAMES = frozenset({"tictactoe-v0"})
"""Environments where the gold reply is a search's, and not an answer that is looked up."""

MAX_GUESSES = 32


class RandomMiner(Miner):
    """Knows what is allowed, and nothing else."""

    miner_id = "random"

    async def reply(self, turn: Turn) -> Answer:
        return Answer(text=turn.challenge.guess(_generator(self.miner_id, turn)))


class MinimaxMiner(Miner):
    """Plays perfectly, in games. Raises InputError in any other environment."""

    miner_id = "minimax"

    def supports(self, env_id: str) -> bool:
        return env_id in GAMES

    async def reply(self, turn: Turn) -> Answer:
        if not self.supports(turn.challenge.env_id):
            raise InputError(f"minimax plays {', '.join(sorted(GAMES))} only, not {turn.challenge.env_id}")
        return Answer(text=turn.challenge.gold())


class OracleMiner(Miner):
    """Solves a share `p` of the challenges, as far as they can be solved; the others it fails on purpose.

    Which ones follows from the challenge and from `miner_id`, so two oracles of different names fail independently.
    """

    def __init__(self, miner_id: str, p: float) -> None:
        self.miner_id = miner_id
        self._p = p

    async def reply(self, turn: Turn) -> Answer:
        luck = rng(self.miner_id, turn.challenge.env_id, turn.challenge_id).random()
        return Answer(text=turn.challenge.gold() if luck < self._p else self._wrong(turn))

    def _wrong(self, turn: Turn) -> str:
        """A guess that does not solve the challenge; where all do, the empty reply, which breaks every rule."""
        generator = _generator(self.miner_id, turn)
        for _ in range(MAX_GUESSES):
            guess = turn.challenge.guess(generator)
            if not _solves(turn, guess):
                return guess
        return ""


def _generator(miner_id: str, turn: Turn) -> random.Random:
    return rng(miner_id, turn.challenge.env_id, turn.challenge_id, len(_replies(turn)))


def _solves(turn: Turn, reply: str) -> bool:
    """Whether the play ends with this reply, and well: tried on the same challenge, dealt again."""
    challenge = deal(type(turn.challenge), turn.challenge_id)
    for text in (*_replies(turn), reply):
        challenge.reply(text)
    return challenge.verdict is not None and challenge.verdict.ok


def _replies(turn: Turn) -> list[str]:
    return [message.content for message in turn.messages if message.role == "assistant"]
