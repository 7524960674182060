"""The brand's own sentences, and which of them a question is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import bm25s
import numpy as np
import Stemmer

from chimera.content.create.brief import Source
from chimera.content.create.claims import sentences
from chimera.core.errors import InputError

MAX_SENTENCES: Final = 20_000
MIN_WORDS: Final = 4
MIN_SHARED: Final = 2
"""Words, other than the commonest, that a question and its answer share; one alone is chance."""

_COMMON: Final = frozenset(
    "a an and any are as at be been but by can could dear did do does for from get had has have hello hey hi"
    " how i if in is it its just me my no not of on or our please so tell than thank thanks that the their them"
    " there they this to too us was we were what when where which who why will with would you your".split()
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence of a source. `covered` is the share of the question's words that it has, 0 to 1."""

    text: str
    source: Source
    covered: float


class Passages:
    """An index of sources (BM25 in Lucene's form, on stems). Raises InputError for more than 20,000 sentences."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        self._rows = [
            (text, source)
            for source in sources
            for text in sentences(source.quote)
            if len(text.split()) >= MIN_WORDS and len(text) <= 1_000
        ]
        if len(self._rows) > MAX_SENTENCES:
            raise InputError(f"the brand's sources have {len(self._rows)} sentences; at most {MAX_SENTENCES} are read")
        self._stems = [self._stem(f"{source.title} {text}") for text, source in self._rows]
        vocabulary: dict[str, int] = {}
        columns = [[vocabulary.setdefault(stem, len(vocabulary)) for stem in stems] for stems in self._stems]
        self._vocabulary = vocabulary
        self._ranker: bm25s.BM25 | None = None
        if vocabulary:
            self._ranker = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
            self._ranker.index((columns, vocabulary), show_progress=False)

    def search(self, question: str, k: int = 3) -> list[Passage]:
        """The best, the first first; none that shares fewer than two words with the question."""
        asked = set(self._stem(question))
        known = sorted(asked & self._vocabulary.keys())
        if self._ranker is None or not known:
            return []
        scores = np.asarray(self._ranker.get_scores(known), dtype=np.float64)
        found = []
        for row in np.argsort(-scores, kind="stable")[:k]:
            shared = len(asked & set(self._stems[row]))
            if shared >= MIN_SHARED:
                text, source = self._rows[row]
                found.append(Passage(text, source, shared / len(asked)))
        return found

    def _stem(self, text: str) -> list[str]:
        words = [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in _COMMON]
        return list(self._stemmer.stemWords(words))
