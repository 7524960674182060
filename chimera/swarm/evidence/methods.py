"""Three honest ways to find the sentence that answers a question. Each needs no model weights and no network.

They differ in what they can see: `bm25` whole words and the kind of thing asked for, `tfidf` parts of words and short
phrases, `graph` what stands around a sentence. What one misses another finds; that is why voting between them pays.

Every method says how sure it is on the same scale, the share of the question's weight that it found (0..1), with words
that a shard lacks counted in. So scores compare between shards and can be added between methods.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from chimera.core.types import Quote
from chimera.swarm.evidence.index import Scores, ShardIndex
from chimera.swarm.evidence.kinds import asked_kind, things
from chimera.swarm.evidence.words import content_stems, fold, stems

HOP = 0.7
"""What is left of a word's activation after one step in the graph."""

ANSWERS_HOLD_THEIR_KIND = 0.9
"""How often the sentence that answers "when" holds a date, "how many" a number, and so on."""

_PRONOUN = re.compile(r"\b(?:he|her|hers|him|his|it|its|she|that|their|theirs|them|these|they|this|those)\b")


@dataclass(frozen=True)
class Scored:
    """A passage that a method found, and how sure it is of it, from 0 to 1."""

    quote: Quote
    confidence: float


@dataclass(frozen=True)
class Extractor:
    """A named method. `score` is pure: an index and a question in, one number for each passage out."""

    name: str
    score: Callable[[ShardIndex, str], Scores]

    def rank(self, index: ShardIndex, parts: Sequence[str], part: int, k: int) -> list[Scored]:
        """The best `k` passages for one part of a question, best first; ties go to the earlier file and line.

        A later part that refers back ("how many features has it?") is read in the light of the first: a passage counts
        as much as its document answers that one. Passages without any score are left out.
        """
        if not len(index) or k < 1:
            return []
        scores = self.score(index, parts[part])
        if part and _refers_back(parts[part], parts[0]):
            first = self.score(index, parts[0])
            scores = scores * index.best_of(first, index.document_starts)
        scores = np.asarray(np.round(np.clip(scores, 0.0, 1.0), 6), dtype=np.float64)
        order = np.lexsort((np.arange(len(index)), -scores))
        found: dict[Quote, Scored] = {}
        for at in order:
            if scores[at] <= 0.0 or len(found) == k:
                break
            quote = index.passages[at].quote
            found.setdefault(quote, Scored(quote, float(scores[at])))
        return list(found.values())


def _refers_back(question: str, first: str) -> bool:
    return bool(_PRONOUN.search(fold(question))) or not set(content_stems(question)).isdisjoint(content_stems(first))


def score_bm25(index: ShardIndex, question: str) -> Scores:
    """BM25 over the stems of all words (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009).

    The kind of thing that is asked for counts as one more word, with the weight of a term that answers nearly always
    hold (Robertson and Sparck Jones, "Relevance Weighting of Search Terms", 1976).
    """
    wanted = list(dict.fromkeys(stems(question)))
    most = sum(index.words.weight(stem) for stem in wanted)
    known = [stem for stem in wanted if stem in index.words.vocabulary]
    if not known:
        return np.zeros(len(index))
    found = np.asarray(index.bm25.get_scores(known), dtype=np.float64)
    kind = asked_kind(question)
    if kind is not None:
        asked = things(kind, question)
        holds = np.array([bool(there - asked) for there in index.things(kind)], dtype=np.float64)
        share = (holds.sum() + 0.5) / (len(index) + 1.0)
        odds = ANSWERS_HOLD_THEIR_KIND / (1.0 - ANSWERS_HOLD_THEIR_KIND) * (1.0 - share) / share
        weight = max(0.0, math.log(odds))
        found, most = found + weight * holds * (found > 0), most + weight
    return found / most


def score_tfidf(index: ShardIndex, question: str) -> Scores:
    """The cosine of TF-IDF vectors over runs of characters."""
    return index.ngrams.similarity(question)


def score_graph(index: ShardIndex, question: str) -> Scores:
    """Spreading activation over the graph of a document's parts.

    Each word of the question activates the sentences it stands in. Activation reaches the next sentence in one hop, the
    rest of the paragraph and what stands below a heading in two, the rest of the document in three, and loses a share
    at each (Crestani, "Application of Spreading Activation Techniques in Information Retrieval", 1997). A word counts
    by its nearest mention only, so that a sentence gains just the words that it lacks.
    """
    wanted = content_stems(question)
    here = index.words.present(wanted)
    near = here.copy()
    near[1:] = np.maximum(near[1:], HOP * here[:-1] * index.continues[1:, None])
    near[:-1] = np.maximum(near[:-1], HOP * here[1:] * index.continues[1:, None])
    near = np.maximum(near, HOP**2 * index.best_of(here, index.paragraph_starts))
    near = np.maximum(near, HOP**2 * index.context.present(wanted))
    near = np.maximum(near, HOP**3 * index.best_of(here, index.document_starts))
    weights = np.array([index.words.weight(stem) for stem in wanted])
    return np.asarray(near @ weights / weights.sum()) if len(wanted) else np.zeros(len(index))


METHODS: Mapping[str, Extractor] = MappingProxyType(
    {
        method.name: method
        for method in (Extractor("bm25", score_bm25), Extractor("graph", score_graph), Extractor("tfidf", score_tfidf))
    }
)
"""The methods by name, in the fixed order of their names."""
