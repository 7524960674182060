"""Environments with one fault each, such as an author makes or a cheat would like; every one is refused by name."""

from __future__ import annotations

import random
import secrets
from typing import Any, ClassVar, Self

from chimera.arena.canonical import Plain
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.ledger import Ledger, LedgerEnv
from chimera.arena.randomness import Stream
from chimera.arena.types import Verdict
from examples.arena.reverse import Reverse, ReverseEnv


class TellsTheAnswer(ReverseEnv):
    class rules(Reverse):
        def public(self) -> dict[str, Plain]:
            return {"word": self.word, "notes": [{"also": self.word[::-1]}]}


class FloatsInInfo(ReverseEnv):
    class rules(Reverse):
        def public(self) -> dict[str, Plain]:
            return {"word": self.word, "length": float(len(self.word))}  # type: ignore[dict-item]


class TuplesInInfo(ReverseEnv):
    class rules(Reverse):
        def public(self) -> dict[str, Plain]:
            return {"word": tuple(self.word)}  # type: ignore[dict-item]


class RenamesTheChallenge(ReverseEnv):
    class rules(Reverse):
        def public(self) -> dict[str, Plain]:
            return {"challenge_id": "seed:1"}


class AlwaysTheSame(ReverseEnv):
    class rules(Reverse):
        @classmethod
        def deal(cls, stream: Stream) -> Self:
            return cls("constant")


class NoPrompt(ReverseEnv):
    class rules(Reverse):
        def prompt(self) -> str:
            return ""


class PromptThatChanges(LedgerEnv):
    class rules(Ledger):
        def prompt(self) -> str:
            return self._turns[min(self._at, 1)].text


class GoldThatIsNot(ReverseEnv):
    class rules(Reverse):
        def gold(self) -> str:
            return self.word[::-1] + "."


class GoesOnAfterTheEnd(ReverseEnv):
    class rules(Reverse):
        def reply(self, text: str) -> str:
            self._verdict = None
            return super().reply(text)


class NeverEnds(LedgerEnv):
    class rules(Ledger):
        verdict = None  # type: ignore[assignment]

        def reply(self, text: str) -> str:
            return "go on"


class TalksAtTheEnd(LedgerEnv):
    class rules(Ledger):
        def reply(self, text: str) -> str:
            return super().reply(text) or "Well done."


class AcceptsNothing(ReverseEnv):
    """The empty reply is right too."""

    class rules(Reverse):
        def fault(self, text: str) -> str:
            return super().fault(text) if text else ""


class AcceptsAnyDigits(LedgerEnv):
    """Counts on `int`, which reads other scripts."""

    class rules(Ledger):
        def reply(self, text: str) -> str:
            return super().reply(str(int(text)) if text.isdigit() else text)


class LetsGarbagePass(LedgerEnv):
    """Says the question again, instead of ending."""

    class rules(Ledger):
        def reply(self, text: str) -> str:
            if self._verdict is None and text == "[]":
                return "Again, please."
            return super().reply(text)


class BelievesInfo(ReverseEnv):
    """Judges by the word in `info`."""

    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        return Verdict(ok=response != "" and response == str(info.get("word", ""))[::-1])


class BelievesThePrompt(ReverseEnv):
    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        asked = rules.deal(cls.rules, str(info.get("challenge_id"))).prompt()
        return super().verify(asked, response, info)


class ComparesLoosely(LedgerEnv):
    """Takes `True` for 1 and 4.0 for 4, as `==` does."""

    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        challenge_id = info.get("challenge_id")
        if isinstance(challenge_id, str) and not any(letter in challenge_id for letter in "\n"):
            own: dict[str, Any] = rules.info_of(rules.deal(cls.rules, challenge_id or "x"), challenge_id)
            info = own if own == info else info
        return super().verify(prompt, response, info)


class SaysYes(ReverseEnv):
    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        return Verdict(ok=True)


class SaysNowThisNowThat(ReverseEnv):
    calls: ClassVar[list[int]] = []

    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        cls.calls.append(1)
        verdict = super().verify(prompt, response, info)
        return verdict if len(cls.calls) % 2 else Verdict(ok=verdict.ok, reason="again")


class ChangesInfo(ReverseEnv):
    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        verdict = super().verify(prompt, response, info)
        info["verified"] = True
        return verdict


class ScoresTwo(ReverseEnv):
    class rules(Reverse):
        @property
        def score(self) -> int:
            return 2 * super().score


class RewardsMore(LedgerEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Plain]]:
        observed, _, ended, cut, info = super().step(action)
        return observed, 1.0 if ended else 0.0, ended, cut, info


class SeesMoreThanItsSpace(ReverseEnv):
    def observe(self) -> str:
        return self.challenge.word.upper()


class DealsAtRandom(ReverseEnv):
    class rules(Reverse):
        @classmethod
        def deal(cls, stream: Stream) -> Self:
            return cls("".join(secrets.choice("abcdefgh") for _ in range(12)))


class DependsOnTheHashSeed(ReverseEnv):
    """The order of a set of strings is another in another process."""

    class rules(Reverse):
        @classmethod
        def deal(cls, stream: Stream) -> Self:
            return cls("".join({stream.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(12)}) + "ab")


class IgnoresTheSeed(ReverseEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=None if options is None else seed, options=options)


class RendersInColour(ReverseEnv):
    """Names a render mode that it has not."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "human"], "render_fps": 1}  # type: ignore[misc]


class GuessesFromItsMemory(ReverseEnv):
    """A player that guesses depends on a seed of its own, so two processes see other plays."""

    class rules(Reverse):
        def guess(self, rng: random.Random) -> str:
            return secrets.token_hex(4)
