"""An environment of one's own: `reverse-v0`, in which a word has to be written backwards."""

from __future__ import annotations

import random
from string import ascii_lowercase
from typing import Any, Self

from gymnasium import spaces

from chimera.arena.canonical import Plain
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.challenge import SingleTurn
from chimera.arena.randomness import Stream

LETTERS = (8, 16)


class Reverse(SingleTurn):
    """The rules, over text. All that is random comes from the stream, so the id of a challenge says all about it."""

    env_id = "reverse-v0"

    def __init__(self, word: str) -> None:
        self.word = word

    @classmethod
    def deal(cls, stream: Stream) -> Self:
        return cls("".join(stream.choice(ascii_lowercase) for _ in range(stream.between(*LETTERS))))

    def prompt(self) -> str:
        return f"Write {self.word} backwards. Reply with the letters and nothing else."

    def public(self) -> dict[str, Plain]:
        return {"word": self.word}

    def fault(self, text: str) -> str:
        return "" if text == self.word[::-1] else "the reply is not the word backwards"

    def gold(self) -> str:
        return self.word[::-1]

    def guess(self, rng: random.Random) -> str:
        return "".join(rng.sample(self.word, len(self.word)))


class ReverseEnv(ArenaEnv[str, str, Reverse]):
    """The same for Gymnasium: what an agent sees, and the reply that an action stands for."""

    rules = Reverse

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Text(LETTERS[1], charset=ascii_lowercase)
        self.action_space: spaces.Space[Any] = spaces.Text(LETTERS[1], charset=ascii_lowercase)

    def observe(self) -> str:
        return self.challenge.word

    def say(self, action: str) -> str:
        return str(action)
