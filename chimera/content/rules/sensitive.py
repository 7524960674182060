"""Politics, health and money: no persuasion by a machine, and neutral information only after a person's look.

A topic is told by words, persuasion by phrases. What urges somebody within a post on such a topic is blocked; a post on
it that urges nobody is held for review. Reporting what somebody else recommends is not urging, if the sentence says
whose words they are; "vote for" stays what it is whoever is named. Words catch plain cases in English, and a
few in German, French and Spanish: a policy and the people in the queue add the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from chimera.content.rules.phrases import Phrases, alts, whole
from chimera.content.rules.sensitive_words import PUSHES, TOPICS, URGES
from chimera.security.safety.findings import Finding, Output, Severity

_END = re.compile(r"[.!?](?=\s|$)|\n")
_TOLD = re.compile(
    r"\b(?:says?|said|according to|reports?|reported|told|recommends?|recommended|announced|warns?|warned|argues?"
    r"|argued|found|finds|writes|wrote|estimates?|advises?|advised|laut|selon|seg[uú]n)\b|[“\"„»]",
    re.IGNORECASE,
)


class SensitiveCheck:
    """Asks that a post persuades nobody on politics, health or finance, and that a person sees one about them."""

    name = "sensitive"

    def __init__(self) -> None:
        self._phrases = Phrases((*TOPICS, *PUSHES, *URGES))

    def findings(self, output: Output) -> Iterator[Finding]:
        text = "\n".join((output.text, *alts(output)))
        found = [(rule, start, end) for rule, start, end in self._phrases.search(text)]
        pushed = {rule.id for rule, _, _ in found if rule.id.startswith("persuasion.")}
        urged = any(rule.id == "urge" and not _told(text, start, end) for rule, start, end in found)
        for rule in sorted({rule.id for rule, _, _ in found if rule.id.startswith("sensitive.")}):
            topic = rule.removeprefix("sensitive.")
            if urged:
                pushed.add(f"persuasion.{topic}")
            elif f"persuasion.{topic}" not in pushed:
                advice = f"this is about {topic}: a person is to look at it, and at its sources"
                yield whole(rule, output, advice, Severity.REVIEW)
        for one in sorted(pushed):
            yield whole(one, output, "no persuasion on politics, health or finance: inform, with sources, or leave it")


def _told(text: str, start: int, end: int) -> bool:
    """Whether the sentence that holds this place says whose words these are."""
    begins = max((match.end() for match in _END.finditer(text, 0, start)), default=0)
    closing = _END.search(text, end)
    return _TOLD.search(text[begins : closing.start() if closing else len(text)]) is not None
