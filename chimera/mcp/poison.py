"""What a tool's description must not hold: orders to the model that reads it, and characters that hide them.

A description is read by every planner that sees the tool, whether it is called or not ("tool poisoning", Invariant
Labs 2025). The gateway's detector looks for injections of any kind; what is added here is what poisoned descriptions
do: speak to the model, send it to secrets or to other tools first, or ask it to be silent. None of this is proof, so
that a person may approve a tool in spite of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chimera.mcp.shown import shown
from chimera.mcp.types import ToolDefinition
from chimera.security.gateway.gateway import SecurityGateway
from chimera.security.gateway.limits import strings
from chimera.security.gateway.normal import fold
from chimera.security.gateway.views import views

MAX_SIGNS: Final = 16
MAX_CHARS: Final = 18_000
"""Of a piece: what is undone of a longer text, such as base64, is looked at in part only."""

OVERLAP: Final = 2_000
SURE: Final = 0.985
"""The detector's score that counts. It learnt from other texts, and descriptions are imperatives: its own threshold
suspects 8 % of the 725 honest tools of MetaTool and LiveMCPBench, this one and all other signs together 1 %."""

SIGNS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    (
        "a tag that claims importance",
        re.compile(r"</?(?:important|critical|system|secret|instructions?|hidden)\b[^>]*>"),
    ),
    (
        "asks for silence towards the user",
        re.compile(
            r"(?:do not|don't|never|without) (?:\w+ ){0,2}?(?:tell|telling|mention|inform|informing|notify|notifying|"
            r"alert|alerting|reveal|disclose|show|say)(?:ing)?\b[^.]{0,60}?\b(?:user|human|anyone|this|it)\b"
        ),
    ),
    (
        "sends the model to secrets",
        re.compile(
            r"\.ssh\b|\bid_(?:rsa|ed25519)\b|/etc/(?:passwd|shadow)|\.aws/|\.env\b(?! var)|mcp\.json|\bprivate key\b|"
            r"\b(?:read|send|include|pass|attach|append|provide)\b[^.]{0,60}\b(?:password|credential|api[ _-]?key|"
            r"secret key|access token|session token|conversation history|chat history|system prompt)"
        ),
    ),
    (
        "orders calls of tools",
        re.compile(
            r"\b(?:before|prior to|when|whenever|after) (?:using|calling|invoking|running|you (?:use|call)) "
            r"(?:this|any|all|every|other|another|the)\b[^.]{0,80}"
            r"\b(?:must|first|always|you (?:should|need|have to)|call|read)\b|"
            r"\b(?:must|always|should) (?:first )?(?:call|use|invoke|run) (?:this|the \w+) (?:tool )?(?:first|before|"
            r"instead)\b"
        ),
    ),
    (
        "changes what other tools do",
        re.compile(
            r"\b(?:instead of|rather than|replaces?|supersedes?|deprecat\w{2,3}|(?:do not|never) (?:use|call))\b"
            r"[^.]{0,60}\b(?:other|any other|all other|official|built-?in|trusted)\b[^.]{0,20}\btools?\b|"
            r"\bwhen(?:ever)? (?:sending|the \w+ tool|another tool|an? email)\b[^.]{0,80}"
            r"\b(?:must|always|change|redirect|bcc|recipient)"
        ),
    ),
    (
        "speaks to the model",
        re.compile(
            r"\b(?:ai|llm|language model|assistant|model|agent|claude|gpt)s?\b[,:]? (?:must|should always|shall|has to|"
            r"have to|is required to|needs? to)\b|\byou (?:must|are required to|have to) (?:always|never|also|first)\b|"
            r"\bsidenote\b|\b(?:highest|top) priority\b[^.]{0,40}\b(?:instruction|rule)"
        ),
    ),
)
_GAP: Final = re.compile(r"[ \t]{40}|\n{12}|\n[ \t]{30}")
_ESCAPE: Final = re.compile(r"\x1b|\\x1b|\\u001b|\\033", re.IGNORECASE)


def signs_of_poison(definition: ToolDefinition, gateway: SecurityGateway) -> tuple[str, ...]:
    """What a person has to know before approving the tool, in our words; empty if nothing is suspicious."""
    texts = [definition.name, definition.title, definition.description]
    texts += strings([definition.input_schema, definition.output_schema, definition.annotations])
    return tuple(dict.fromkeys(sign for part in _parts("\n".join(texts)) for sign in _signs(part, gateway)))[:MAX_SIGNS]


def _parts(text: str) -> Iterator[str]:
    """The whole text in pieces that the gateway takes, each with the end of the one before."""
    starts = range(0, max(1, len(text) - OVERLAP), MAX_CHARS - OVERLAP)
    yield from (text[start : start + MAX_CHARS] for start in starts)


def _signs(text: str, gateway: SecurityGateway) -> Iterator[str]:
    text = text.encode(errors="replace").decode()
    if _ESCAPE.search(text):
        yield "terminal escapes"
    if _GAP.search(text):
        yield "a gap that pushes text out of sight"
    screened = gateway.screen(text, "tool:description")
    for finding in screened.findings:
        if finding.kind == "unicode" and not finding.what.endswith("look-alike"):
            yield f"hidden characters: {finding.what}"
        elif finding.kind not in ("unicode", "encoded"):
            yield f"{finding.kind}: {shown(finding.what, 80)}"
    if screened.score >= SURE:
        yield f"reads like an injection ({screened.score:.2f})"
    for reading in (text, *(view.text for view in views(text))):
        folded = fold(reading)
        for what, pattern in SIGNS:
            if found := pattern.search(folded):
                yield f"{what}: {shown(found[0], 80)}"
