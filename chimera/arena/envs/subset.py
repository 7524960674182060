"""`subset-v0`: which of twelve numbers sum to a target? Hard to find, easy to check, and seldom only one answer."""

from __future__ import annotations

import random
import re
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from chimera.arena.canonical import Plain
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.challenge import SingleTurn
from chimera.arena.randomness import Stream

SIZE = 12
LEAST = 10
MOST = 99
PLANTED = (4, 8)
"""How many numbers make up the answer that is sure to exist, at least and at most."""

_NUMBERS = re.compile(r"[ \t\r\n]*([1-9][0-9](?: [1-9][0-9]){0,11})[ \t\r\n]*")


class Subset(SingleTurn):
    """Choose among distinct numbers some that sum to `target`. The reply is its own proof; any that fits is right.

    A right reply is the chosen numbers, each once, in any order, one space between them and white space around them.
    """

    env_id = "subset-v0"

    def __init__(self, numbers: list[int], planted: list[int]) -> None:
        self.numbers = numbers
        self.target = sum(planted)
        self._planted = planted

    @classmethod
    def deal(cls, stream: Stream) -> Self:
        numbers = stream.shuffled(range(LEAST, MOST + 1))[:SIZE]
        return cls(numbers, stream.shuffled(numbers)[: stream.between(*PLANTED)])

    def prompt(self) -> str:
        return (
            f"Numbers: {' '.join(map(str, self.numbers))}\n"
            f"Choose some of them, each at most once, whose sum is exactly {self.target}.\n"
            "Reply with the chosen numbers and nothing else, one space between them."
        )

    def public(self) -> dict[str, Plain]:
        return {"numbers": list(self.numbers), "target": self.target}

    def fault(self, text: str) -> str:
        found = _NUMBERS.fullmatch(text)
        if found is None:
            return "the reply is not some of the numbers with one space between them"
        chosen = [int(number) for number in found[1].split(" ")]
        if len(set(chosen)) < len(chosen):
            return "a number is chosen twice"
        if not set(chosen) <= set(self.numbers):
            return "a number is chosen that is not there"
        return "" if sum(chosen) == self.target else "the sum is not the target"

    def gold(self) -> str:
        return " ".join(map(str, self._planted))

    def guess(self, rng: random.Random) -> str:
        return " ".join(map(str, rng.sample(self.numbers, rng.randint(*PLANTED))))


class SubsetEnv(ArenaEnv[NDArray[np.int64], NDArray[np.int8], Subset]):
    """Observed: the twelve numbers and the target, int64 of shape (13,). An action: 1 for each of the chosen."""

    rules = Subset

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(LEAST, SIZE * MOST, (SIZE + 1,), np.int64)
        self.action_space: spaces.Space[Any] = spaces.MultiBinary(SIZE)

    def observe(self) -> NDArray[np.int64]:
        return np.array([*self.challenge.numbers, self.challenge.target], np.int64)

    def say(self, action: NDArray[np.int8]) -> str:
        return " ".join(str(number) for number, chosen in zip(self.challenge.numbers, action, strict=True) if chosen)
