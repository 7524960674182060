"""One message, one voice: no several accounts behind the same words; and a person's yes before a new audience."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from chimera.content.publish.types import Entry
from chimera.content.rules.phrases import alts, whole
from chimera.content.rules.similarity import Likeness, alike, likeness
from chimera.core.clock import Clock
from chimera.core.errors import NotThere
from chimera.security.safety.findings import Finding, Output, Severity

WINDOW_S: Final = 14 * 86_400.0


class Said(Protocol):
    """What the installation has said so far: a `PostLedger`."""

    def entry(self, key: str) -> Entry:
        """Raises NotThere."""

    def said_by_others(self, post_key: str, account: str, since_s: float) -> list[tuple[str, Likeness]]: ...

    def new_audience(self, account: str, audience: str) -> bool: ...


class CoordinationCheck:
    """Asks that no other account of the installation says the same within `window_s`, in nearly the same words.

    A thread is compared part by part and as a whole: a message divided is the same message.
    """

    name = "coordination"

    def __init__(self, said: Said, *, clock: Clock, window_s: float = WINDOW_S) -> None:
        self._said = said
        self._clock = clock
        self._window_s = window_s

    def findings(self, output: Output) -> Iterator[Finding]:
        post_key = output.key.rpartition(".")[0]
        since_s = self._clock.now() - self._window_s
        others = self._said.said_by_others(post_key, output.channel, since_s)
        for text in dict.fromkeys((output.text, "\n".join((output.text, *alts(output))), self._thread(post_key))):
            own = likeness(text)
            for account, theirs in others:
                if alike(own, theirs):
                    advice = f"{account} says this already: several accounts behind one message is coordination"
                    yield whole("coordination.duplicate", output, advice)
                    return

    def _thread(self, post_key: str) -> str:
        """All parts of the post; "" if it is not known."""
        try:
            return "\n".join(self._said.entry(post_key).post.parts)
        except NotThere:
            return ""


class AudienceCheck:
    """Asks for a person before an account speaks to an audience for the first time."""

    name = "audience"

    def __init__(self, said: Said) -> None:
        self._said = said

    def findings(self, output: Output) -> Iterator[Finding]:
        if self._said.new_audience(output.channel, output.audience):
            advice = f"{output.channel} has not spoken to {output.audience} before: a person is to agree first"
            yield whole("audience.new", output, advice, Severity.REVIEW)
