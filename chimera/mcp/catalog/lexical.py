"""BM25 over tools: which share the query's words. It needs no model and no download."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import numpy.typing as npt

from chimera.mcp.catalog.document import stems

Scores = npt.NDArray[np.float64]
"""One number for each tool of an index."""

K1, B = 1.2, 0.75


class LexicalIndex:
    """BM25 in Lucene's form (Robertson and Zaragoza 2009; Kamphuis et al., ECIR 2020) over one text a row."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._rows = len(texts)
        self._vocabulary: dict[str, int] = {}
        columns = [[self._vocabulary.setdefault(s, len(self._vocabulary)) for s in row] for row in stems(texts)]
        self._ranker: bm25s.BM25 | None = None
        if self._vocabulary:
            self._ranker = bm25s.BM25(k1=K1, b=B, method="lucene")
            self._ranker.index((columns, self._vocabulary), show_progress=False)

    def scores(self, query: str) -> Scores:
        """A score for each text; 0.0 where it has no word of the query."""
        known = [stem for stem in dict.fromkeys(stems([query])[0]) if stem in self._vocabulary]
        if self._ranker is None or not known:
            return np.zeros(self._rows)
        return np.asarray(self._ranker.get_scores(known), dtype=np.float64)
