"""How alike two messages are: by the words they share and by the rows of words they share.

Rows of three words (shingles, Broder 1997, "On the resemblance and containment of documents") find copies with changes;
the sets of their stems find what was only put in another order or lightly reworded. Both are compared exactly, not by
sketches: a post has few words. A paraphrase in other words altogether is not found.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from dataclasses import dataclass
from typing import Final, Self

from chimera.security.safety.views import decoded, joined, plain, raw

MAX_WORDS: Final = 2_000
MIN_WORDS: Final = 2
"""A single word is nobody's message: it is alike only to itself."""

SHORT_WORDS: Final = 5
"""With fewer of them, all have to stand in the other message, and to be at least `SHORT_SHARE` of it."""

SHORT_SHARE: Final = 0.5

ALIKE_ROWS: Final = 0.35
ALIKE_WORDS: Final = 0.65
WITHIN: Final = 0.85
"""The share of the shorter message's words that the longer one has too."""

_WORD = re.compile(r"[^\W_]+")
_HOST = re.compile(r"(?:https?://|www\.)[^\s/?#]+")
_MARK = re.compile(r"\[ref \w{12}\]|[#@](?=\w)")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_ENDING = re.compile(r"(?<=\w{4})(?:ings?|edly|ed|es|s|ly|er|ers|en|e)$")
_STOP = frozenset(
    "a about after all also an and any are as at be been but by can could did do does for from get had has have he her"
    " his how if in into is it its just like more most my new no not now of on one only or other our out over she so"
    " some than that the their them then there these they this to too up us very was we were what when where which who"
    " why will with would you your der die das und ist ein eine mit von zu den im auf für nicht le la les des et un une"
    " est pour dans que el los las una con por del".split()
)


@dataclass(frozen=True, slots=True)
class Likeness:
    """What is kept of a message to compare it by: hashes of its stems and of its rows of three words."""

    words: frozenset[int]
    rows: frozenset[int]

    def to_bytes(self) -> bytes:
        return array("Q", [len(self.words), *sorted(self.words), *sorted(self.rows)]).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        numbers = array("Q")
        numbers.frombytes(data)
        first = 1 + numbers[0]
        return cls(frozenset(numbers[1:first]), frozenset(numbers[first:]))


def likeness(text: str) -> Likeness:
    """What to compare `text` by, without disguise, links' hosts and the words that every text has.

    The words of a link's path count, and so do those of a CamelCase word, each for itself.
    """
    spaced = _HUMP.sub(" ", _MARK.sub(" ", _HOST.sub(" ", text)))
    seen = joined(plain(decoded(raw(spaced))))
    spoken = [word.casefold() for word in _WORD.findall(seen.text)[:MAX_WORDS]]
    words = [_ENDING.sub("", word) for word in spoken if word not in _STOP and (len(word) > 2 or word.isdigit())]
    rows = (" ".join(words[at : at + 3]) for at in range(len(words) - 2))
    return Likeness(frozenset(map(_hash, words)), frozenset(map(_hash, rows)))


def alike(one: Likeness, other: Likeness) -> bool:
    """Whether the two say the same thing in nearly the same words."""
    fewer = min(len(one.words), len(other.words))
    if fewer < MIN_WORDS:
        return bool(one.words) and one.words == other.words
    shared = len(one.words & other.words)
    if fewer < SHORT_WORDS:
        return shared == fewer and shared >= SHORT_SHARE * max(len(one.words), len(other.words))
    if 2 * shared >= ALIKE_WORDS * (len(one.words) + len(other.words)) or shared >= WITHIN * fewer:
        return True
    either = len(one.rows | other.rows)
    return either > 0 and len(one.rows & other.rows) >= ALIKE_ROWS * either


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
