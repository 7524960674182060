"""Nothing twice: an account does not say again, in nearly the same words, what it said or plans to say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from chimera.content.rules.coordination import WINDOW_S
from chimera.content.rules.phrases import alts, whole
from chimera.content.rules.similarity import Likeness, alike, likeness
from chimera.core.clock import Clock
from chimera.security.safety.findings import Finding, Output


class SaidBefore(Protocol):
    """What an account has said so far: a `PostLedger`."""

    def said_before(self, post_key: str, account: str, reply_to: str, since_s: float) -> list[Likeness]: ...


class RepeatedCheck:
    """Asks that the account has not said the same within `window_s`, in nearly the same words.

    A reply is compared with what answers the same mention: two people who ask the same may be told the same.
    """

    name = "repeated"

    def __init__(self, said: SaidBefore, *, clock: Clock, window_s: float = WINDOW_S) -> None:
        self._said = said
        self._clock = clock
        self._window_s = window_s

    def findings(self, output: Output) -> Iterator[Finding]:
        post_key = output.key.rpartition(".")[0]
        since_s = self._clock.now() - self._window_s
        before = self._said.said_before(post_key, output.channel, output.reply_to, since_s)
        for text in (output.text, "\n".join((output.text, *alts(output)))):
            own = likeness(text)
            if any(alike(own, earlier) for earlier in before):
                advice = f"{output.channel} says this already: say something new, or nothing"
                yield whole("repeated.copy", output, advice)
                return
