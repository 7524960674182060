"""The kind of thing that a question asks for, and which sentences hold such a thing.

"When" wants a date, "how many" a number, "who" a name, and a sentence without one can hardly be the answer. This is
predictive annotation: Prager, Brown, Coden and Radev, "Question-Answering by Predictive Annotation", SIGIR 2000.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Kind(StrEnum):
    """What an answer must hold."""

    DATE = "date"
    NUMBER = "number"
    NAME = "name"


_ASKS = (
    (Kind.DATE, r"when|(?:what|which)(?:\s+\w+)?\s+(?:year|date|month|century|decade|day)"),
    (
        Kind.NUMBER,
        r"how\s+(?:many|much|old|long|far|tall|large|big|high|heavy|fast|deep|wide)"
        r"|(?:what|which)(?:\s+(?:is|was|are|were|the|total|approximate|average))*"
        r"\s+(?:percentage|percent|share|number|population|amount|age|height|length|distance|price|cost)",
    ),
    (Kind.NAME, r"who|whom|whose|where"),
    (None, r"what|which|why|how"),
)
_ASKED = re.compile(r"\b(?:" + "|".join(f"({pattern})" for _, pattern in _ASKS) + r")\b", re.IGNORECASE)

_MONTH = r"(?:jan|feb|march|april|june|july|aug|sept?|oct|nov|dec)(?:uary|ruary|ust|ember|tember|ober)?|may(?=\s\d)"
_YEAR = r"(?:1\d{3}|20\d\d)"
_DATE = re.compile(rf"\b(?:({_YEAR})s?|({_MONTH})|(centur(?:y|ies)|decades?))\b", re.IGNORECASE)
_DATED = re.compile(
    rf"\b(?:\d{{1,2}}\s)?(?:{_MONTH})\b(?:\s\d{{1,2}}\b)?,?(?:\s\d{{4}}\b)?"
    rf"|(?:\b(?:in|of|since|by|from|to|until|till|between|and|during|before|after|early|late|circa|the)\s|\()"
    rf"{_YEAR}(?:s|[–-]\d{{2,4}})?\b",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_WORDS = re.compile(
    r"\b(?:none|once|twice|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)"
    r"teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|millions?|billions?|half|thirds?|quarters?"
    r"|dozens?)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)\b[A-Z][^\W\d_]+|\b[A-Z][^\W\d_]+(?=\s[A-Z][^\W\d_])")


def asked_kind(question: str) -> Kind | None:
    """The kind that the question's first question word asks for, if it says."""
    match = _ASKED.search(question)
    return _ASKS[match.lastindex - 1][0] if match and match.lastindex else None


def things(kind: Kind, text: str) -> frozenset[str]:
    """The things of a kind that stand in `text`, casefolded: to answer, one must not be in the question already."""
    if kind is Kind.DATE:
        found = [next(group for group in match.groups() if group) for match in _DATE.finditer(text)]
    elif kind is Kind.NUMBER:
        undated = _DATED.sub(" ", text)
        found = _DIGITS.findall(undated) + _NUMBER_WORDS.findall(undated)
    else:
        found = _NAME.findall(text)
    return frozenset(thing.casefold() for thing in found)
