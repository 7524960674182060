"""Characters that hide something from a reader: what kinds a text holds, and how many.

They are reported and never removed. Some are honest: joiners in Persian and in emoji, tags in the flag of Scotland.
Sources: CVE-2021-42574 (bidirectional controls), Unicode Technical Report 36 (security considerations).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from chimera.security.gateway.normal import BIDI, INVISIBLE, KEPT, LATIN, OTHER, TAGS, WORD
from chimera.security.gateway.patterns import Finding

MAX_WORDS: Final = 20_000


def marks(text: str) -> list[Finding]:
    """One finding for each kind of hiding character, with its number."""
    if text.isascii():
        kinds = Counter("control" for character in text if character < " " and character not in KEPT)
    else:
        kinds = Counter(kind for character in text if (kind := _kind(character)))
        words = (found[0] for _, found in zip(range(MAX_WORDS), WORD.finditer(text), strict=False))
        kinds["look-alike"] = sum(bool(LATIN.search(word) and OTHER.search(word)) for word in words)
    return [Finding("unicode", f"{count} {kind}") for kind, count in sorted(kinds.items()) if count]


def _kind(character: str) -> str:
    if ord(character) in TAGS:
        return "tag"
    if character in BIDI:
        return "bidirectional"
    if character in INVISIBLE:
        return "zero-width"
    return "control" if (character < " " and character not in KEPT) or "\x7f" <= character <= "\x9f" else ""
