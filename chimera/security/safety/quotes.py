"""Long quotes of protected texts, by winnowing (Schleimer, Wilkerson and Aiken, SIGMOD 2003).

Of every `WINDOW` runs of `GRAM` words in a row, the one with the smallest hash is kept; the same is kept of the same
run of words wherever it stands, so copies meet. A quote is a row of such meetings at one distance between both texts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

from chimera.core.errors import InputError
from chimera.security.safety.views import View

GRAM = 5
WINDOW = 4
SURE_SLACK_WORDS = 2 * (WINDOW - 1)
"""A quote of this many words more than `min_words` is found for sure, one of fewer than `min_words` never is."""

MAX_FINGERPRINTS = 2_000_000
MAX_POSTINGS = 8
"""Places that are kept of one fingerprint: what stands everywhere is nobody's."""

_WORD = re.compile(r"[^\W_]+")


class ProtectedTexts:
    """An index of texts that may not be quoted for `min_words` words or more. Raises InputError if it is too large."""

    def __init__(self, texts: Iterable[str], *, min_words: int = 25, max_fingerprints: int = MAX_FINGERPRINTS) -> None:
        self._min_words = min_words
        self._index: dict[int, list[tuple[int, int]]] = {}
        kept = 0
        for number, text in enumerate(texts):
            words = [match[0].casefold() for match in _WORD.finditer(text)]
            for fingerprint, at in winnowed(words):
                postings = self._index.setdefault(fingerprint, [])
                if len(postings) < MAX_POSTINGS:
                    postings.append((number, at))
                    kept += 1
            if kept > max_fingerprints:
                raise InputError(f"the protected texts are too long for {max_fingerprints} fingerprints: give fewer")

    def search(self, view: View, tick: Callable[[], None]) -> Iterator[tuple[int, int, int]]:
        """Each quote: the number of the text, and the quote's place in the original."""
        if not self._index:
            return
        matches = list(_WORD.finditer(view.text))
        words = [match[0].casefold() for match in matches]
        rows: dict[tuple[int, int], list[int]] = {}
        for count, (fingerprint, at) in enumerate(winnowed(words)):
            if count % 1_024 == 0:
                tick()
            for number, there in self._index.get(fingerprint, ()):
                rows.setdefault((number, at - there), []).append(at)
        for (number, _), places in sorted(rows.items()):
            for first, last in _chains(places):
                if last + GRAM - first >= self._min_words:
                    yield (number, *view.span(matches[first].start(), matches[last + GRAM - 1].end()))


def _chains(places: list[int]) -> Iterator[tuple[int, int]]:
    """Rows of places, in order, with at most a window between neighbours."""
    first = last = places[0]
    for at in places[1:]:
        if at - last > WINDOW:
            yield first, last
            first = at
        last = at
    yield first, last


def winnowed(words: list[str]) -> Iterator[tuple[int, int]]:
    """The fingerprints of a row of words, each with the place of its first word."""
    hashes = [
        int.from_bytes(
            hashlib.blake2b(" ".join(words[at : at + GRAM]).encode("utf-8", "replace"), digest_size=8).digest()
        )
        for at in range(len(words) - GRAM + 1)
    ]
    chosen = -1
    for first in range(max(0, len(hashes) - WINDOW + 1)):
        window = range(first, first + WINDOW)
        best = min(window, key=lambda at: (hashes[at], -at))
        if best != chosen:
            chosen = best
            yield hashes[best], best
    if 0 < len(hashes) < WINDOW:
        best = min(range(len(hashes)), key=lambda at: (hashes[at], -at))
        yield hashes[best], best
