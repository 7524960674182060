"""One challenge in progress: pure rules, drawn from a stream, replied to in text, judged without any opinion.

Everything about a challenge follows from its environment's id and its own. So whoever knows both can deal it again,
replay a response, and compute the verdict; nobody has to be believed.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import ClassVar, Self

from pydantic import TypeAdapter, ValidationError

from chimera.arena.canonical import Plain, decode, encode
from chimera.arena.randomness import Stream, seed_of
from chimera.arena.types import MAX_TEXT_CHARS, ChallengeId, Verdict
from chimera.core.errors import EvidenceError, InputError

MAX_TURNS = 256
"""Replies in one play. An environment that goes on after as many is broken."""

_CHALLENGE_ID: TypeAdapter[str] = TypeAdapter(ChallengeId)


class Challenge(ABC):
    """The rules of one environment, and how far one play of it has come.

    `multi_turn` challenges take several replies, and their response is the canonical JSON list of them; the response to
    any other is the one reply itself, as it came.
    """

    env_id: ClassVar[str]
    multi_turn: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def deal(cls, stream: Stream) -> Self:
        """The challenge that this stream deals."""

    @abstractmethod
    def prompt(self) -> str:
        """What a player is told first: the rules, the position, and the form of a reply. The same at any time."""

    @abstractmethod
    def public(self) -> dict[str, Plain]:
        """What `info` holds beside the challenge's id: facts about how it began, and never the answer."""

    @abstractmethod
    def reply(self, text: str) -> str:
        """Take the player's next reply; what the player is told then, which is nothing at the end.

        Any text is taken: one that breaks the rules ends the play, with a verdict that says so. The empty one always
        does. Raises ValueError when the play is over.
        """

    @property
    @abstractmethod
    def verdict(self) -> Verdict | None:
        """The verdict, when the play is over."""

    @property
    @abstractmethod
    def score(self) -> int:
        """The reward, +1, 0 or -1, when the play is over."""

    @abstractmethod
    def gold(self) -> str:
        """A reply that a perfect player would give now."""

    @abstractmethod
    def guess(self, rng: random.Random) -> str:
        """A reply that a player would give who knows what is allowed, and nothing else."""


class SingleTurn(Challenge):
    """A challenge of one question and one reply. A right reply scores 1, any other 0."""

    _verdict: Verdict | None = None

    @abstractmethod
    def fault(self, text: str) -> str:
        """What is wrong with this reply; nothing, when it solves the challenge."""

    def reply(self, text: str) -> str:
        if self._verdict is not None:
            raise ValueError("the play is over")
        fault = self.fault(text)
        self._verdict = Verdict(ok=not fault, reason=fault)
        return ""

    @property
    def verdict(self) -> Verdict | None:
        return self._verdict

    @property
    def score(self) -> int:
        return int(self._verdict is not None and self._verdict.ok)


def deal(kind: type[Challenge], challenge_id: str) -> Challenge:
    """The challenge of this id, at its beginning. Raises InputError for what is no challenge's id."""
    try:
        _CHALLENGE_ID.validate_python(challenge_id, strict=True)
    except ValidationError as error:
        raise InputError(f"{challenge_id!a:.200} is not the id of a challenge; seed:42 is one") from error
    return kind.deal(Stream(kind.env_id, seed_of(challenge_id)))


def info_of(challenge: Challenge, challenge_id: str) -> dict[str, Plain]:
    """The `info` of a challenge that has just been dealt."""
    return {"challenge_id": challenge_id, **challenge.public()}


def response_of(kind: type[Challenge], replies: list[str]) -> str:
    """The response that these replies make up. Raises EvidenceError for text that has no UTF-8."""
    if not kind.multi_turn:
        (reply,) = replies
        return reply
    return encode(replies).decode()


def replies_of(kind: type[Challenge], response: str) -> list[str]:
    """The replies that a response is made up of. Raises EvidenceError when it is not such a list."""
    if not kind.multi_turn:
        return [response]
    replies = decode(response.encode())
    if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
        raise EvidenceError("a response of several turns is a list of strings", "schema")
    return replies


def verify(kind: type[Challenge], prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
    """Deal the challenge that `info` names, replay the response, and judge it. Of `info` only the name is believed."""
    challenge_id = info.get("challenge_id")
    try:
        challenge = deal(kind, str(challenge_id))
    except InputError:
        return Verdict(ok=False, reason="info has no challenge_id")
    if not _same(info, info_of(challenge, str(challenge_id))):
        return Verdict(ok=False, reason="info is not that of the challenge")
    if prompt != challenge.prompt():
        return Verdict(ok=False, reason="the prompt is not that of the challenge")
    if len(response) > MAX_TEXT_CHARS:
        return Verdict(ok=False, reason=f"the response has more than {MAX_TEXT_CHARS} characters")
    try:
        replies = replies_of(kind, response)
    except (EvidenceError, UnicodeError):
        return Verdict(ok=False, reason="the response is not a canonical list of replies")
    if len(replies) > MAX_TURNS:
        return Verdict(ok=False, reason=f"there are more than {MAX_TURNS} replies")
    for reply in replies:
        if challenge.verdict is not None:
            return Verdict(ok=False, reason="there are replies after the end")
        challenge.reply(reply)
    return challenge.verdict or Verdict(ok=False, reason="the response ends before the play does")


def _same(one: Plain, other: Plain) -> bool:
    """Whether both have the same canonical bytes: unlike `==`, which takes `True` and `1.0` for `1`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
