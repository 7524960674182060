"""A text's normal form, for looking only: what a reader, or a model, takes it for, whatever characters it is made of.

The text itself is never changed by this. NFKC (Unicode Annex 15) undoes width and ligatures; accents go; letters of
other scripts that stand inside a Latin word become the Latin letters that they look like (Unicode Technical
Standard 39, confusables, the common part); invisible characters go, and tag characters (U+E0000) become the ASCII
that they spell.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

TAGS: Final = range(0xE0000, 0xE0080)
BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
INVISIBLE: Final = frozenset(
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\uffa0"
)
KEPT: Final = frozenset("\n\t\r\f")

SEEN: Final[dict[int, str | None]] = {
    **{code: None for code in range(0x20) if chr(code) not in KEPT},
    **{ord(character): None for character in (*BIDI, *INVISIBLE)},
    **dict.fromkeys(range(65024, 65040)),
    **{code: chr(code - 0xE0000) for code in TAGS if code >= 0xE0020},
    ord("\r"): "\n",
}
"""What a reader sees of a character that is not what it seems: nothing, or the ASCII that a tag spells."""

LOOKALIKES: Final = str.maketrans(
    "аеорсухіјѕԁɡһӏкмтвнпґԛԝαβγεικνορτυχωηɑɩⅼАЕОРСУХІЈЅКМТВНПΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdghlkmtbhnrqwabyeiknoptuxwnailAEOPCYXIJSKMTBHNABEZHIKMNOPTYX",
)
WORD: Final = re.compile(r"\w+")
LATIN: Final = re.compile(r"[a-z]", re.IGNORECASE)
OTHER: Final = re.compile(r"[\u0370-\u052f\u0250-\u02af\u2170-\u217f]")
COMBINING: Final = re.compile(r"[\u0300-\u036f]+")
SPACES: Final = re.compile(r"[^\S\n]+")


def fold(text: str) -> str:
    """The normal form: invisible characters gone, NFKC, no accents, Latin look-alikes, lower case, single spaces."""
    return SPACES.sub(" ", plain(text).lower())


def plain(text: str) -> str:
    """As `fold`, but case and spaces stay: what encodings are looked for in."""
    text = text.replace("\r\n", "\n").translate(SEEN)
    if not text.isascii():
        text = unicodedata.normalize("NFC", COMBINING.sub("", unicodedata.normalize("NFKD", text)))
        text = WORD.sub(_latin, text)
    return text


def _latin(found: re.Match[str]) -> str:
    word = found[0]
    if OTHER.search(word) and LATIN.search(word):
        return word.translate(LOOKALIKES)
    return word
