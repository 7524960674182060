"""How long a text is to a platform: graphemes, with links counted as the platform does.

Counted from above: combining marks belong to the letter before them (UAX #29), everything else counts one. So an emoji
that is joined of four counts four or more, where a platform counts one, and no text is longer there than here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

LINK: Final = re.compile(r"https?://[^\s<>\"”]+")

_COMBINING: Final = frozenset({"Mn", "Me"})


def links(text: str) -> tuple[str, ...]:
    """The addresses in it, without the punctuation of the sentence around them."""
    return tuple(found.rstrip(".,;:!?)]}'’") for found in LINK.findall(text))


def length(text: str, link_chars: int | None = None) -> int:
    """Graphemes of `text`, at most. With `link_chars` each link counts at least that (Mastodon: 23)."""
    count = sum(unicodedata.category(c) not in _COMBINING for c in text) + (
        unicodedata.category(text[:1] or "a") in _COMBINING
    )
    if link_chars is not None:
        count += sum(max(0, link_chars - len(link)) for link in links(text))
    return count
