"""`mult8-v0`: the product of two numbers of eight digits, to the last digit. A guess is worth nothing."""

from __future__ import annotations

import random
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from chimera.arena.canonical import Plain
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.challenge import SingleTurn
from chimera.arena.envs.numerals import whole_number
from chimera.arena.randomness import Stream

LEAST = 10_000_000
MOST = 99_999_999
DIGITS = 16
"""Of the greatest product."""


class Mult8(SingleTurn):
    """Compute `left * right`. A right reply is the product in ASCII digits, and white space around it."""

    env_id = "mult8-v0"

    def __init__(self, left: int, right: int) -> None:
        self.left = left
        self.right = right

    @classmethod
    def deal(cls, stream: Stream) -> Self:
        return cls(stream.between(LEAST, MOST), stream.between(LEAST, MOST))

    def prompt(self) -> str:
        return (
            f"Compute {self.left} * {self.right}\n"
            "Reply with the exact product and nothing else: digits only, without separators."
        )

    def public(self) -> dict[str, Plain]:
        return {"left": self.left, "right": self.right}

    def fault(self, text: str) -> str:
        product = whole_number(text, DIGITS)
        if product is None:
            return "the reply is not a whole number of up to 16 digits"
        return "" if product == self.left * self.right else "the reply is not the product"

    def gold(self) -> str:
        return str(self.left * self.right)

    def guess(self, rng: random.Random) -> str:
        return str(rng.randint(LEAST * LEAST, MOST * MOST))


class Mult8Env(ArenaEnv[NDArray[np.int64], str, Mult8]):
    """Observed: the two factors, int64 of shape (2,). An action: the product's digits."""

    rules = Mult8

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(LEAST, MOST, (2,), np.int64)
        self.action_space: spaces.Space[Any] = spaces.Text(DIGITS, charset="0123456789")

    def observe(self) -> NDArray[np.int64]:
        return np.array([self.challenge.left, self.challenge.right], np.int64)

    def say(self, action: str) -> str:
        return str(action)
