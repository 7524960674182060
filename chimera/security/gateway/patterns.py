"""Patterns and structure that attacks have: few, and none of them proof.

They run over the normal form (`normal.fold`). Each is linear in the text: every repetition in them is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["override", "leak", "persona", "role", "token", "exfiltration", "unicode", "encoded", "canary"]

_PRIOR = r"(?:previous|prior|above|earlier|preceding|foregoing|former|initial|original|your|system|existing|past)"
_RULES = r"(?:instruction|direction|rule|guideline|order|command|directive|prompt|constraint|restriction|programming)"
_DROP = r"(?:ignor\w{0,4}|disregard|forget|overrid\w{1,4}|bypass|neglect|do not follow|don't follow|stop following)"

PATTERNS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    (
        "override",
        re.compile(rf"\b{_DROP}\W{{1,3}}(?:\w{{1,12}}\W{{1,3}}){{0,4}}{_PRIOR}\W(?:\w{{1,12}}\W){{0,2}}{_RULES}"),
    ),
    (
        "override",
        re.compile(r"\b(?:forget|ignore|disregard) (?:everything|all(?: of)? (?:that|this|the above)|what you)"),
    ),
    (
        "override",
        re.compile(
            r"(?:ignorier\w{1,3}|vergiss|vergessen sie) (?:\w{1,12} ){0,3}(?:anweisung|regel|vorgabe|befehl)|"
            r"(?:ignorez?|oublie[rz]?) (?:\w{1,12} ){0,3}(?:instruction|consigne|regle)|"
            r"(?:ignor[ae]|olvid[ae]|dimentica|esquec[ae]) (?:\w{1,12} ){0,3}(?:instruc|istruzion|reglas|regol|regras)|"
            r"(?:игнорируй\w{0,2}|забудь\w{0,2}) (?:\w{1,12} ){0,3}(?:инструкци|правил|указани)|"
            r"忽略.{0,8}(?:指令|规则|指示)|忘记.{0,8}(?:规则|指令)|指示.{0,8}無視|지시.{0,8}무시"
        ),
    ),
    (
        "leak",
        re.compile(
            r"\b(?:reveal|print|show|repeat|output|display|tell me|dump|recite|give me|write out|"
            r"what (?:is|are|were))\b(?:\W{1,3}\w{1,12}){0,4}\W{1,3}"
            r"(?:system prompt|initial prompt|(?:your|the above|previous) (?:\w{1,12} )?"
            r"(?:instructions|prompt|rules)|hidden (?:prompt|instructions)|pre-?prompt)"
        ),
    ),
    (
        "persona",
        re.compile(
            r"\byou are (?:now|no longer)\b|\bfrom now on\b.{0,40}\byou\b|"
            r"\b(?:dan|developer|god|jailbreak|sudo) mode\b|\bdo anything now\b|"
            r"\bwithout (?:any )?(?:restrictions|filters|ethic\w{0,5}|moral\w{0,3}|censorship)\b|"
            r"\bpretend (?:to be|you are|that you)\b|"
            r"\bno (?:ethic\w{0,5}|moral\w{0,3}|content) (?:guidelines|policy|limits)"
        ),
    ),
    ("token", re.compile(r"<\|\w{2,24}\|>|\[/?inst\]|<</?sys>>|</?s>|<(?:start|end)_of_turn>|\[\|\w{2,16}\|\]")),
    (
        "role",
        re.compile(
            r"(?m)^\W{0,6}(?:system|assistant|developer|tool)(?: (?:message|prompt|override|note|command))?\W{0,3}:|"
            r"</?(?:system|assistant|instructions?|developer|tool_result|function_results?)>|"
            r"\"role\"\s{0,3}:\s{0,3}\"(?:system|developer|assistant|tool)\""
        ),
    ),
    ("role", re.compile(r"(?m)^\W{2,12}end (?:of )?(?:the )?(?:document|input|context|prompt|user|text|data)\b")),
    ("exfiltration", re.compile(r"!\[[^\]\n]{0,200}\]\(\s{0,3}(?:https?:)?//[^)\s]{1,300}(?:=|\{)")),
    ("exfiltration", re.compile(r"<img[^<>]{0,200}src\s{0,3}=\s{0,3}.?https?://[^<>\s]{1,300}\?[^<>\s]{1,300}[{=]")),
)
MAX_EACH: Final = 8


@dataclass(frozen=True)
class Finding:
    """Something seen in a text. `view` says what was undone to see it: empty for the text as it stands."""

    kind: Kind
    what: str
    view: str = ""


def findings(folded: str, view: str = "") -> Iterator[Finding]:
    """What the patterns see in a text in its normal form, at most `MAX_EACH` of each pattern."""
    for kind, pattern in PATTERNS:
        for count, found in enumerate(pattern.finditer(folded)):
            if count == MAX_EACH:
                break
            yield Finding(kind, found[0][:80], view)
