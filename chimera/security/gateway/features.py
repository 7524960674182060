"""Sentences of a text and their features: hashed words, pairs, pieces of words and classes of words.

Feature hashing (Weinberger et al. 2009) with CRC-32, so that a table of weights is all there is to keep.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chimera.security.gateway.lexicon import BY_WORD
from chimera.security.gateway.normal import fold

BITS: Final = 17
MASK: Final = (1 << BITS) - 1
MAX_SENTENCES: Final = 2_000
MAX_WORDS: Final = 60
REACH: Final = 4

TOKEN: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")
END: Final = re.compile(
    r"(?<=[.!?。！？])[\"')\]]{0,2}(?:\[[\w ]{1,20}\])?\s+|(?<=[。！？])|(?<=[a-z)][.!?])(?=[A-Z\"'])"
)
BLOCK: Final = re.compile(
    r"</?(?:p|div|li|td|tr|br|h[1-6]|title|table|ul|ol|body|html|head|section|span|a)\b[^<>]{0,300}>", re.I
)
CONTENT: Final = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class Sentence:
    """A sentence, in its normal form, and whether it stands on a line of its own."""

    text: str
    alone: bool


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text, at most `MAX_SENTENCES`: of lines, and within a line by its punctuation.

    A line goes on in the next one where it ends with no punctuation and that begins in lower case.
    """
    lines: list[str] = []
    for line in BLOCK.sub("\n", text).split("\n"):
        stripped = line.strip()
        if lines and stripped[:1].islower() and lines[-1][-1:].isalpha():
            lines[-1] += " " + stripped
        elif stripped:
            lines.append(stripped)
    found: list[Sentence] = []
    for line in lines:
        cells = [line] if line.count("|") < 2 else [line, *(cell for cell in line.split("|") if len(cell.split()) > 4)]
        for cell in cells:
            parts = [folded for part in END.split(cell) if (folded := fold(part).strip())]
            parts = [piece for part in parts for piece in _pieces(part)]
            found += [Sentence(part, len(parts) == 1) for part in parts]
            if len(found) >= MAX_SENTENCES:
                return found[:MAX_SENTENCES]
    return found


def _pieces(part: str) -> list[str]:
    words = part.split(" ")
    if len(words) <= MAX_WORDS:
        return [part]
    return [" ".join(words[at : at + MAX_WORDS]) for at in range(0, len(words), MAX_WORDS)]


def hashes(sentence: str) -> NDArray[np.int64]:
    """The features of a sentence in its normal form: sorted indices below 2^BITS, each once."""
    tokens = TOKEN.findall(sentence)[: 4 * MAX_WORDS]
    found: set[int] = set()
    if not tokens:
        return np.zeros(0, np.int64)
    before = "^"
    classes: list[tuple[int, str]] = []
    for place, token in enumerate(tokens):
        found.update(_of_word(token))
        found.add(_hash(f"b {before} {token}"))
        before = token
        for name in BY_WORD.get(token, ()):
            found.add(_hash(f"c {name}"))
            if place < 2:
                found.add(_hash(f"f {name} {place}"))
            found.update(_hash(f"p {other}>{name}") for at, other in classes if place - at <= REACH and at != place)
            classes.append((place, name))
    names = sorted({name for _, name in classes})
    found.update(_hash(f"q {one}&{other}") for at, one in enumerate(names) for other in names[at + 1 :])
    found.add(_hash(f"e {tokens[-1]}"))
    found.add(_hash(f"0 {tokens[0]}"))
    found.add(_hash(f"n {min(len(tokens).bit_length(), 7)}"))
    return np.fromiter(sorted(found), np.int64, len(found))


@lru_cache(maxsize=20_000)
def _of_word(word: str) -> tuple[int, ...]:
    if word.isdigit():
        return (_hash(f"d {min(len(word), 4)}"),)
    found = {_hash(f"w {word}")}
    if len(word) > 3 or not word.isascii():
        framed = f" {word[:30]} "
        found.update(_hash(f"g {framed[at : at + n]}") for n in (3, 4, 5) for at in range(len(framed) - n + 1))
    return tuple(found)


def _hash(feature: str) -> int:
    return zlib.crc32(feature.encode("utf-8", "surrogatepass")) & MASK


def content(sentence: str) -> set[str]:
    """The words of a sentence that have a meaning of their own, cut to their stems' length."""
    return {word[:5] for word in CONTENT.findall(sentence) if word not in BY_WORD}
