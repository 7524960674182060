"""One challenge in progress: pure rules, drawn from a stream, replied to in text, judged without any opinion.

Everything about a challenge follows from its environment's id and its own. So whoever knows both can deal it again,
replay a response, and compute the verdict; nobody has to be believed.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import ClassVar, Self

from chimera.arena.canonical import Plain, decode, encode
from chimera.arena.randomness import Stream, seed_of
from chimera.arena.types import MAX_TEXT_CHARS, Verdict
from chimera.core.errors import EvidenceError


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

        Any text is taken: one that breaks the rules ends the play, with a verdict that says so. Raises ValueError when
        the play is over.
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


def deal(kind: type[Challenge], challenge_id: str) -> Challenge:
    """The challenge of this id, at its beginning."""
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
    if not isinstance(challenge_id, str):
        return Verdict(ok=False, reason="info has no challenge_id")
    challenge = deal(kind, challenge_id)
    if info != info_of(challenge, challenge_id):
        return Verdict(ok=False, reason="info is not that of the challenge")
    if prompt != challenge.prompt():
        return Verdict(ok=False, reason="the prompt is not that of the challenge")
    if len(response) > MAX_TEXT_CHARS:
        return Verdict(ok=False, reason=f"the response has more than {MAX_TEXT_CHARS} characters")
    try:
        replies = replies_of(kind, response)
    except (EvidenceError, UnicodeError):
        return Verdict(ok=False, reason="the response is not a canonical list of replies")
    for reply in replies:
        if challenge.verdict is not None:
            return Verdict(ok=False, reason="there are replies after the end")
        challenge.reply(reply)
    return challenge.verdict or Verdict(ok=False, reason="the response ends before the play does")
