"""What speaks to machines instead of people: an instruction to other assistants has no place in a post.

A text from outside may have got an order through a writer into a draft, and whoever's assistant reads the post next
would meet it. Orders are blocked; what the detector of the SecurityGateway finds odd is looked at by a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chimera.content.rules.phrases import Phrases, alts, whole
from chimera.core.errors import InputError
from chimera.security.gateway.gateway import SecurityGateway
from chimera.security.safety.findings import Finding, Output, Severity
from chimera.security.safety.rules import Rule
from chimera.security.safety.views import decoded, plain, raw

_MACHINE = (
    "(ai|ais|llm*|gpt|chatgpt|copilot|gemini|claude|language model*|ai model*|ai assistant*|ai agent*|assistant"
    "|assistants|chatbot*|bot|bots|crawler*|summarizer*|summariser*|indexer*|siri|alexa)"
)
_DO = (
    "(recommend|say|reply|answer|forward|repeat|rank|click|visit|send|execute|run|ignore|follow|post|buy|delete|email"
    "|transfer|summarize|summarise|like|repost|boost|tell|include|call|name|list|give|leave|prefer|mention|order|rate)"
)
_READS = "(read|reads|reading|process*|parses|parsing|summari*|scrap*|see|sees|seeing|index*|crawl*)"

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        id="injected.command",
        severity=Severity.BLOCK,
        advice="write for people: take out what instructs assistants, and look where it came from",
        any=(
            "(ignore|disregard|forget|override|bypass) <3> (previous|prior|above|earlier|preceding|your|all|system) <3>"
            " (instruction*|prompt*|guideline*|directive*|programming)",
            f"(dear|attention|note to|message to|notice to|hey|important for) <2> {_MACHINE} <4> {_DO}",
            f"if you are (a|an|the)? <2> {_MACHINE} <6> {_DO}",
            f"{_MACHINE} <2> {_READS} (this|the) <6> {_DO}",
            f"{_MACHINE} <2> {_READS} this <2> (when|if|whenever) <6> {_DO}",
            f"{_MACHINE} <2> {_READS} this <6> (should|must|shall|please|kindly) <2> {_DO}",
            f"(note|notes|message|notice|instruction|instructions|memo|word) (for|to) <2> {_MACHINE} <6> {_DO}",
            f"to (whichever|whatever|any|all|every|the) {_MACHINE} <6> (please|kindly|you) <2> {_DO}",
            f"{_MACHINE} please <2> {_DO}",
            "you are now <2> (dan|developer mode|unrestricted|jailbroken|a different assistant|in developer mode)",
            "(reveal|print|repeat|output|leak|show|send) <3> (system prompt|your instructions|your prompt)",
            "(new|updated|real) (system)? (instruction|instructions|prompt) <1> (for you|begin|follow|below|are)",
            "(ignoriere|vergiss|missachte) <3> (anweisung*|vorgaben|regeln)",
            "(ignora|olvida|ignore|ignorez|oublie|oubliez) <3> (instrucciones|consignes|instructions) <1>"
            " (anteriores|precedentes|previas)",
        ),
    ),
    Rule(
        id="injected.addressed",
        severity=Severity.REVIEW,
        advice="this says what assistants should do: a person is to look whether it is about them or to them",
        any=(
            f"{_MACHINE} (must|shall|should|are to|have to|need to) <1> {_DO}",
            f"{_MACHINE} <2> {_READS} this",
            f"(note|notes|message|notice|instruction|instructions|memo|word) (for|to) <2> {_MACHINE}",
            f"(whichever|whatever) <1> {_MACHINE}",
        ),
    ),
)

_TEMPLATE = re.compile(
    r"<\|?\s*(?:im_start|im_end|im_sep|system|assistant|user|endoftext|start_header_id)\s*\|?>|\[/?INST\]|<<\s*/?SYS\s*>>"
    r"|^\s*(?:#{1,6}\s*)?(?:system|assistant)\s*(?:prompt|message)?\s*:",
    re.IGNORECASE | re.MULTILINE,
)


class InjectedCheck:
    """Asks that a post says nothing to machines."""

    name = "injected"

    def __init__(self, screen: SecurityGateway | None = None) -> None:
        self._phrases = Phrases(RULES)
        self._screen = screen or SecurityGateway()

    def findings(self, output: Output) -> Iterator[Finding]:
        yield from self._phrases.findings(output)
        for text in (output.text, *alts(output)):
            if _TEMPLATE.search(plain(decoded(raw(text))).text):
                yield whole("injected.template", output, "take out the marks of a model's conversation")
            try:
                suspicious = self._screen.screen(text, "draft").suspicious
            except InputError as error:
                yield whole("injected.unreadable", output, str(error)[:200])
                continue
            if suspicious:
                advice = "this reads like an order to an assistant: a person is to look at it"
                yield whole("injected.suspected", output, advice, Severity.REVIEW)
