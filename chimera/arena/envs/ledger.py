"""`ledger-v0`: a story of people who give and take, told in turns; each turn asks who has how many by now.

It takes a memory: what a turn asks follows from all turns before it. The first wrong number ends the story.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import Any, Self

from gymnasium import spaces

from chimera.arena.canonical import Plain
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.challenge import Challenge
from chimera.arena.envs.numerals import whole_number
from chimera.arena.randomness import Stream
from chimera.arena.types import Verdict

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "pens", "shells", "stamps")
PEOPLE = (3, 4)
TURNS = (4, 6)
EVENTS = (2, 4)
"""How many people, turns, and events in a turn, at least and at most."""

FIRST = (10, 99)
"""What each has at first, at least and at most."""

MOST_FOUND = 40
MAX_DIGITS = 6
MAX_TEXT_CHARS = 1_000
"""In what is said in one turn."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is told and asked in one turn, and the number that is right."""

    text: str
    answer: int


class Ledger(Challenge):
    """Answer every turn's question. The score is 1 when all are right, else 0."""

    env_id = "ledger-v0"
    multi_turn = True

    def __init__(self, people: list[str], thing: str, turns: list[Turn]) -> None:
        self.people = people
        self.thing = thing
        self._turns = turns
        self._at = 0
        self._verdict: Verdict | None = None

    @classmethod
    def deal(cls, stream: Stream) -> Self:
        people = stream.shuffled(NAMES)[: stream.between(*PEOPLE)]
        thing = stream.choice(THINGS)
        has = {person: stream.between(*FIRST) for person in people}
        told = [f"{person} has {count} {thing}." for person, count in has.items()]
        turns: list[Turn] = []
        for _ in range(stream.between(*TURNS)):
            told += [_event(has, thing, stream) for _ in range(stream.between(*EVENTS))]
            question, answer = _question(has, thing, stream)
            turns.append(Turn(" ".join([*told, question]), answer))
            told = []
        return cls(people, thing, turns)

    def prompt(self) -> str:
        return (
            f"A story in {len(self._turns)} parts. Each part ends with a question about how things stand then. "
            "Reply each time with the number and nothing else, in digits. The first wrong reply ends the story.\n\n"
            f"{self._turns[0].text}"
        )

    def public(self) -> dict[str, Plain]:
        return {"people": list(self.people), "thing": self.thing, "turns": len(self._turns)}

    def reply(self, text: str) -> str:
        if self._verdict is not None:
            raise ValueError("the play is over")
        number = whole_number(text, MAX_DIGITS)
        if number != self._turns[self._at].answer:
            fault = "is not a whole number" if number is None else "is wrong"
            self._verdict = Verdict(ok=False, reason=f"the reply to part {self._at + 1} {fault}")
            return ""
        self._at += 1
        if self._at == len(self._turns):
            self._verdict = Verdict(ok=True)
            return ""
        return self._turns[self._at].text

    @property
    def verdict(self) -> Verdict | None:
        return self._verdict

    @property
    def score(self) -> int:
        return int(self._verdict is not None and self._verdict.ok)

    def gold(self) -> str:
        return str(self._turns[self._at].answer)

    def guess(self, rng: random.Random) -> str:
        return str(rng.randint(*FIRST))


def _event(has: dict[str, int], thing: str, stream: Stream) -> str:
    """Something happens to what they have; nobody ever gives more than that."""
    person, other = stream.shuffled(list(has))[:2]
    kind = stream.choice(("give", "give", "find", "lose", "double", "swap"))
    if kind == "swap":
        has[person], has[other] = has[other], has[person]
        return f"{person} and {other} swap all their {thing}."
    if kind == "double" and has[other] >= has[person] > 0:
        has[person], has[other] = 2 * has[person], has[other] - has[person]
        return f"{other} gives {person} as many {thing} as {person} already has."
    if kind in ("give", "lose") and has[person] > 1:
        count = stream.between(2, has[person])
        has[person] -= count
        if kind == "lose":
            return f"{person} loses {count} {thing}."
        has[other] += count
        return f"{person} gives {other} {count} {thing}."
    count = stream.between(2, MOST_FOUND)
    has[person] += count
    return f"{person} finds {count} {thing}."


def _question(has: dict[str, int], thing: str, stream: Stream) -> tuple[str, int]:
    kind = stream.choice(("one", "one", "all", "more"))
    if kind == "all":
        return f"How many {thing} do they all have together now?", sum(has.values())
    most, least = sorted(stream.shuffled(list(has))[:2], key=lambda person: -has[person])
    if kind == "more" and has[most] > has[least]:
        return f"How many more {thing} does {most} have than {least} now?", has[most] - has[least]
    return f"How many {thing} does {most} have now?", has[most]


class LedgerEnv(ArenaEnv[str, str, Ledger]):
    """Observed: what was told last, which at the end is nothing. An action: a number, in digits."""

    rules = Ledger

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        told = string.ascii_letters + string.digits + " .,?\n"
        self.observation_space = spaces.Text(MAX_TEXT_CHARS, min_length=0, charset=told)
        self.action_space: spaces.Space[Any] = spaces.Text(MAX_DIGITS, charset=string.digits)

    def observe(self) -> str:
        return self._said

    def say(self, action: str) -> str:
        return str(action)
